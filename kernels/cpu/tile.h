// The inner product of attention: a small matrix product whose every output is one fma chain over k in order.
#pragma once
#include "kernels/context.h"

namespace quire {

// out (rows, n), leading dimension ldo: out = (accumulate ? out : 0) + a (rows, k) b (k, n), k in order.
struct TileProduct {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* out;
  int64_t ldo;
  int64_t rows, k, n;
  bool accumulate;
};
void tile_product(Isa isa, const TileProduct& p);

}  // namespace quire
