// Small ops on f32 rows that only some families of networks need, so they are fused with nothing.
#pragma once
#include "kernels/matmul.h"

namespace quire {

// Root-mean-square norm of every head, in place: x (T, heads * C) f32, weight (1, C) f32. The same value as rmsnorm of
// the head as a row.
void norm_heads(const Context& ctx, const Tensor& x, int64_t heads, const Tensor& weight, float eps);

// h += rmsnorm(x): x, h (T, D) f32, weight (1, D) f32.
void add_normed(const Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& h);

// x *= factor: x (T, N) f32.
void scale_rows(const Context& ctx, const Tensor& x, float factor);

// y = x times `factors` column by column, then the epilogue of a matmul: x, y (T, N) f32, which may be one; factors (N)
// on the device of the context.
void scale_columns(const Context& ctx, const Tensor& x, const float* factors, const Tensor& y,
                   const Epilogue& epilogue = {});

}  // namespace quire
