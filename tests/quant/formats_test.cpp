#include "quant/formats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "tests/expect_error.h"
#include "tests/quant/codec_cases.h"

namespace quire {
namespace {

using namespace testing_quant;

TEST(Formats, EveryCodecIsListedOnceUnderItsName) {
  std::set<std::string> names;
  for (int i = 0; i < Codecs::kSize; ++i) {
    const CodecInfo& c = info(Codec(i));
    EXPECT_TRUE(names.insert(c.name).second) << c.name;
    EXPECT_EQ(find_codec(c.name), Codec(i));
    visit(Codec(i), [&]<class C>(C) {
      EXPECT_EQ(id<C>, Codec(i));
      EXPECT_STREQ(C::kName, c.name);
    });
    EXPECT_EQ(c.codes != nullptr, c.integer);
    EXPECT_EQ(c.values != nullptr, c.linear);
    EXPECT_EQ(c.affine != nullptr, c.linear);
    // the planes of `align` columns are whole bytes: widths add up
    const RowBytes one = c.row_bytes(c.align, 1), ten = c.row_bytes(10 * c.align, 1);
    EXPECT_EQ(ten.data, 10 * one.data) << c.name;
    EXPECT_EQ(ten.high, 10 * one.high) << c.name;
  }
  EXPECT_EQ(find_codec("int5"), std::nullopt);
  volatile uint8_t unknown = 200;  // sanitizer builds warn of a constant index they cannot see refused
  EXPECT_THROW(info(Codec(unknown)), Error);
  EXPECT_THROW(visit(Codec(unknown), []<class C>(C) {}), Error);
}

TEST(Formats, SpellingRoundTrips) {
  for (int i = 0; i < Codecs::kSize; ++i) {
    const CodecInfo& c = info(Codec(i));
    EXPECT_EQ(to_string({Codec(i), c.group}), c.name);
    EXPECT_EQ(parse_format(c.name), (Format{Codec(i), c.group}));
    if (c.group > 0) {
      EXPECT_EQ(parse_format(fmt::format("{}/g{}", c.name, c.group)), (Format{Codec(i), c.group}));
      EXPECT_THROW(parse_format(fmt::format("{}/g{}", c.name, c.group + 1)), Error);
    } else if (has_scale(Codec(i))) {
      for (const int g : {1, 7, 64, 128}) {
        const std::string text = fmt::format("{}/g{}", c.name, g);
        EXPECT_EQ(parse_format(text), (Format{Codec(i), g}));
        EXPECT_EQ(to_string(parse_format(text)), text);
      }
    } else {
      EXPECT_THAT(error_of([&] { parse_format(fmt::format("{}/g64", c.name)); }), testing::HasSubstr("no scales"));
    }
  }
}

TEST(Formats, BadSpellingsAreErrorsThatSayWhatWorks) {
  for (const std::string text : {"", "int5", "Int8", "int4 ", "/g64", "w4"}) {
    EXPECT_THAT(error_of([&] { parse_format(text); }),
                testing::AllOf(testing::HasSubstr("'" + text + "'"), testing::HasSubstr("int8 int4"),
                               testing::HasSubstr("qoq4")));
  }
  for (const std::string text : {"int4/", "int4/g", "int4/64", "int4/g0", "int4/g-1", "int4/g64x", "int4/g64/g64",
                                 "int4/g99999999999", "int4/G64", "int4/g 64", "int4/g6.4"}) {
    EXPECT_THAT(error_of([&] { parse_format(text); }),
                testing::AllOf(testing::HasSubstr("'" + text + "'"), testing::HasSubstr("int4/g64")));
  }
}

TEST(Formats, BytesCountEveryPlane) {
  EXPECT_EQ(tensor_bytes({id<F32>}, 3, 5), 60);
  EXPECT_EQ(tensor_bytes({id<Int8>}, 2, 100), 2 * (100 + 4));
  EXPECT_EQ(tensor_bytes({id<Int4Z>, 64}, 1, 130), 65 + 3 * (4 + 1));
  EXPECT_EQ(tensor_bytes({id<Int3Z>, 64}, 1, 576), 576 * 3 / 8 + 9 * 5);
  EXPECT_EQ(tensor_bytes({id<TwoLevel4>, 64}, 1, 576), 288 + 4 + 9 * 2);
  EXPECT_EQ(tensor_bytes({id<E3M2>}, 1, 576), 576 * 6 / 8 + 4);
  EXPECT_EQ(tensor_bytes({id<UInt4O>}, 64, 128), 64 * (64 + 4));
  EXPECT_EQ(tensor_bytes({id<Q8_0>, 32}, 1, 64), 2 * 34);
  EXPECT_EQ(tensor_bytes({id<Q4_0>, 32}, 1, 64), 2 * 18);
  EXPECT_EQ(tensor_bytes({id<Q4_1>, 32}, 1, 33), 2 * 20);
  EXPECT_EQ(tensor_bytes({id<Spqr3>, 16}, 32, 48), 32 * 48 * 3 / 8 + 2 * 3 * 20);  // 3.625 bits
  EXPECT_EQ(tensor_bytes({id<Spqr3>, 16}, 17, 33), 17 * (9 + 5) + 2 * 3 * 20);
}

TEST(Views, RowsAreTheRowsOfTheWhole) {
  std::mt19937 rng(1);
  for (const CodecCase& c : codec_cases(64)) {
    const int64_t rows = 4 * c.span;
    const OwnedTensor owned = make_case(rng, c, rows);
    const Tensor& t = owned;
    encode_all(t, random_values(rng, rows * 64).data());
    const std::vector<float> whole = decode_all(t);
    const Tensor view = rows_of(t, c.span, 2 * c.span);
    EXPECT_EQ(decode_all(view), std::vector<float>(whole.begin() + c.span * 64, whole.begin() + 3 * c.span * 64))
        << c.name();
    // writing through the view changes those rows only
    const std::vector<float> x = random_values(rng, 2 * c.span * 64);
    encode_all(view, x.data());
    const std::vector<float> after = decode_all(t);
    EXPECT_TRUE(std::equal(whole.begin(), whole.begin() + c.span * 64, after.begin())) << c.name();
    EXPECT_TRUE(std::equal(whole.begin() + 3 * c.span * 64, whole.end(), after.begin() + 3 * c.span * 64)) << c.name();
    if (c.span > 1) {
      EXPECT_THROW(rows_of(t, 1, c.span), Error) << c.name();
      EXPECT_THROW(rows_of(t, 0, 1), Error) << c.name();
    }
    EXPECT_THROW(rows_of(t, 0, rows + 1), Error);
    EXPECT_THROW(rows_of(t, -1, 1), Error);
    EXPECT_THROW(rows_of(t, rows + 1, 0), Error);
    EXPECT_EQ(rows_of(t, rows, 0).rows, 0);
  }
}

TEST(Views, ColumnsAreTheColumnsOfTheWhole) {
  std::mt19937 rng(2);
  constexpr int64_t kCols = 896;  // a multiple of 7 * 128 and of every alignment
  for (const CodecCase& c : codec_cases(kCols)) {
    const int64_t rows = c.span == 1 ? 3 : c.span;
    const OwnedTensor owned = make_case(rng, c, rows);
    const Tensor& t = owned;
    const int64_t unit = std::lcm(int64_t(info(t.codec).align), int64_t(std::max(1, t.group)));
    encode_all(t, random_values(rng, rows * kCols).data());
    if (c.order != Order::natural) {
      EXPECT_THROW(cols_of(t, 0, kCols / 2), Error) << c.name();
      continue;
    }
    const std::vector<float> whole = decode_all(t);
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{0, unit}, {unit, 3 * unit}, {2 * unit, kCols}, {0, kCols}}) {
      if (end > kCols) continue;
      const Tensor view = cols_of(t, begin, end - begin);
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<float> y(size_t(end - begin), 0.0f);
        info(t.codec).decode(view, r, 0, end - begin, y.data());
        ASSERT_TRUE(std::equal(y.begin(), y.end(), whole.begin() + r * kCols + begin))
            << c.name() << " [" << begin << ", " << end << ")";
      }
    }
    if (unit > 1) {
      EXPECT_THROW(cols_of(t, 1, unit), Error) << c.name();
      EXPECT_THROW(cols_of(t, 0, unit - 1), Error) << c.name();
    }
    EXPECT_THROW(cols_of(t, 0, kCols + unit), Error);
    EXPECT_THROW(cols_of(t, -unit, unit), Error);
  }
}

