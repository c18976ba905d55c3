// The kernel for many tokens. A thread block walks over units: one tile of k of one output tile (rows x tokens), whose
// weights and activations its kWarpsR x kWarpsT warps share through a ring of kStages stages, which runs on across
// output tiles. When `split`, blocks take equal runs of units that may begin and end inside an output tile: the last
// block to arrive adds the others' integer sums.
#pragma once
#include "kernels/cuda/matmul_args.cuh"

namespace quire::cuda {

// A tile shape. kRowBlocks 16-row blocks and kTokenBlocks 8-token blocks a warp.
template <int RowBlocks, int TokenBlocks, int WarpsR, int WarpsT, int Stages>
struct MmaTile {
  static constexpr int kRowBlocks = RowBlocks, kTokenBlocks = TokenBlocks, kWarpsR = WarpsR, kWarpsT = WarpsT,
                       kStages = Stages;
  static constexpr int kRows = 16 * RowBlocks * WarpsR, kTokens = 8 * TokenBlocks * WarpsT;
  static constexpr int kPanels = kRows / int(kFragRows), kThreads = 32 * WarpsR * WarpsT;
  static constexpr int kValues = kRows * kTokens / kThreads;  // of a thread in the end
  static_assert(kRows % kFragRows == 0);
};

// Of one kind of number for every segment of a tile and token.
template <class T>
__host__ __device__ inline int mma_fold_bytes(bool there, int width_shift) {
  return there ? (int(kFragCols) >> width_shift) * T::kTokens * 4 : 0;
}

template <class F, class T, bool kSegments>
struct MmaBlock {
  using Acc = typename F::Acc;
  static constexpr int kPairs = int(kFragCols) / F::kStepCols / 2;
  static constexpr int kBlockBytes = 16 * int(kFragCols) * F::kBits / 8;

  const MmaArgs& a;
  int lane, warp_row, warp_token, thread;
  uint32_t ring;
  // In a stage: tiles of weights, x, then what folds need of x by segment and token: scales of groups, sums of codes.
  int stage_bytes, x_at, scales_at, sums_at;

  __device__ MmaBlock(const MmaArgs& args, uint32_t shared) : a(args) {
    const int warp = int(threadIdx.x) / 32;
    lane = int(threadIdx.x) % 32;
    warp_row = warp % T::kWarpsR;
    warp_token = warp / T::kWarpsR;
    thread = int(threadIdx.x);
    x_at = T::kPanels * a.tile_bytes;
    scales_at = x_at + T::kTokens * F::kRowBytes;
    sums_at = scales_at + mma_fold_bytes<T>(kSegments && a.x_group > 0, a.width_shift);
    stage_bytes = sums_at + mma_fold_bytes<T>(kSegments && F::kOffset, a.width_shift);
    ring = shared;
  }

  __device__ uint32_t stage(int i) const { return ring + uint32_t(i % T::kStages * stage_bytes); }

