// Blocks of the formats that are only read: any codes and inner scales, under finite scales of either sign, and codes
// of E8.
#pragma once
#include <cmath>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "quant/storage.h"

namespace quire {

// Where the halves of a block lie; of mxfp4 none, its exponent is the first byte.
inline std::vector<int> halves_of(Codec codec) {
  if (codec == id<Q2_K>) return {80, 82};
  if (codec == id<Q3_K>) return {108};
  if (codec == id<Q4_K> || codec == id<Q5_K> || codec == id<Q5_1> || codec == id<Q4_1>) return {0, 2};
  if (codec == id<Q6_K>) return {208};
  if (codec == id<MXFP4>) return {};
  return {0};
}

// The largest value of a block whose scales are 1.
inline float largest_in_block(Codec codec) {
  const std::pair<Codec, float> largest[] = {{id<Q2_K>, 15 * 3},  {id<Q3_K>, 32 * 4},    {id<Q4_K>, 63 * 15},
                                             {id<Q5_K>, 63 * 31}, {id<Q6_K>, 128 * 32},  {id<IQ4_NL>, 127},
                                             {id<MXFP4>, 12},     {id<IQ4_XS>, 32 * 127}};
  for (const auto& [c, value] : largest) {
    if (c == codec) return value;
  }
  return 127;
}

// Any codes under scales of about `spread`; nothing leaves f16.
template <class Rng>
void fill_random_spqr(Rng& rng, const Tensor& t, float spread) {
  const auto uniform = [&](float lo, float hi) { return f32_to_f16(lo + (hi - lo) * float(rng() % 1024) / 1023.0f); };
  const auto fill = [&](const Plane& plane, int64_t bytes) {
    for (int64_t r = 0; r < t.rows; ++r) {
      for (int64_t i = 0; i < bytes; ++i) plane.row<uint8_t>(r)[i] = uint8_t(rng());
    }
  };
  const RowBytes bytes = info(t.codec).row_bytes(t.cols, t.groups());
  fill(t.data, bytes.data);
  fill(t.high, bytes.high);
  fill(t.scale, bytes.scale);
  for (int64_t r = 0; r < t.rows; r += Spqr3::kSpan) {
    for (int64_t g = 0; g < t.groups(); ++g) {
      const uint16_t second[4] = {uniform(-0.05f * spread, 0.05f * spread), uniform(-1.0f, 1.0f), uniform(-9.0f, 9.0f),
                                  uniform(-9.0f, 9.0f)};
      std::memcpy(t.scale.row<uint8_t>(r) + g * Spqr3::kTileBytes, second, 8);
    }
  }
}

// Values of about `spread`, a few times that at most.
template <class Rng>
void fill_random_blocks(Rng& rng, const Tensor& t, float spread = 1.0f) {
  if (t.codec == id<Spqr3>) return fill_random_spqr(rng, t, spread);
  const CodecInfo& codec = info(t.codec);
  if (t.codec == id<E8p> || t.codec == id<E8pRvq3> || t.codec == id<E8pRvq4>) {  // any codes, no scale
    const RowBytes all = codec.row_bytes(t.cols, 1);
    for (int64_t r = 0; r < t.rows; ++r) {
      for (int64_t i = 0; i < all.data; ++i) t.data.row<uint8_t>(r)[i] = uint8_t(rng());
      for (int64_t i = 0; i < all.high; ++i) t.high.row<uint8_t>(r)[i] = uint8_t(rng());
    }
    if (codec.table_bytes > 0) *t.table.row<float>(0) = 0.49f;
    return;
  }
  const float scale = 2.0f * spread / largest_in_block(t.codec);
  const int64_t bytes = codec.row_bytes(t.cols, t.groups()).data, block = codec.row_bytes(1, 1).data;
  std::normal_distribution<float> normal;
  for (int64_t r = 0; r < t.rows; ++r) {
    uint8_t* row = t.data.row<uint8_t>(r);
    for (int64_t i = 0; i < bytes; ++i) row[i] = uint8_t(rng());
    for (int64_t b = 0; b < bytes; b += block) {
      for (const int at : halves_of(t.codec)) {
        const uint16_t half = f32_to_f16(scale * normal(rng));
        row[b + at] = uint8_t(half & 255);
        row[b + at + 1] = uint8_t(half >> 8);
      }
      if (t.codec == id<MXFP4>) row[b] = uint8_t(128 + std::ilogb(scale) - int(rng() % 3));
    }
  }
}

}  // namespace quire
