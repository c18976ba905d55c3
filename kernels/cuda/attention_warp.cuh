// One warp of decode attention: up to 8 query heads of a kv head against tokens of pages, straight from global memory
// to fragments. Scores are (tokens, heads), outputs (dims, heads), so the heads share every load and every unpacked
// code.
#pragma once
#include "kernels/cuda/attention_tile.cuh"

namespace quire::cuda {

template <class Pair, int C>
struct DecodeWarp {
  using K = typename Pair::Key;
  using V = typename Pair::Value;
  using KF = typename K::F;
  using VF = typename V::F;
  using KL = KeyLane<KF, C>;
  using VL = ValueLane<VF, C, V::kOrder>;
  static constexpr int kRegs = C / 8, kDimTiles = C / 16, kVGroups = V::kGroup > 1 ? C / V::kGroup : 1;
  // Tokens at a time: as many as keep what is in flight within 64 or so registers.
  static constexpr int kFit = 272 * 256 / (C * (K::kBits + V::kBits));
  static constexpr int kTokens = kFit >= 64 ? 64 : kFit >= 32 ? 32 : 16, kTiles = kTokens / 16;
  static_assert(!K::kPerChannel || K::kSpan >= kTokens || K::kSpan % 16 == 0, "spans of whole tiles");

  const KvLayout& layout;
  float k_scale, v_scale;  // of formats without scales in the page
  int g, t;                // lane = 4 g + t: tokens g and g + 8, heads 2t and 2t + 1

  uint32_t q[kRegs];          // of head g: divided by 2^shift unless keys are scaled per channel
  float factor[2], q_sum[2];  // of heads 2t, 2t + 1: score = factor * product
  float peak[2], total[2], offset[2][kVGroups];
  int exponent;  // values' scales are below 2^exponent so far
  float acc[kDimTiles][4];

  struct Codes {
    uint32_t k[kTiles][2][KL::kWords], k_high[kTiles][2][2];
    uint32_t v[kTiles][4][VL::kWords], v_high[kTiles][4];
    uint32_t k_meta[kTiles][2], v_meta[kTiles][2][kVGroups];
  };

  __device__ DecodeWarp(const KvView& kv, const KvLayout& l, int lane)
      : layout(l),
        k_scale(KF::kData == 8 && !K::kMeta ? kv.k_scale : 1.0f),
        v_scale(VF::kData == 8 && !V::kMeta ? kv.v_scale : 1.0f),
        g(lane / 4),
        t(lane % 4) {}

  // heads (n, C) f32; rows beyond n are zero queries. scale: log2(e) / sqrt(C).
  __device__ void start(const float* heads, int n, float scale) {
    const float* row = heads + g * C;
    float amax = 0.0f;
    if (g < n) {
#pragma unroll
      for (int r = 0; r < kRegs; ++r) {
        amax = fmaxf(amax, fmaxf(fabsf(row[KL::dim(r, 0, t)]), fabsf(row[KL::dim(r, 1, t)])));
      }
    }
    amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 1));
    amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 2)) * scale;
    // The largest of a head's q becomes about 2^top. Scales per channel multiply it in f16: they stay below 2^15.5.
    constexpr int kTop = K::kPerChannel ? 0 : 11;
    const int e = max(-100, min(100, int(__float_as_uint(amax) >> 23) - 126));  // amax < 2^e
    const float up = power_of_two(kTop - e) * scale;
    float sum = 0.0f;
#pragma unroll
    for (int r = 0; r < kRegs; ++r) {
      const float a = g < n ? row[KL::dim(r, 0, t)] * up : 0.0f, b = g < n ? row[KL::dim(r, 1, t)] * up : 0.0f;
      const __half2 h = __floats2half2_rn(a, b);
      sum += __low2float(h) + __high2float(h);
      q[r] = as_word(K::kPerChannel ? h : __hmul2(h, __float2half2_rn(power_of_two(-KF::shift(r % KF::kPer)))));
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // head 2t + i is lane group 2t + i's
      const int from = 4 * (2 * t + i);
      factor[i] = power_of_two(__shfl_sync(~0u, e, from) - kTop);
      q_sum[i] = __shfl_sync(~0u, sum, from) * factor[i];
      peak[i] = kNothing;
      total[i] = 0.0f;
#pragma unroll
      for (int j = 0; j < kVGroups; ++j) offset[i][j] = 0.0f;
    }
    exponent = V::kMeta ? -14 : 0;