  // The copies of one unit. Rows past N are those of the last panel, tokens past M and columns past K are zero.
  __device__ void load(const MmaWalk& at, uint32_t to) const {
    const int k_tile = at.step, token0 = at.token_tile * T::kTokens;
#pragma unroll
    for (int p = 0; p < T::kPanels; ++p) {
      const int panel = min(at.row_tile * T::kPanels + p, a.panels - 1);
      const std::byte* from = a.w + panel * a.panel_bytes + k_tile * a.tile_bytes;
      for (int i = thread * 16; i < a.tile_bytes; i += T::kThreads * 16) copy16(to + p * a.tile_bytes + i, from + i);
    }
    constexpr int kChunks = F::kRowBytes / 16;
#pragma unroll
    for (int i = thread; i < T::kTokens * kChunks; i += T::kThreads) {
      const int row = i / kChunks, chunk = i % kChunks, byte = k_tile * F::kRowBytes + chunk * 16;
      const bool inside = token0 + row < a.m && byte < a.x_bytes;
      const std::byte* from = inside ? a.x + (token0 + row) * a.x_pitch + byte : a.x;
      copy16_zero(to + x_at + row * F::kRowBytes + ((chunk ^ row & 7) << 4), from,
                  inside ? min(16, a.x_bytes - byte) : 0);
    }
    if constexpr (kSegments) {
      if (a.x_group > 0 || F::kOffset) load_folds(k_tile, token0, to);
    }
  }
  __device__ void load_folds(int k_tile, int token0, uint32_t to) const {
    const int segments = int(kFragCols) >> a.width_shift;
    for (int i = thread; i < T::kTokens * segments; i += T::kThreads) {
      const int token = token0 + i % T::kTokens, column = k_tile * int(kFragCols) + (i / T::kTokens << a.width_shift);
      const bool there = token < a.m && column < a.k;
      if (a.x_group > 0) {
        const float* from = there ? a.sx + token * a.sx_pitch + (column >> a.x_shift) : a.sx;
        copy4_zero(to + uint32_t(scales_at + i * 4), from, there);
      }
      if constexpr (F::kOffset) {
        const int32_t* from = there ? a.sums + token * a.sums_pitch + (column >> a.segment_shift) : a.sums;
        copy4_zero(to + uint32_t(sums_at + i * 4), from, there);
      }
    }
  }

