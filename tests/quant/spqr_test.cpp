// SpQR's codec against the rule of its library, written out here from the description of the method.
#include "quant/spqr.h"

#include <gtest/gtest.h>

#include <random>

#include "quant/storage.h"
#include "tests/random_blocks.h"

namespace quire {
namespace {

float f16(float x) { return f16_to_f32(f32_to_f16(x)); }

struct Codes {
  std::vector<int> weight, scale, zero;  // (rows, cols), (rows, groups) twice
  std::vector<float> second;             // (row tiles, groups, 4)
};

// Draws a matrix and puts it into `t`, a code at a time.
Codes fill(std::mt19937& rng, const Tensor& t) {
  Codes codes;
  const auto real = [&](float lo, float hi) { return f16(std::uniform_real_distribution<float>(lo, hi)(rng)); };
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t g = 0; g < t.groups(); ++g) {
      uint8_t* tile = t.scale.row<uint8_t>(r) + g * Spqr3::kTileBytes;
      if (r % 16 == 0) {
        const float second[4] = {real(-0.1f, 0.1f), real(-2.0f, 2.0f), real(-9.0f, 9.0f), real(-9.0f, 9.0f)};
        for (int i = 0; i < 4; ++i) {
          codes.second.push_back(second[i]);
          const uint16_t bits = f32_to_f16(second[i]);
          std::memcpy(tile + 2 * i, &bits, 2);
        }
      }
      codes.scale.push_back(int(rng() % 8));
      codes.zero.push_back(int(rng() % 8));
      Spqr3::put_codes(tile, int(r % 16), uint32_t(codes.scale.back()), uint32_t(codes.zero.back()));
    }
    std::vector<uint8_t> row(static_cast<size_t>(t.cols));
    for (uint8_t& q : row) codes.weight.push_back(q = uint8_t(rng() % 8));
    Spqr3::Planes::write(t, r, 0, t.cols, row.data());
  }
  return codes;
}

float value_of(const Codes& codes, int64_t cols, int64_t r, int64_t c) {
  const int64_t groups = (cols + 15) / 16, g = r * groups + c / 16;
  const float* second = codes.second.data() + (r / 16 * groups + c / 16) * 4;
  const float s = f16(second[0] * f16(float(codes.scale[size_t(g)]) - second[2]));
  const float z = f16(second[1] * f16(float(codes.zero[size_t(g)]) - second[3]));
  return f16(s * f16(float(codes.weight[size_t(r * cols + c)]) - z));
}

TEST(Spqr, ValuesAreThoseOfItsLibrary) {
  std::mt19937 rng(1);
  for (const int64_t rows : {1, 16, 17, 48}) {
    for (const int64_t cols : {1, 15, 16, 33, 80, 200}) {
      const OwnedTensor owned = make_tensor({id<Spqr3>, 16}, rows, cols);
      const Tensor& t = owned;
      const Codes codes = fill(rng, t);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t c0 = int64_t(rng() % uint64_t(cols)), n = 1 + int64_t(rng() % uint64_t(cols - c0));
        std::vector<float> whole(size_t(cols), NAN), part(size_t(n), NAN);
        Spqr3::decode(t, r, 0, cols, whole.data());
        Spqr3::decode(t, r, c0, n, part.data());
        for (int64_t c = 0; c < cols; ++c) {
          const float wanted = value_of(codes, cols, r, c);
          ASSERT_EQ(whole[size_t(c)], wanted) << "row " << r << " column " << c << " of " << rows << " x " << cols;
          ASSERT_EQ(Spqr3::decode_at(t, r, c), wanted);
          if (c >= c0 && c < c0 + n) {
            ASSERT_EQ(part[size_t(c - c0)], wanted);
          }
        }
      }
    }
  }
}

// Every pair of codes comes back from every row of a tile.
TEST(Spqr, ScalesAndZerosKeepTheirCodes) {
  const uint16_t one = f32_to_f16(1.0f);
  for (int i = 0; i < 16; ++i) {
    for (uint32_t pair = 0; pair < 64; ++pair) {
      uint8_t tile[Spqr3::kTileBytes] = {};
      std::memcpy(tile, &one, 2);
      std::memcpy(tile + 2, &one, 2);
      for (int other = 0; other < 16; ++other) {
        Spqr3::put_codes(tile, other, other == i ? pair & 7 : 7 - (pair & 7), other == i ? pair >> 3 : 7 - (pair >> 3));
      }
      EXPECT_EQ(Spqr3::level_at(tile, i).scale, float(pair & 7));
      EXPECT_EQ(Spqr3::level_at(tile, i).zero, float(pair >> 3));
    }
  }
}

TEST(Spqr, ViewsAreOfWholeTiles) {
  std::mt19937 rng(2);
  const OwnedTensor owned = make_tensor({id<Spqr3>, 16}, 48, 64);
  const Tensor& t = owned;
  fill(rng, t);
  EXPECT_THROW(rows_of(t, 8, 16), Error);
  EXPECT_THROW(cols_of(t, 8, 16), Error);
  const Tensor view = cols_of(rows_of(t, 16, 32), 32, 32);
  for (int64_t r = 0; r < 32; ++r) {
    for (int64_t c = 0; c < 32; ++c) EXPECT_EQ(Spqr3::decode_at(view, r, c), Spqr3::decode_at(t, 16 + r, 32 + c));
  }
}

}  // namespace
}  // namespace quire
