// Codebook pages: dense codes through tables, sparse outliers beside them.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/quant/codec_cases.h"

namespace quire {
namespace {

using namespace testing_quant;

TEST(Codebook, EveryValueGoesToTheNearestCentroid) {
  std::mt19937 rng(1);
  for (const Codec codec : {id<Nuq4>, id<Nuq3>, id<Nuq2>}) {
    for (const Order order : {Order::natural, Order::rope_pairs}) {
      const OwnedTensor t = make_case(rng, {{codec, 0}, 1, order, 64}, 5);
      const std::vector<float> x = random_values(rng, 5 * 64);
      encode_all(t, x.data());
      const std::vector<float> y = decode_all(t);
      const int64_t entries = info(codec).table_bytes / 4;
      for (size_t i = 0; i < x.size(); ++i) {
        const float* lut = t.tensor.table.row<const float>(0) + int64_t(i % 64) * entries;
        float least = 1.0e30f;
        for (int64_t k = 0; k < entries; ++k) least = std::min(least, std::abs(lut[k] - x[i]));
        ASSERT_NE(std::find(lut, lut + entries, y[i]), lut + entries) << "a value of the column's own table";
        ASSERT_EQ(std::abs(y[i] - x[i]), least);
      }
    }
  }
}

TEST(Codebook, ValuesUseTheRangeOfTheirRow) {
  std::mt19937 rng(2);
  const OwnedTensor t = make_case(rng, {{id<Nuq3V>, 0}, 1, Order::natural, 64}, 4);
  const std::vector<float> x = random_values(rng, 4 * 64, Fill::shifted);
  encode_all(t, x.data());
  const std::vector<float> y = decode_all(t);
  for (int64_t r = 0; r < 4; ++r) {
    const auto [lo, hi] = std::minmax_element(x.begin() + r * 64, x.begin() + (r + 1) * 64);
    const uint16_t* meta = t.tensor.scale.row<const uint16_t>(r);
    EXPECT_EQ(meta[0], f32_to_f16((*hi - *lo) * 0.5f));
    EXPECT_EQ(meta[1], f32_to_f16((*hi + *lo) * 0.5f));
    // the ends of the row are the ends of the table: centre +- half-range
    EXPECT_EQ(y[size_t(lo - x.begin())], f16_to_f32(meta[1]) - f16_to_f32(meta[0]));
    EXPECT_EQ(y[size_t(hi - x.begin())], f16_to_f32(meta[1]) + f16_to_f32(meta[0]));
  }
}

TEST(Outliers, CapacityIsForAPageAndHead) {
  EXPECT_EQ(outlier_capacity(1, 64, 3), 96);  // 4 * 64 / 3 = 85.3
  EXPECT_EQ(outlier_capacity(1, 64, 8), 32);
  EXPECT_EQ(outlier_capacity(2, 64, 8), 64);
  EXPECT_EQ(outlier_capacity(1, 64, 1), 256);
}

TEST(Outliers, AFullListGivesUpTheSmallest) {
  uint16_t count = 0;
  std::vector<Outlier> slots(4);
  const OutlierList list{&count, slots.data(), 4};
  for (const float v : {5.0f, -2.0f, 9.0f, 3.0f}) add_outlier(list, 1, int(std::abs(v)), v);
  add_outlier(list, 2, 20, -7.0f);                                   // -2 goes
  add_outlier(list, 2, 21, 1.0f);                                    // is itself the smallest
  add_outlier(list, 2, 22, std::numeric_limits<float>::infinity());  // 3 goes
  ASSERT_EQ(count, 4);
  std::vector<float> kept;
  for (const Outlier& o : slots) kept.push_back(f16_to_f32(o.value));
  std::sort(kept.begin(), kept.end());
  EXPECT_EQ(kept, (std::vector<float>{-7.0f, 5.0f, 9.0f, 65504.0f}));
}

// KVQuant's key page as a reference: per-channel tables over each channel's own range without its extremes; what lies
// outside goes to the list. Dense and sparse together give back the outliers exactly and everything else within its
// cell.
TEST(Outliers, DenseAndSparseTogetherReproduceOutliersExactly) {
  std::mt19937 rng(3);
  constexpr int64_t kPage = 64, kDim = 64;
  constexpr float kThreshold = 2.0f;
  for (const Codec codec : {id<Nuq4>, id<Nuq3>, id<Nuq2>}) {
    const OwnedTensor page = make_case(rng, {{codec, 0}, 1, Order::rope_pairs, kDim}, kPage);
    const int64_t entries = info(codec).table_bytes / 4;
    float* lut = page.tensor.table.row<float>(0);
    for (int64_t i = 0; i < kDim * entries; ++i) lut[i] *= kThreshold;
    std::vector<float> x = random_values(rng, kPage * kDim);
    for (float& v : x) v = f16_to_f32(f32_to_f16(std::clamp(v, -1.9f, 1.9f)));
    uint16_t count = 0;
    std::vector<Outlier> slots(size_t(outlier_capacity(1, kPage, 3)));
    const OutlierList list{&count, slots.data(), int(slots.size())};
    for (int64_t r = 0; r < kPage; ++r) {  // one outlier a token, as a sink or a channel outlier would be
      x[size_t(r * kDim + int64_t(rng()) % kDim)] = f16_to_f32(f32_to_f16(r % 2 ? 3.0f + float(r) : -40.0f - float(r)));
      for (int64_t d = 0; d < kDim; ++d) {
        const float v = x[size_t(r * kDim + d)];
        if (std::abs(v) > kThreshold) add_outlier(list, int(r), int(d), v);
      }
    }
    ASSERT_EQ(count, kPage);
    encode_all(page, x.data());
    std::vector<float> row(size_t(kDim), 0.0f);
    for (int64_t r = 0; r < kPage; ++r) {
      info(codec).decode(page, r, 0, kDim, row.data());
      for (int64_t d = 0; d < kDim; ++d) {  // the dense code of an outlier is the nearest end of its table
        const float v = x[size_t(r * kDim + d)], *own = lut + d * entries;
        if (std::abs(v) > kThreshold) {
          ASSERT_EQ(row[size_t(d)], v > 0 ? own[entries - 1] : own[0]);
        }
      }
      apply_outliers(list, int(r), row.data());
      for (int64_t d = 0; d < kDim; ++d) {
        const float v = x[size_t(r * kDim + d)];
        if (std::abs(v) > kThreshold) {
          ASSERT_EQ(row[size_t(d)], v) << "row " << r << " dim " << d;
        } else {  // centroids lie at most 1.8 of even steps apart (codec_cases.h)
          ASSERT_LE(std::abs(row[size_t(d)] - v), 0.9f * 2.0f * kThreshold / float(entries - 1) * 1.0001f);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quire