  // One tile of k. `total` is only used when segments are folded.
  __device__ void multiply(uint32_t from, int k_tile, Acc (&acc)[T::kRowBlocks][T::kTokenBlocks][4],
                           float (&total)[T::kRowBlocks][T::kTokenBlocks][4]) const {
    const uint32_t x = from + x_at + uint32_t((warp_token * T::kTokenBlocks * 8 + lane % 8) * F::kRowBytes);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      uint32_t b[T::kTokenBlocks][4];
#pragma unroll
      for (int i = 0; i < T::kTokenBlocks; ++i) {
        load_matrices(b[i], x + i * 8 * F::kRowBytes + (((pair * 4 + lane / 8) ^ lane & 7) << 4));
      }
#pragma unroll
      for (int r = 0; r < T::kRowBlocks; ++r) {
        const int block = warp_row * T::kRowBlocks + r;
        const uint32_t tile = from + block / 4 * a.tile_bytes;
        const uint32_t meta = tile + 4 * kBlockBytes, row = block % 4 * 16 + lane / 4;
        typename F::Raw raw;
        typename F::Second second;
        F::load(raw, tile + block % 4 * kBlockBytes + lane * 16, pair);
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          const int begin = (2 * pair + s) * F::kStepCols, end = begin + F::kStepCols;
          if (s == 0 || 1 << a.entry_shift == F::kStepCols) {
            second.load(meta + (begin >> a.entry_shift) * a.entry_bytes + a.second_at, int(row));
          }
          uint32_t frag[4];
          F::frag(raw, s, second, frag);
#pragma unroll
          for (int i = 0; i < T::kTokenBlocks; ++i) F::mma(acc[r][i], frag, b[i][2 * s], b[i][2 * s + 1]);
          if constexpr (kSegments) {
            if (ends_segment(k_tile, end)) {
              const int first = end - (1 << a.width_shift);  // there only the first entry need have columns
              fold(meta + (first >> a.entry_shift) * a.entry_bytes + row * 4, from, first >> a.width_shift, acc[r],
                   total[r]);
            }
          }
        }
      }
    }
  }

  // Whether a segment that has columns ends at column `end` of this tile.
  __device__ bool ends_segment(int k_tile, int end) const {
    const int width = 1 << a.width_shift;
    if (end & (width - 1)) return false;
    if (a.segment > int(kFragCols)) return (k_tile & 1) || k_tile == a.k_tiles - 1;
    return k_tile * int(kFragCols) + end - width < a.k;
  }

  // total = the next term of the written order (matmul.h) from the sums of one segment.
  // `scales`: of these rows' weights; `segment`: of this tile.
  __device__ void fold(uint32_t scales, uint32_t from, int segment, Acc (&acc)[T::kTokenBlocks][4],
                       float (&total)[T::kTokenBlocks][4]) const {
    float scale[2] = {1.0f, 1.0f}, offset[2] = {};
    if constexpr (F::kOffset) {
      split_halfs(load_shared_u32(scales), scale[0], offset[0]);
      split_halfs(load_shared_u32(scales + 32), scale[1], offset[1]);
    } else if (a.second_at > 0) {
      scale[0] = load_shared_f32(scales);
      scale[1] = load_shared_f32(scales + 32);
    }
    const uint32_t place = from + uint32_t(segment * T::kTokens + warp_token * T::kTokenBlocks * 8 + lane % 4 * 2) * 4;
#pragma unroll
    for (int i = 0; i < T::kTokenBlocks; ++i) {
      float sum[2] = {};
      if constexpr (F::kOffset) {
        uint32_t codes[2];
        load_shared(codes, place + uint32_t(sums_at + i * 32));
        sum[0] = __int2float_rn(int(codes[0]));
        sum[1] = __int2float_rn(int(codes[1]));
      }
      if (a.x_group == 0) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          total[i][j] = __fmaf_rn(scale[j / 2], F::segment_value(acc[i][j]), total[i][j]);
          if constexpr (F::kOffset) total[i][j] = __fmaf_rn(offset[j / 2], sum[j % 2], total[i][j]);
          acc[i][j] = F::segment_zero();
        }
      } else {
        float sx[2];
        load_shared(sx, place + uint32_t(scales_at + i * 32));
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float u = __fmul_rn(scale[j / 2], F::segment_value(acc[i][j]));
          if constexpr (F::kOffset) u = __fmaf_rn(offset[j / 2], sum[j % 2], u);
          total[i][j] = __fmaf_rn(sx[j % 2], u, total[i][j]);
          acc[i][j] = F::segment_zero();
        }
      }
    }
  }

  __device__ void clear(Acc (&acc)[T::kRowBlocks][T::kTokenBlocks][4],
                        float (&total)[T::kRowBlocks][T::kTokenBlocks][4]) const {
#pragma unroll
    for (int r = 0; r < T::kRowBlocks; ++r) {
#pragma unroll
      for (int i = 0; i < T::kTokenBlocks; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          acc[r][i][j] = kSegments ? F::segment_zero() : Acc(0);
          total[r][i][j] = 0.0f;
        }
      }
    }
  }

  // Row and token of accumulator [r][i][j] in the tile.
  __device__ int row_of(int r, int j) const { return (warp_row * T::kRowBlocks + r) * 16 + lane / 4 + j / 2 * 8; }
  __device__ int token_of(int i, int j) const { return (warp_token * T::kTokenBlocks + i) * 8 + lane % 4 * 2 + j % 2; }
};

