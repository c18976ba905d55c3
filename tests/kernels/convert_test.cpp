// convert: every format to every format is decode, then encode; the same format is a copy.
#include "kernels/convert.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

constexpr int64_t kRows = 19, kCols = 52;

class Convert : public testing::Test {
 protected:
  Machines machines_;
  Rng rng_{5};

  // On every device: what the GPU gives is compared here, what the CPU gives by the caller.
  void run(const Tensor& src, const Tensor& dst, const std::vector<int32_t>& rows = {}) {
    on_every_device(machines_, machines_.context(), {src}, dst,
                    [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
                      OnGpu gpu(ctx);
                      const int32_t* gather = rows.empty() ? nullptr : rows.data();
                      if (gather && ctx.device == Device::cuda) gather = gpu.in(rows);
                      convert(ctx, in[0], out, gather);
                      if constexpr (kCuda) {
                        if (ctx.device == Device::cuda) cuda::synchronize(ctx.stream);
                      }
                    });
  }
  // Random content; codebooks get centroids.
  OwnedTensor random(Format format, int64_t rows, int64_t cols, StorageOptions options = {}) {
    OwnedTensor t = empty(format, rows, cols, options);
    const std::vector<float> values = normal(rng_, rows * cols, 1.0f, 0.3f);
    encode(t, values);
    return t;
  }
  OwnedTensor empty(Format format, int64_t rows, int64_t cols, StorageOptions options = {}) {
    OwnedTensor t = make_tensor(format, rows, cols, options);
    const CodecInfo& codec = info(format.codec);
    const int64_t entries = codec.table_bytes / 4, tables = codec.table_shared ? 1 : cols;
    for (int64_t i = 0; i < entries * tables; ++i) {
      t.tensor.table.row<float>(0)[i] = -1.0f + 2.0f * float(i % entries) / float(entries - 1);
    }
    return t;
  }
  static void encode(const Tensor& t, const std::vector<float>& values) {
    const int64_t span = t.scale.ptr && t.scale.pitch > 0 ? t.scale.rows : 1;
    for (int64_t r = 0; r < t.rows; r += span) {
      info(t.codec).encode(t, r, std::min(span, t.rows - r), values.data() + r * t.cols, t.cols, scale_source(t));
    }
  }
};

TEST_F(Convert, AnyToAny) {
  for (const Format& from : every_format()) {
    const OwnedTensor src = random(from, kRows, kCols);
    for (const Format& to : every_format()) {
      if (from == to) continue;
      OwnedTensor expected = empty(to, kRows, kCols), got = empty(to, kRows, kCols);
      encode(expected, decoded(src));
      run(src, got);
      ASSERT_TRUE(memory_of(got) == memory_of(expected)) << to_string(from) << " to " << to_string(to);
    }
  }
}

TEST_F(Convert, SameFormatIsACopy) {
  for (const Format& format : every_format({0, 24, 1})) {
    if (info(format.codec).table_bytes > 0) continue;  // tables may differ
    const OwnedTensor src = random(format, kRows, kCols);
    const OwnedTensor got = empty(format, kRows, kCols);
    run(src, got);
    EXPECT_TRUE(memory_of(got) == memory_of(src)) << to_string(format);
  }
}

// Codes and scales that no encoder would make are kept: nothing is quantized again.
TEST_F(Convert, CopiesKeepForeignCodes) {
  const OwnedTensor src = random({id<Int4Z>, 24}, kRows, kCols);
  for (int64_t r = 0; r < kRows; ++r) {
    src.tensor.scale.row<float>(r)[1] = 1e-30f;
    src.tensor.aux.row<uint8_t>(r)[0] = 200;
  }
  const OwnedTensor got = empty({id<Int4Z>, 24}, kRows, kCols);
  run(src, got);
  EXPECT_TRUE(memory_of(got) == memory_of(src));
}

TEST_F(Convert, SumsOfCodes) {
  for (const int32_t group : {0, 24}) {
    const StorageOptions sums{.row_align = 64, .sums = true};
    const OwnedTensor values = random({id<F32>}, kRows, kCols);
    const OwnedTensor with = empty({id<Int8>, group}, kRows, kCols, sums),
                      without = empty({id<Int8>, group}, kRows, kCols);
    run(values, with);
    run(values, without);
    const OwnedTensor copy = empty({id<Int8>, group}, kRows, kCols, sums),
                      dropped = empty({id<Int8>, group}, kRows, kCols);
    run(with, copy);
    EXPECT_TRUE(memory_of(copy) == memory_of(with));
    run(with, dropped);
    EXPECT_TRUE(memory_of(dropped) == memory_of(without));
    const OwnedTensor found = empty({id<Int8>, group}, kRows, kCols, sums);
    run(without, found);
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<int16_t> codes(kCols);
      info(id<Int8>).codes(with.tensor, r, 0, kCols, codes.data());
      for (int64_t g = 0; g < with.tensor.groups(); ++g) {
        int32_t sum = 0;
        for (int64_t c = with.tensor.group_begin(g); c < with.tensor.group_end(g); ++c) sum += codes[size_t(c)];
        EXPECT_EQ(with.tensor.aux.row<int32_t>(r)[g], sum);
        EXPECT_EQ(found.tensor.aux.row<int32_t>(r)[g], sum);
      }
    }
  }
}

