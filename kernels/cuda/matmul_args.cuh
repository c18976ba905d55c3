// What every kernel behind matmul_mma.h is given, the units it walks over, and how results are stored.
#pragma once
#include "kernels/cuda/matmul_mma.h"
#include "kernels/cuda/mma_fields.cuh"

namespace quire::cuda {

struct MmaArgs {
  const std::byte *w, *x;
  const float* row_scale;  // of the first panel
  const float *sx, *bias, *residual;
  const int32_t* sums;
  float* y;
  int32_t* counters;
  int32_t* partials;
  int64_t panel_bytes, x_pitch, ldy, sx_pitch, sums_pitch;
  int m, n, k, x_bytes;
  // Groups are powers of two: *_shift is their logarithm. width: columns of a tile that are summed before a fold.
  int panels, k_tiles, tile_bytes, entry_shift, entry_bytes, second_at, segment, segment_shift, width_shift, x_group,
      x_shift;
  int x_rows;  // of a stage: the tile's tokens, at most M
  int token_tiles, tiles, k_steps;
  bool split, offset;  // offset: beside row_scale, kFragRows floats further on
};

// Which units (steps of k of output tiles; a tile's tokens run fastest) a thread block walks over. Divisions only where
// the tile changes: they take longer than a unit's other arithmetic.
struct MmaWalk {
  int tile, step, stride, count, row_tile, token_tile;
  __device__ explicit MmaWalk(const MmaArgs& a) {
    const int block = int(blockIdx.x), blocks = int(gridDim.x);
    if (a.split) {
      const int64_t all = int64_t(a.tiles) * a.k_steps;
      const int64_t begin = all * block / blocks, end = all * (block + 1) / blocks;
      tile = int(begin / a.k_steps);
      step = int(begin % a.k_steps);
      stride = 1;
      count = int(end - begin);
    } else {
      tile = block;
      step = 0;
      stride = blocks;
      count = (a.tiles - block + blocks - 1) / blocks * a.k_steps;
    }
    place(a);
  }
  __device__ void place(const MmaArgs& a) {
    row_tile = tile / a.token_tiles;
    token_tile = tile - row_tile * a.token_tiles;
  }
  __device__ void next(const MmaArgs& a) {
    if (++step == a.k_steps) {
      step = 0;
      tile += stride;
      place(a);
    }
  }
};

// Of x's codes, over the segment that holds this column.
__device__ __forceinline__ float mma_sum(const MmaArgs& a, int m, int column) {
  return __int2float_rn(__ldg(a.sums + m * a.sums_pitch + (column >> a.segment_shift)));
}
__device__ __forceinline__ void split_halfs(uint32_t u, float& lower, float& upper) {
  lower = __low2float(as_half2(u));
  upper = __high2float(as_half2(u));
}
__device__ __forceinline__ void mma_store(const MmaArgs& a, int n, int m, float value) {
  const int64_t at = m * a.ldy + n;
  if (a.bias) value = __fadd_rn(value, __ldg(a.bias + n));
  if (a.residual) value = __fadd_rn(value, a.residual[at]);
  a.y[at] = value;
}
// From the sum of a whole row of codes, as matmul.h writes it.
__device__ __forceinline__ void mma_store_row(const MmaArgs& a, int n, int m, int acc) {
  if (n >= a.n || m >= a.m) return;
  const float sx = __ldg(a.sx + m * a.sx_pitch);
  const float* row = a.row_scale + n / kFragRows * (a.panel_bytes / 4) + n % kFragRows;
  float value = __fmul_rn(__fmul_rn(__int2float_rn(acc), sx), __ldg(row));
  if (a.offset) {
    const float sum = __int2float_rn(__ldg(a.sums + m * a.sums_pitch));
    value = __fmaf_rn(__fmul_rn(__ldg(row + kFragRows), sx), sum, value);
  }
  mma_store(a, n, m, value);
}
__device__ __forceinline__ void mma_store_segments(const MmaArgs& a, int n, int m, float total) {
  if (n >= a.n || m >= a.m) return;
  mma_store(a, n, m, a.sx && a.x_group == 0 ? __fmul_rn(__ldg(a.sx + m * a.sx_pitch), total) : total);
}

}  // namespace quire::cuda