// Adds what other blocks have of this output tile, if this block comes last; false if it does not.
template <class T>
__device__ bool mma_join(const MmaArgs& a, int tile, int (&values)[T::kValues]) {
  __shared__ int arrived;
  const int64_t all = int64_t(a.tiles) * a.k_steps, blocks = gridDim.x, first_unit = int64_t(tile) * a.k_steps;
  const auto block_of = [&](int64_t unit) {  // the one whose run holds it
    int64_t b = unit * blocks / all;
    while (b + 1 < blocks && all * (b + 1) / blocks <= unit) ++b;
    while (all * b / blocks > unit) --b;
    return b;
  };
  const auto slot = [&](int64_t b) {  // a block has at most two incomplete tiles: its first and its last
    const bool is_first = all * b / blocks / a.k_steps == tile;
    return a.partials + (2 * b + (is_first ? 0 : 1)) * (T::kRows * T::kTokens) + threadIdx.x;
  };
  const int64_t from = block_of(first_unit), to = block_of(first_unit + a.k_steps - 1);
  if (from == to) return true;
  int32_t* mine = slot(blockIdx.x);
#pragma unroll
  for (int i = 0; i < T::kValues; ++i) __stcg(mine + i * T::kThreads, values[i]);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) arrived = atomicAdd(a.counters + tile, 1);
  __syncthreads();
  const bool last = arrived == int(to - from);
  __syncthreads();  // `arrived` is written again by the next tile
  if (!last) return false;
  if (threadIdx.x == 0) a.counters[tile] = 0;
  __threadfence();
  for (int64_t b = from; b <= to; ++b) {
    if (b == blockIdx.x) continue;
    const int32_t* other = slot(b);
#pragma unroll
    for (int i = 0; i < T::kValues; ++i) values[i] += __ldcg(other + i * T::kThreads);
  }
  return true;
}

template <class F, class T, bool kSegments>
__device__ void mma_finish(const MmaBlock<F, T, kSegments>& b, const MmaArgs& a, const MmaWalk& at,
                           typename F::Acc (&acc)[T::kRowBlocks][T::kTokenBlocks][4],
                           float (&total)[T::kRowBlocks][T::kTokenBlocks][4]) {
  const int n0 = at.row_tile * T::kRows, m0 = at.token_tile * T::kTokens;
  if constexpr (kSegments) {
#pragma unroll
    for (int v = 0; v < T::kValues; ++v) {
      const int r = v / 4 / T::kTokenBlocks, i = v / 4 % T::kTokenBlocks, j = v % 4;
      mma_store_segments(a, n0 + b.row_of(r, j), m0 + b.token_of(i, j), total[r][i][j]);
    }
  } else {
    int values[T::kValues];
#pragma unroll
    for (int v = 0; v < T::kValues; ++v) {
      values[v] = F::row_value(acc[v / 4 / T::kTokenBlocks][v / 4 % T::kTokenBlocks][v % 4]);
    }
    if (a.split && !mma_join<T>(a, at.tile, values)) return;
#pragma unroll
    for (int v = 0; v < T::kValues; ++v) {
      const int r = v / 4 / T::kTokenBlocks, i = v / 4 % T::kTokenBlocks, j = v % 4;
      mma_store_row(a, n0 + b.row_of(r, j), m0 + b.token_of(i, j), values[v]);
    }
  }
}

template <class F, class T, bool kSegments>
__global__ void __launch_bounds__(T::kThreads) mma_matmul_kernel(const __grid_constant__ MmaArgs a) {
  extern __shared__ __align__(128) unsigned char shared[];
  const MmaBlock<F, T, kSegments> block(a, shared_address(shared));
  MmaWalk here(a), ahead = here;
#pragma unroll
  for (int s = 0; s < T::kStages - 1; ++s) {
    if (s < here.count) {
      block.load(ahead, block.stage(s));
      ahead.next(a);
    }
    copy_commit();
  }
  typename F::Acc acc[T::kRowBlocks][T::kTokenBlocks][4];
  float total[T::kRowBlocks][T::kTokenBlocks][4];
  block.clear(acc, total);
  for (int unit = 0; unit < here.count; ++unit) {
    copy_wait<T::kStages - 2>();
    __syncthreads();  // the unit has arrived, and nobody reads the one before it
    if (unit + T::kStages - 1 < here.count) {
      block.load(ahead, block.stage(unit + T::kStages - 1));
      ahead.next(a);
    }
    copy_commit();
    block.multiply(block.stage(unit), here.step, acc, total);
    if (here.step == a.k_steps - 1 || unit == here.count - 1) {
      mma_finish(block, a, here, acc, total);
      block.clear(acc, total);
    }
    here.next(a);
  }
}

}  // namespace quire::cuda
