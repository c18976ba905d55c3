// The inner loops of attention that exist once an instruction set: the same bodies (attention_block.inl) over each
// one's lanes.
#pragma once
#include "kernels/cpu/matmul_simd.h"
#include "quant/kv_layout.h"

namespace quire::cpu {

struct AttentionSimd {
  void (*float_block)(const FloatBlock& block);
  // The codes of the first n tokens of a page part as floats, in panels of 16 lanes:
  void (*key_panels)(const Tensor& k, int64_t n,
                     float* out);  // [64 / 16][C][16 tokens]; tokens past n may hold anything finite
  void (*value_panels)(const Tensor& v, int64_t n, float* out);  // [C / 16][64][16 channels]
  // folded[c] = q[c] * scale[c]; returns the lane sum of q[c] * offset[c].
  float (*fold)(const float* q, const float* scale, const float* offset, int64_t channels, float* folded);
  // s[i] = (add ? s[i] : 0) + offset[i] * qsum + scale[i] * dot[i]
  void (*token_scores)(const float* dot, const float* scale, const float* offset, float qsum, int64_t n, bool add,
                       float* s);
  // s[i] = exp(s[i] - max) for i < seen, 0 from there to padded (a multiple of 16); returns the lane sum.
  float (*softmax)(float* s, int64_t seen, int64_t padded);
  // weights[i] = p[i] * scale[i]; lanes[i mod 16] += p[i] * offset[i].
  void (*weigh)(const float* p, const float* scale, const float* offset, int64_t n, float* weights, float* lanes);
};
extern const AttentionSimd kAttentionBaseline, kAttentionAvx2, kAttentionAvx512;

// ((l0 + l8) + (l4 + l12)) + ... : the tree over 16 lanes.
inline float lane_sum(float* lane) {
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

}  // namespace quire::cpu
