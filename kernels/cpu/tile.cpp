#include "kernels/cpu/tile.h"

#include <immintrin.h>

#include <cmath>

namespace quire {

namespace {

void scalar_tile(const TileProduct& p, int64_t row0, int64_t rows, int64_t n0, int64_t n) {
  for (int64_t r = row0; r < row0 + rows; ++r) {
    for (int64_t j = n0; j < n0 + n; ++j) {
      float acc = p.accumulate ? p.out[r * p.ldo + j] : 0.0f;
      for (int64_t i = 0; i < p.k; ++i) acc = std::fma(p.a[r * p.lda + i], p.b[i * p.ldb + j], acc);
      p.out[r * p.ldo + j] = acc;
    }
  }
}

// R rows by V vectors of 16 (8 on AVX2) stay in registers over the whole of k.
template <int R, int V>
__attribute__((target("avx512f"))) void tile_avx512(const TileProduct& p, int64_t row0, int64_t n0) {
  __m512 acc[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      acc[r][v] = p.accumulate ? _mm512_loadu_ps(p.out + (row0 + r) * p.ldo + n0 + v * 16) : _mm512_setzero_ps();
    }
  }
  const float* a = p.a + row0 * p.lda;
  const float* b = p.b + n0;
  for (int64_t i = 0; i < p.k; ++i, b += p.ldb) {
    __m512 bv[V];
    for (int v = 0; v < V; ++v) bv[v] = _mm512_loadu_ps(b + v * 16);
    for (int r = 0; r < R; ++r) {
      const __m512 av = _mm512_set1_ps(a[r * p.lda + i]);
      for (int v = 0; v < V; ++v) acc[r][v] = _mm512_fmadd_ps(av, bv[v], acc[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(p.out + (row0 + r) * p.ldo + n0 + v * 16, acc[r][v]);
  }
}

template <int R, int V>
__attribute__((target("avx2,fma"))) void tile_avx2(const TileProduct& p, int64_t row0, int64_t n0) {
  __m256 acc[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      acc[r][v] = p.accumulate ? _mm256_loadu_ps(p.out + (row0 + r) * p.ldo + n0 + v * 8) : _mm256_setzero_ps();
    }
  }
  const float* a = p.a + row0 * p.lda;
  const float* b = p.b + n0;
  for (int64_t i = 0; i < p.k; ++i, b += p.ldb) {
    __m256 bv[V];
    for (int v = 0; v < V; ++v) bv[v] = _mm256_loadu_ps(b + v * 8);
    for (int r = 0; r < R; ++r) {
      const __m256 av = _mm256_set1_ps(a[r * p.lda + i]);
      for (int v = 0; v < V; ++v) acc[r][v] = _mm256_fmadd_ps(av, bv[v], acc[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) _mm256_storeu_ps(p.out + (row0 + r) * p.ldo + n0 + v * 8, acc[r][v]);
  }
}

using Block = void (*)(const TileProduct&, int64_t row0, int64_t n0);
struct Blocks {
  int64_t rows, columns;  // of a wide block
  Block wide, wide_row;   // rows x columns, 1 x columns
  int64_t lanes;
  Block narrow, narrow_row;  // rows x lanes, 1 x lanes
};

void run_blocks(const TileProduct& p, const Blocks& blocks) {
  int64_t n0 = 0;
  const auto columns = [&](Block full, Block single, int64_t width) {
    int64_t r = 0;
    for (; r + blocks.rows <= p.rows; r += blocks.rows) full(p, r, n0);
    for (; r < p.rows; ++r) single(p, r, n0);
    n0 += width;
  };
  while (n0 + blocks.columns <= p.n) columns(blocks.wide, blocks.wide_row, blocks.columns);
  while (n0 + blocks.lanes <= p.n) columns(blocks.narrow, blocks.narrow_row, blocks.lanes);
  if (n0 < p.n) scalar_tile(p, 0, p.rows, n0, p.n - n0);
}

}  // namespace

void tile_product(Isa isa, const TileProduct& p) {
  if (isa == Isa::avx512) {
    static constexpr Blocks kBlocks{
        6, 64, tile_avx512<6, 4>, tile_avx512<1, 4>, 16, tile_avx512<6, 1>, tile_avx512<1, 1>};
    run_blocks(p, kBlocks);
  } else if (isa == Isa::avx2) {
    static constexpr Blocks kBlocks{3, 32, tile_avx2<3, 4>, tile_avx2<1, 4>, 8, tile_avx2<3, 1>, tile_avx2<1, 1>};
    run_blocks(p, kBlocks);
  } else {
    scalar_tile(p, 0, p.rows, 0, p.n);
  }
}

}  // namespace quire
