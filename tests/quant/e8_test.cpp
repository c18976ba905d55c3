// QuIP#'s books: invariants G1 to G5 of the reference, and each code against its description.
#include "quant/e8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

#include "quant/storage.h"
#include "tests/quant/e8_reference.h"

namespace quire {
namespace {

template <class Book>
E8Value vector_of(uint32_t code) {
  E8Value v;
  for (int i = 0; i < 8; ++i) v[size_t(i)] = double(Book::vector(code).at(i));
  return v;
}
using First = E8pBook<uint16_t>;
using OneBit = E8OneBitBook<uint8_t>;

TEST(E8, EachCodeOfE8pIsWhatItsDescriptionSays) {
  ASSERT_EQ(e8p_rows().size(), 256u);
  for (uint32_t code = 0; code < 65536; ++code) ASSERT_EQ(vector_of<First>(code), e8p_value(code)) << code;
  E8Value flat, spike;  // examples of the description
  flat.fill(0.75), spike.fill(0.75);
  spike[7] = -1.25;
  EXPECT_EQ(vector_of<First>(0x0000), flat);
  EXPECT_EQ(vector_of<First>(0x0100), spike);
  flat.fill(0.25);
  EXPECT_EQ(vector_of<First>(0x0001), flat);
}

TEST(E8, E8pHasDistinctVectorsOfBothShifts) {  // G1, G2
  std::set<E8Value> seen;
  std::map<double, int> norms;
  std::array<int, 2> shifts{};
  for (uint32_t code = 0; code < 65536; ++code) {
    const E8Value v = vector_of<First>(code);
    seen.insert(v);
    const double shift = v[0] - std::floor(v[0]) == 0.75 ? 0.25 : -0.25;  // of a half
    E8Value base = v;
    for (double& b : base) b -= shift;
    ASSERT_EQ(std::fmod(sum_of(base), 2.0), 0.0) << code;
    ++norms[squared_norm(base)];
    ++shifts[shift > 0];
  }
  EXPECT_EQ(seen.size(), 65536u);
  EXPECT_EQ(norms, (std::map<double, int>{{2, 256}, {4, 2048}, {6, 7168}, {8, 16384}, {10, 32256}, {12, 7424}}));
  EXPECT_EQ(shifts, (std::array<int, 2>{32768, 32768}));
  for (const E8Value& v : seen) {
    E8Value minus = v;
    for (double& x : minus) x = -x;
    ASSERT_TRUE(seen.count(minus));
  }
}

TEST(E8, TheOneBitBook) {  // G5
  ASSERT_EQ(e8_one_bit().size(), 256u);
  std::set<E8Value> seen;
  std::map<double, int> norms;
  for (uint32_t code = 0; code < 256; ++code) {
    const E8Value v = vector_of<OneBit>(code);
    ASSERT_EQ(v, e8_one_bit()[code]) << code;
    seen.insert(v);
    ++norms[squared_norm(v)];
    ASSERT_EQ(std::fmod(sum_of(v), 2.0), 0.0);
    for (const double x : v) ASSERT_EQ(x - std::floor(x), v[0] - std::floor(v[0])) << code;
  }
  EXPECT_EQ(seen.size(), 256u);
  EXPECT_EQ(norms, (std::map<double, int>{{0, 1}, {2, 240}, {4, 15}}));
}

float distance(const float* x, const e8::Vector& v) {
  float sum = 0.0f;
  for (int i = 0; i < 8; ++i) sum += (x[i] - v.at(i)) * (x[i] - v.at(i));
  return sum;
}

TEST(E8, TheNearestIsNoFartherThanAnyOther) {  // G3
  std::vector<std::array<float, 8>> book(65536);
  for (uint32_t code = 0; code < 65536; ++code) {
    for (int i = 0; i < 8; ++i) book[code][size_t(i)] = First::vector(code).at(i);
  }
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 2000; ++trial) {
    std::array<float, 8> x;
    for (float& v : x) v = normal(rng) * (trial % 4 == 0 ? 3.0f : 1.03f);
    float least = 1e30f;
    for (const auto& v : book) {
      float sum = 0.0f;
      for (size_t i = 0; i < 8; ++i) sum += (x[i] - v[i]) * (x[i] - v[i]);
      least = std::min(least, sum);
    }
    // Two of nearly the same distance may be told apart otherwise: a few roundings of terms up to |x|^2 + |v|^2.
    const float got = distance(x.data(), First::vector(nearest_e8p(x.data())));
    ASSERT_LE(got, least + 64 * 0x1p-24f * (least + 100.0f)) << trial;
  }
}

TEST(E8, ErrorOnNormalNumbers) {  // G4
  std::mt19937 rng(8);
  std::normal_distribution<float> normal;
  double errors[3] = {};
  constexpr int kTrials = 20000;
  const float scales[3] = {1.03f, 0.98f, 1.03f}, residuals[3] = {0.0f, 2.04f, 3.45f};
  for (int trial = 0; trial < kTrials; ++trial) {
    float x[8];
    for (float& v : x) v = normal(rng);
    for (int kind = 0; kind < 3; ++kind) {
      float scaled[8], rest[8];
      for (int i = 0; i < 8; ++i) scaled[i] = x[i] * scales[kind];
      const e8::Vector first = First::vector(nearest_e8p(scaled));
      for (int i = 0; i < 8; ++i) rest[i] = (scaled[i] - first.at(i)) * residuals[kind];
      e8::Vector second = first;
      if (kind == 2) second = First::vector(nearest_e8p(rest));
      float least = 1e30f;
      for (uint32_t code = 0; kind == 1 && code < 256; ++code) {
        const e8::Vector v = OneBit::vector(code);
        const float d = distance(rest, v);
        if (d < least) least = d, second = v;
      }
      for (int i = 0; i < 8; ++i) {
        const float value = first.at(i) + (kind > 0 ? second.at(i) / residuals[kind] : 0.0f);
        errors[kind] += std::pow(double(value - scaled[i]) / double(scales[kind]), 2) / (8.0 * kTrials);
      }
    }
  }
  EXPECT_NEAR(errors[0], 0.0915, 0.01 * 0.0915);
  EXPECT_NEAR(errors[1], 0.0295, 0.01 * 0.0295);
  EXPECT_NEAR(errors[2], 0.00967, 0.01 * 0.00967);
}

TEST(E8, RowsDecodeFromAnyColumn) {
  std::mt19937 rng(9);
  for (const Codec codec : {id<E8p>, id<E8pRvq3>, id<E8pRvq4>}) {
    for (const int64_t cols : {8, 64, 203}) {
      const OwnedTensor owned = make_tensor({codec}, 3, cols);
      const Tensor& t = owned;
      const int64_t blocks = (cols + 7) / 8;
      for (int64_t r = 0; r < 3; ++r) {
        for (int64_t i = 0; i < 2 * blocks; ++i) t.data.row<uint8_t>(r)[i] = uint8_t(rng());
        for (int64_t i = 0; i < info(codec).row_bytes(cols, 1).high; ++i) t.high.row<uint8_t>(r)[i] = uint8_t(rng());
      }
      const float factor = 0.37f;
      if (codec != id<E8p>) *t.table.row<float>(0) = factor;
      for (int64_t r = 0; r < 3; ++r) {
        std::vector<float> expected(static_cast<size_t>(cols));
        for (int64_t c = 0; c < cols; ++c) {
          const auto at = size_t(c % 8);
          const float first = float(e8p_value(t.data.row<uint16_t>(r)[c / 8])[at]);
          float second = 0.0f;
          if (codec == id<E8pRvq3>) second = float(e8_one_bit()[t.high.row<uint8_t>(r)[c / 8]][at]);
          if (codec == id<E8pRvq4>) second = float(e8p_value(t.high.row<uint16_t>(r)[c / 8])[at]);
          expected[size_t(c)] = codec == id<E8p> ? first : first + factor * second;
        }
        for (int trial = 0; trial < 20; ++trial) {
          const int64_t c0 = trial == 0 ? 0 : int64_t(rng()) % cols,
                        n = trial == 0 ? cols : int64_t(rng()) % (cols - c0);
          std::vector<float> got(size_t(n), NAN);
          info(codec).decode(t, r, c0, n, got.data());
          for (int64_t i = 0; i < n; ++i) ASSERT_EQ(got[size_t(i)], expected[size_t(c0 + i)]) << info(codec).name;
        }
      }
    }
  }
}

TEST(E8, BitsAndNames) {
  EXPECT_EQ(tensor_bytes({id<E8p>}, 16, 64) * 8, 16 * 64 * 2);
  EXPECT_EQ(tensor_bytes({id<E8pRvq3>}, 16, 64) * 8, 16 * 64 * 3);
  EXPECT_EQ(tensor_bytes({id<E8pRvq4>}, 16, 64) * 8, 16 * 64 * 4);
  EXPECT_EQ(to_string(parse_format("e8p_rvq3")), "e8p_rvq3");
  EXPECT_EQ(info(id<E8p>).encode, nullptr);
}

}  // namespace
}  // namespace quire