TEST(Views, WritingAColumnViewLeavesTheRestAlone) {
  std::mt19937 rng(3);
  constexpr int64_t kCols = 256;
  for (const CodecCase& c : codec_cases(kCols)) {
    if (c.order != Order::natural || c.format.group == 7 || (has_scale(c.format.codec) && c.format.group == 0))
      continue;
    if (c.format.codec == id<TwoLevel4>) continue;  // its first level spans the row
    const int64_t rows = c.span == 1 ? 2 : c.span;
    const OwnedTensor owned = make_case(rng, c, rows);
    const Tensor& t = owned;
    encode_all(t, random_values(rng, rows * kCols).data());
    const std::vector<float> before = decode_all(t), x = random_values(rng, rows * 128);
    const Tensor view = cols_of(t, 128, 128);
    encode_all(view, x.data());
    const std::vector<float> after = decode_all(t), part = decode_all(view);
    for (int64_t r = 0; r < rows; ++r) {
      ASSERT_TRUE(std::equal(before.begin() + r * kCols, before.begin() + r * kCols + 128, after.begin() + r * kCols))
          << c.name();
      ASSERT_TRUE(std::equal(part.begin() + r * 128, part.begin() + (r + 1) * 128, after.begin() + r * kCols + 128))
          << c.name();
    }
  }
}

