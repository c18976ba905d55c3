// Root-mean-square norm, written in the next op's format ("fusion is: the output is quantized").
#pragma once
#include "kernels/context.h"

namespace quire {

// y (T, D) in any format; y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight. x (T, D) f32, weight (1, D) f32.
// The sum of squares runs in 16 lanes (d mod 16) and a tree over them, so it depends on the row alone.
void rmsnorm(const Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& y);

// The same value for one row, for tests and other ops: sum over d of x[d]^2 in the order above.
float sum_of_squares(const float* x, int64_t n);

}  // namespace quire