#pragma unroll
    for (int j = 0; j < kDimTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[j][i] = 0.0f;
    }
  }

  // Rows [row0, row0 + kTokens) of a page, of which the first `valid` exist; nothing of the others is read.
  __device__ void load_codes(const std::byte* block, int row0, int valid, Codes& c) const {
    const std::byte* keys = block + layout.k.codes + int64_t(row0) * KL::kRow;
    const std::byte* values = block + layout.v.codes + int64_t(row0) * VL::kRow;
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = m * 16 + g + 8 * i;
        load_row<KL>(keys + row * KL::kRow, t, row < valid, c.k[m][i]);
        if constexpr (KF::kHigh > 0) {
          load<KL::kHighBytes>(block + layout.k.high + (row0 + row) * KL::kHighRow + t * KL::kHighBytes, row < valid,
                               c.k_high[m][i]);
        }
        if constexpr (K::kPerToken) load<4>(block + layout.k.meta + (row0 + row) * 4, row < valid, &c.k_meta[m][i]);
        if constexpr (V::kMeta) {
          constexpr int kPiece = kVGroups < 4 ? kVGroups : 4;
#pragma unroll
          for (int j = 0; j < kVGroups; j += kPiece) {
            load<4 * kPiece>(block + layout.v.meta + ((row0 + row) * kVGroups + j) * 4, row < valid,
                             &c.v_meta[m][i][j]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = m * 16 + 2 * t + i % 2 + i / 2 * 8;
        load_row<VL>(values + row * VL::kRow, g, row < valid, c.v[m][i]);
        if constexpr (VF::kHigh > 0) {
          load<VL::kHighBytes>(block + layout.v.high + (row0 + row) * VL::kHighRow + g * VL::kHighBytes, row < valid,
                               &c.v_high[m][i]);
        }
      }
    }
  }

  // q times the scales of the channels, and what their offsets add to every score of the span.
  __device__ void fold(const std::byte* meta, uint32_t (&folded)[kRegs], float (&bias)[2]) const {
    float sum[4] = {};
    uint32_t lows[2];
#pragma unroll
    for (int r = 0; r < kRegs; ++r) {
      const uint32_t a = __ldg(reinterpret_cast<const uint32_t*>(meta) + KL::dim(r, 0, t));
      const uint32_t b = __ldg(reinterpret_cast<const uint32_t*>(meta) + KL::dim(r, 1, t));
      const __half2 scales = as_half2(byte_permute(a, b, 0x5410));
      lows[r % 2] = byte_permute(a, b, 0x7632);
      const __half2 unit = __float2half2_rn(power_of_two(-KF::shift(r % KF::kPer)));
      folded[r] = as_word(__hmul2(__hmul2(as_half2(q[r]), scales), unit));
      if (r % 2 == 1) mma(sum, lows[0], lows[0], lows[1], lows[1], q[r - 1], q[r]);
    }
    bias[0] = sum[0] * factor[0];
    bias[1] = sum[1] * factor[1];
  }

  // scores[m]: tokens g (0, 1) and g + 8 (2, 3), heads 2t and 2t + 1.
  __device__ void score(const Codes& c, const std::byte* block, int row0, int valid, float (&scores)[kTiles][4]) const {
    uint32_t folded[kRegs];
    float bias[2] = {};
    constexpr float kUnit = float(uint64_t(1) << KF::kExponent);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      if constexpr (K::kPerChannel) {
        if (m == 0 || m * 16 % K::kSpan == 0) {
          fold(block + layout.k.meta + (row0 + m * 16) / K::kSpan * layout.k.meta_pitch, folded, bias);
        }
      }
      uint32_t a[2][kRegs];
#pragma unroll
      for (int i = 0; i < 2; ++i) KL::unpack(c.k[m][i], c.k_high[m][i], a[i]);
      float s[4] = {};
#pragma unroll
      for (int r = 0; r < kRegs; r += 2) {
        const uint32_t* b = K::kPerChannel ? folded : q;
        mma(s, a[0][r], a[1][r], a[0][r + 1], a[1][r + 1], b[r], b[r + 1]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float x = s[i] * kUnit * factor[i % 2];
        if constexpr (K::kPerToken) {
          const __half2 meta = as_half2(c.k_meta[m][i / 2]);
          x = fmaf(__low2float(meta), x, __high2float(meta) * q_sum[i % 2]);
        } else if constexpr (K::kPerChannel) {
          x += bias[i % 2];
        } else {
          x *= k_scale;
        }
        scores[m][i] = m * 16 + g + i / 2 * 8 < valid ? x : kNothing;
      }
    }
  }

  // Scores become weights exp2(s - peak); what was summed so far is scaled to the new peak.
  __device__ void soften(const Codes& c, float (&scores)[kTiles][4]) {
    float rescale[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = kNothing;
#pragma unroll
      for (int m = 0; m < kTiles; ++m) top = fmaxf(top, fmaxf(scores[m][i], scores[m][i + 2]));
#pragma unroll
      for (int lane = 4; lane < 32; lane *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, lane));
      top = fmaxf(top, peak[i]);
      rescale[i] = exp2_fast(peak[i] - top);  // nothing yet: exp2(-inf) = 0
      peak[i] = top;
      total[i] *= rescale[i];
#pragma unroll
      for (int j = 0; j < kVGroups; ++j) offset[i][j] *= rescale[i];
    }
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[m][i] = exp2_fast(scores[m][i] - peak[i % 2]);
        total[i % 2] += scores[m][i];
      }
    }
    if constexpr (V::kMeta) {
      uint32_t widest = 0;  // scales are not negative: their bits order them
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int j = 0; j < kVGroups; ++j) widest = max(widest, c.v_meta[m][i][j] & 0x7fffu);
        }
      }
      const int e = max(exponent, int(__reduce_max_sync(~0u, widest) >> 10) - 14);  // scales < 2^e
      const float down = power_of_two(exponent - e);
      rescale[0] *= down;
      rescale[1] *= down;
      exponent = e;
    }