TEST_F(Convert, Gathers) {
  const std::vector<int32_t> rows = {3, 18, 3, 0, 7};
  for (const Format& from : every_format()) {
    const OwnedTensor src = random(from, kRows, kCols);
    const std::vector<float> values = decoded(src);
    std::vector<float> picked;
    for (const int32_t r : rows)
      picked.insert(picked.end(), values.begin() + r * kCols, values.begin() + (r + 1) * kCols);
    for (const Format& to : {Format{id<F32>}, Format{id<Int8>, 24}, from}) {
      if (info(to.codec).table_bytes > 0) continue;
      const OwnedTensor got = empty(to, 5, kCols);
      run(src, got, rows);
      if (to == from) {
        EXPECT_EQ(first_difference(decoded(got), picked), "") << to_string(from);
      } else {
        const OwnedTensor expected = empty(to, 5, kCols);
        encode(expected, picked);
        EXPECT_TRUE(memory_of(got) == memory_of(expected)) << to_string(from) << " to " << to_string(to);
      }
    }
  }
}

TEST_F(Convert, StaticScalesAreUsedAsTheyAre) {
  const OwnedTensor src = random({id<F32>}, 40, kCols);
  for (const Codec codec : {id<Int8>, id<E4M3>, id<Int4>}) {
    OwnedTensor dst = empty({codec}, 40, kCols);
    float scale = 0.013f;
    dst.tensor.scale = {reinterpret_cast<std::byte*>(&scale), 0, 1};
    run(src, dst);
    EXPECT_EQ(scale, 0.013f);
    const OwnedTensor expected = empty({codec}, 40, kCols);
    for (int64_t r = 0; r < 40; ++r) {
      *expected.tensor.scale.row<float>(r) = scale;
      info(codec).encode(expected, r, 1, src.tensor.data.row<const float>(r), kCols, ScaleSource::given);
    }
    EXPECT_EQ(first_difference(decoded(dst), decoded(expected)), "") << info(codec).name;
  }
}

// With what no format holds (of a NaN as a half the bits differ by device), and rows of one value.
TEST_F(Convert, WidthsOfLayers) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  std::vector<float> x = normal(rng_, 3 * 32776);
  each_activation([&](const Format& format, int64_t cols, int64_t ld, Tensor y) {
    for (size_t i = 5; i < x.size(); i += 97) x[i] = i % 3 ? INFINITY : -3e38f;
    for (size_t i = 5; i < x.size() && y.scale.ptr; i += 194) x[i] = NAN;
    run(f32_view(x.data(), 3, cols, ld), y);
    run(f32_view(x.data(), 3, cols, ld), y, {2, 0, 2});
    std::vector<float> zeros(size_t(3 * cols));
    run(f32_view(zeros, 3, cols), y);
    if (!y.scale.ptr || format.group > 0) return;
    float scale = 0.013f;
    y.scale = {reinterpret_cast<std::byte*>(&scale), 0, 1};
    run(f32_view(x.data(), 3, cols, ld), y);
  });
}

TEST_F(Convert, RowsThatShareScales) {
  const OwnedTensor src = random({id<F32>}, 37, 48);
  for (const int32_t span : {4, 16, 32}) {
    for (const Format& format :
         {Format{id<Int8>}, Format{id<UInt4O>, 1}, Format{id<E4M3>, 16}, Format{id<Int4Z>, 24}}) {
      const OwnedTensor expected = empty(format, 37, 48, {.span = span}), got = empty(format, 37, 48, {.span = span});
      encode(expected, decoded(src));
      run(src, got);
      EXPECT_TRUE(memory_of(got) == memory_of(expected)) << to_string(format) << " span " << span;
      // From there to a scale a row: not a copy.
      const OwnedTensor rows = empty(format, 37, 48), rows_expected = empty(format, 37, 48);
      encode(rows_expected, decoded(got));
      run(got, rows);
      EXPECT_TRUE(memory_of(rows) == memory_of(rows_expected)) << to_string(format) << " span " << span;
    }
  }
}

TEST_F(Convert, Orders) {
  const OwnedTensor src = random({id<F32>}, 8, 64);
  const OwnedTensor natural = empty({id<UInt4O>}, 8, 64),
                    tiles = empty({id<UInt4O>}, 8, 64, {.order = Order::value_tiles});
  run(src, natural);
  run(natural, tiles);
  EXPECT_FALSE(memory_of(natural) == memory_of(tiles));
  EXPECT_EQ(first_difference(decoded(tiles), decoded(natural)), "");
}

TEST_F(Convert, ThreadsDoNotMatter) {
  const OwnedTensor src = random({id<F16>}, 101, 200);
  const OwnedTensor one = empty({id<Int4Z>, 64}, 101, 200), three = empty({id<Int4Z>, 64}, 101, 200);
  convert(machines_.context(default_isa(), 1), src, one);
  convert(machines_.context(default_isa(), 3), src, three);
  EXPECT_TRUE(memory_of(one) == memory_of(three));
}

TEST_F(Convert, Refusals) {
  const OwnedTensor a = random({id<F32>}, 4, 8), b = random({id<F16>}, 4, 9), c = random({id<Int8>}, 3, 8);
  const Context ctx = machines_.context();
  expect_error([&] { convert(ctx, a, b); }, {"convert", "f32 (4, 8)", "f16 (4, 9)"});
  expect_error([&] { convert(ctx, a, c); }, {"convert", "int8 (3, 8)"});
  for (const int32_t bad : {4, -1, INT32_MAX}) {
    const int32_t rows[] = {0, bad, 1};
    expect_error([&] { convert(ctx, a, c, rows); }, {"convert", fmt::format("row {}", bad)});
  }
  const OwnedTensor none = random({id<F32>}, 0, 8), also_none = random({id<Int8>}, 0, 8);
  convert(ctx, none, also_none);
}

}  // namespace
}  // namespace quire
