// What LLM.int8() (arXiv 2208.07339) does with activations: elements of at least a threshold stay halfs and meet the
// decoded columns of the weight; the rest is int8 by token, with the scale of the rest. Decided element by element, so
// a token's result depends on no other (the paper's rule, by columns of a batch, is the same for one token).
#pragma once
#include "kernels/matmul.h"

namespace quire {

// In scratch, on the device of the context. Those of token t: entries[t * cols] and on, counts[t] of them, in order of
// columns. An entry has its column in the lower 16 bits and an f16 value in the upper ones.
struct TokenOutliers {
  int64_t tokens = 0, cols = 0;  // cols <= 65536
  const int32_t* counts = nullptr;
  const uint32_t* entries = nullptr;
};

// x (T, K) f32 into codes (T, K) int8, one scale a row, where |x| < threshold, else 0; NaN counts as small. The others
// as they come, in f16 (saturated).
TokenOutliers take_outliers(const Context& ctx, const Tensor& x, float threshold, const Tensor& codes);

// y (T, N) += x (T, K) w (N, K)^T: y = y + s, where s = s + x w over the token's entries in their order, each rounded,
// on decoded weights (f32), from 0. A token without entries leaves y as it is.
void add_outliers(const Context& ctx, const TokenOutliers& x, const PackedWeight& w, const Tensor& y);

}  // namespace quire
