// Loops over single rows that exist once an instruction set: what stands between the matmuls of a step. Bodies:
// rows.inl.
#pragma once
#include "kernels/context.h"

namespace quire::cpu {

constexpr int64_t kSparseLanes = 16;  // tokens that sparse_dots takes at once

struct RowSimd {
  float (*sum_of_squares)(const float* x, int64_t n);  // lane l takes x[l], x[l + 16], ...; then a tree
  void (*normalize)(const float* x, float inv, const float* weight, int64_t n, float* out);  // x * inv * weight
  void (*glu)(const float* gate, const float* up, int64_t n, float* out);                    // silu(gate) * up
  void (*rotate)(float* a, float* b, const float* cos, const float* sin, int64_t n);         // pairs (a, b), in place
  // One group of an int8 row: its largest magnitude as Range sees it; its codes, whose sum is returned.
  float (*magnitude)(const float* x, int64_t n);
  int32_t (*int8_codes)(const float* x, float inv, int64_t n, int8_t* out);
  // fma over n entries of sparse.h from 0: of one token x (K), or of kSparseLanes tokens that lie [k][token].
  float (*sparse_dot)(const uint32_t* entries, int64_t n, const float* x);
  void (*sparse_dots)(const uint32_t* entries, int64_t n, const float* x, float* out);
};
const RowSimd& row_simd(Isa isa);

// One row into a tensor whose rows have scales of their own: the codec's encode, the same bytes.
void encode_row(const RowSimd& simd, const Tensor& t, int64_t r, const float* x);

}  // namespace quire::cpu