TEST(Views, ColumnsOfAnActivationKeepTheSumsOfTheirGroups) {
  std::mt19937 rng(4);
  StorageOptions options;
  options.sums = true;
  const OwnedTensor grouped = make_tensor({id<Int8>, 64}, 2, 256, options),
                    plain = make_tensor({id<Int8>}, 2, 256, options);
  const std::vector<float> x = random_values(rng, 512);
  encode_all(grouped, x.data());
  encode_all(plain, x.data());
  const Tensor view = cols_of(grouped, 128, 128);
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t g = 0; g < 2; ++g) {
      EXPECT_EQ(view.aux.row<const int32_t>(r)[g], grouped.tensor.aux.row<const int32_t>(r)[g + 2]);
    }
  }
  EXPECT_EQ(cols_of(plain, 128, 128).aux.ptr, nullptr);  // the sum of a whole row says nothing about a part
  EXPECT_EQ(cols_of(plain, 0, 256).aux.ptr, plain.tensor.aux.ptr);
}

TEST(Storage, PlanesAreAlignedApartAndZeroed) {
  for (const CodecCase& c : codec_cases(48)) {
    StorageOptions options;
    options.span = c.span;
    options.order = c.order;
    options.row_align = 64;
    const OwnedTensor t = make_tensor(c.format, 64, 48, options);
    EXPECT_EQ(int64_t(t.buffer.size()), storage_bytes(c.format, 64, 48, options));
    for (size_t i = 0; i < t.buffer.size(); ++i) ASSERT_EQ(t.buffer.data()[i], std::byte{0});
    EXPECT_EQ(t.tensor.data.pitch % 64, 0);
    const RowBytes bytes = info(c.format.codec).row_bytes(48, t.tensor.groups());
    const std::byte* end = t.buffer.data();
    for (const auto& [plane, size] :
         {std::pair{t.tensor.data, bytes.data}, {t.tensor.high, bytes.high}, {t.tensor.scale, bytes.scale}}) {
      EXPECT_EQ(plane.ptr != nullptr, size > 0) << c.name();
      if (!plane.ptr) continue;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(plane.ptr) % 64, 0u);
      EXPECT_GE(plane.ptr, end);
      end = plane.row<std::byte>(63) + size;
      EXPECT_LE(end, t.buffer.data() + t.buffer.size());
    }
  }
}

TEST(Storage, WhatCannotBeIsRefused) {
  StorageOptions tiles, sums;
  tiles.order = Order::value_tiles;
  sums.sums = true;
  EXPECT_THROW(make_tensor({id<UInt2O>}, 1, 40, tiles), Error);
  EXPECT_THROW(make_tensor({id<Q4_0>, 32}, 1, 64, tiles), Error);
  EXPECT_THROW(make_tensor({id<F16>}, 1, 64, tiles), Error);
  EXPECT_THROW(make_tensor({id<Int4>}, 1, 64, sums), Error);
  EXPECT_THROW(make_tensor({id<Int4>, -3}, 1, 64), Error);
  EXPECT_THROW(make_tensor({id<Int4>}, -1, 64), Error);
  EXPECT_THROW(make_tensor({Codec(99)}, 1, 64), Error);
  EXPECT_THROW(Buffer(size_t(1) << 62), Error);
  EXPECT_THROW(Buffer(~size_t(0)), Error);
  EXPECT_EQ(make_tensor({id<Int4>, 64}, 0, 64).tensor.rows, 0);
}

TEST(Storage, EmptyTensorsAreHarmless) {
  for (int i = 0; i < Codecs::kSize; ++i) {
    const OwnedTensor t = make_tensor({Codec(i), info(Codec(i)).group}, 2, 0);
    const float x = 1.0f;
    if (info(Codec(i)).encode) info(Codec(i)).encode(t, 0, 1, &x, 0, ScaleSource::found);
    info(Codec(i)).decode(t, 0, 0, 0, nullptr);
  }
}

}  // namespace
}  // namespace quire