#pragma unroll
    for (int j = 0; j < kDimTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[j][i] *= rescale[i % 2];
    }
  }

  __device__ void add_values(const Codes& c, const float (&p)[kTiles][4]) {
    const float up = power_of_two(kWeightShift - exponent);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      uint32_t low[kRegs], high[kRegs];  // tokens 2t, 2t + 1 and 8 above
      VL::unpack(c.v[m][0], c.v[m][1], c.v_high[m][0], c.v_high[m][1], low);
      VL::unpack(c.v[m][2], c.v[m][3], c.v_high[m][2], c.v_high[m][3], high);
      uint32_t b[kVGroups][2];
#pragma unroll
      for (int j = 0; j < kVGroups; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float scale = up;
          if constexpr (V::kMeta) {
            const __half2 meta = as_half2(c.v_meta[m][i][j]);
            scale *= __low2float(meta);
            offset[0][j] = fmaf(p[m][2 * i], __high2float(meta), offset[0][j]);
            offset[1][j] = fmaf(p[m][2 * i + 1], __high2float(meta), offset[1][j]);
          }
          b[j][i] = transpose8(pack_half2(p[m][2 * i] * scale, p[m][2 * i + 1] * scale));
        }
      }
#pragma unroll
      for (int j = 0; j < kDimTiles; ++j) {
        const int group = j * kVGroups / kDimTiles;
        mma(acc[j], low[2 * j], low[2 * j + 1], high[2 * j], high[2 * j + 1], b[group][0], b[group][1]);
      }
    }
  }

  __device__ void take(const std::byte* block, int row0, int valid) {
    Codes c;
    load_codes(block, row0, valid, c);
    float scores[kTiles][4];
    score(c, block, row0, valid, scores);
    soften(c, scores);
    add_values(c, scores);
  }

  // Unnormalized: out (8 heads, C), peaks and totals (8). `again`: joins what an earlier call stored there.
  __device__ void store(float* out, float* peaks, float* totals, bool again) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int lane = 4; lane < 32; lane *= 2) {
        total[i] += __shfl_xor_sync(~0u, total[i], lane);
#pragma unroll
        for (int j = 0; j < kVGroups; ++j) offset[i][j] += __shfl_xor_sync(~0u, offset[i][j], lane);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int head = 2 * t + i;
      const float before = again ? peaks[head] : kNothing, top = fmaxf(before, peak[i]);
      const float mine = peak[i] == kNothing ? 0.0f : exp2_fast(peak[i] - top);
      const float theirs = before == kNothing ? 0.0f : exp2_fast(before - top);
      const float old_total = again ? totals[head] : 0.0f;
      __syncwarp();  // every lane of this head has read before one writes
      const float up = power_of_two(exponent - kWeightShift) * float(uint64_t(1) << VF::kExponent) * v_scale * mine;
#pragma unroll
      for (int r = 0; r < kRegs; ++r) {
        float* to = out + head * C + VL::dim(r, g);
        const float unit = power_of_two(-VF::shift(r % VF::kPer));
        const float x = fmaf(acc[r / 2][i + r % 2 * 2], up * unit, offset[i][r / 2 * kVGroups / kDimTiles] * mine);
        *to = again ? fmaf(*to, theirs, x) : x;
      }
      if (g == 0) {
        peaks[head] = top;
        totals[head] = fmaf(old_total, theirs, total[i] * mine);
      }
    }
    __syncwarp();
  }
};

}  // namespace quire::cuda
