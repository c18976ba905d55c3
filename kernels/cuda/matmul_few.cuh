// The kernel for few tokens: what counts is that many copies are in flight on every multiprocessor. A thread block has
// an output tile of 16, 32 or 64 rows; its warps stand beside each other along k, each with a whole tile of k and its
// own ring of stages. Sums of whole rows (exact integers) meet in shared memory at the end of the output tile. Sums of
// segments meet there after every step: the threads that own the outputs add them up in the written order of k, so the
// result does not depend on the tile.
#pragma once
#include "kernels/cuda/matmul_args.cuh"

namespace quire::cuda {

template <int RowBlocks, int TokenBlocks, int Warps, int Stages>
struct FewTile {
  static constexpr int kRowBlocks = RowBlocks, kTokenBlocks = TokenBlocks, kWarps = Warps, kStages = Stages;
  static constexpr int kRows = 16 * RowBlocks, kTokens = 8 * TokenBlocks, kThreads = 32 * Warps;
  static constexpr int kPitch = kRows + 4;        // of a token's sums: lanes that write at once use different banks
  static constexpr int kSums = kTokens * kPitch;  // of a warp
  static constexpr int kOwned = (kRows * kTokens + kThreads - 1) / kThreads;  // outputs of a thread
  static_assert(Warps % 2 == 0 && kFragRows % kRows == 0);

  // Shared memory: sums (twice when folded every step), then the warps' rings.
  static int sum_words(bool segments, int parts) { return segments ? 2 * Warps * parts * kSums : Warps * kSums; }
};

template <class F, class T>
QUIRE_HD int few_stage_bytes(const MmaArgs& a) {
  const int codes = T::kRows * int(kFragCols) * F::kBits / 8;
  const int meta = (int(kFragCols) >> a.entry_shift) * (a.entry_bytes * T::kRowBlocks / 4);
  return codes + meta + a.x_rows * F::kRowBytes;
}

template <class F, class T, bool kSegments>
struct FewBlock {
  using Acc = typename F::Acc;
  using Word = std::conditional_t<kSegments, float, int>;
  static constexpr int kPairs = int(kFragCols) / F::kStepCols / 2;
  static constexpr int kBlockBytes = 16 * int(kFragCols) * F::kBits / 8, kCodeBytes = T::kRowBlocks * kBlockBytes;

  const MmaArgs& a;
  Word* sums;
  int lane, warp, stage_bytes, entry_bytes, second_at, x_at, parts;
  uint32_t rings, x_row[T::kTokenBlocks], x_swizzle[T::kTokenBlocks];

  __device__ FewBlock(const MmaArgs& args, unsigned char* shared) : a(args), sums(reinterpret_cast<Word*>(shared)) {
    lane = int(threadIdx.x) % 32;
    warp = int(threadIdx.x) / 32;
    parts = kSegments ? int(kFragCols) >> a.width_shift : 1;
    entry_bytes = a.entry_bytes * T::kRowBlocks / 4;
    second_at = a.second_at * T::kRowBlocks / 4;
    stage_bytes = few_stage_bytes<F, T>(a);
    x_at = stage_bytes - a.x_rows * F::kRowBytes;
    rings = shared_address(shared) + (kSegments ? 2 : 1) * T::kWarps * parts * T::kSums * 4;
    // Tokens past the last give columns that nobody reads: any row serves.
#pragma unroll
    for (int i = 0; i < T::kTokenBlocks; ++i) {
      const int row = min(i * 8 + lane % 8, a.x_rows - 1);
      x_row[i] = uint32_t(x_at + row * F::kRowBytes);
      x_swizzle[i] = uint32_t(row & 7);
    }
  }

  __device__ uint32_t stage(int of_warp, int i) const {
    return rings + uint32_t((of_warp * T::kStages + i % T::kStages) * stage_bytes);
  }

  // The warp's copies of one unit: of weights, and of x, whose columns past K are zero; tokens past M are left as they
  // are.
  __device__ void load(const MmaWalk& at, uint32_t to) const {
    load_weights(at, to);
    load_x(at, to);
  }
  __device__ void load_weights(const MmaWalk& at, uint32_t to) const {
    const int k_tile = at.step * T::kWarps + warp;
    if (k_tile >= a.k_tiles) return;
    const int row0 = at.row_tile * T::kRows, block0 = row0 / 16 % 4;
    const std::byte* tile = a.w + row0 / int(kFragRows) * a.panel_bytes + k_tile * a.tile_bytes;
    const std::byte* codes = tile + block0 * kBlockBytes + lane * 16;
#pragma unroll
    for (int i = 0; i < kCodeBytes / 512; ++i) copy16(to + uint32_t(lane * 16 + i * 512), codes + i * 512);
    if (a.entry_bytes > 0 && lane * 16 < entry_bytes) {
      const int byte = lane * 16,
                from = byte < second_at ? block0 * 64 + byte : a.second_at + block0 * 32 + byte - second_at;
      const std::byte* meta = tile + 4 * kBlockBytes + from;
      const int entries = int(kFragCols) >> a.entry_shift;
      for (int e = 0; e < entries; ++e) {
        copy16(to + uint32_t(kCodeBytes + e * entry_bytes + byte), meta + e * a.entry_bytes);
      }
    }
  }
  __device__ void load_x(const MmaWalk& at, uint32_t to) const {
    const int k_tile = at.step * T::kWarps + warp, token0 = at.token_tile * T::kTokens;
    if (k_tile >= a.k_tiles) return;
    constexpr int kChunks = F::kRowBytes / 16;
#pragma unroll
    for (int i = 0; i < T::kTokens * kChunks / 32; ++i) {
      const int row = (lane + i * 32) / kChunks, chunk = lane % kChunks, byte = k_tile * F::kRowBytes + chunk * 16;
      if (token0 + row >= a.m) break;
      const bool inside = byte < a.x_bytes;
      copy16_zero(to + uint32_t(x_at + row * F::kRowBytes + ((chunk ^ row & 7) << 4)),
                  inside ? a.x + (token0 + row) * a.x_pitch + byte : a.x, inside ? min(16, a.x_bytes - byte) : 0);
    }
  }

  // One tile of k. Segments leave their sums in `part` as they end.
  __device__ void multiply(uint32_t from, Word* part, Acc (&acc)[T::kRowBlocks][T::kTokenBlocks][4]) const {
    uint32_t b[T::kTokenBlocks][kPairs][4];
#pragma unroll
    for (int i = 0; i < T::kTokenBlocks; ++i) {
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        load_matrices(b[i][pair], from + x_row[i] + ((uint32_t(pair * 4 + lane / 8) ^ x_swizzle[i]) << 4));
      }
    }
#pragma unroll
    for (int r = 0; r < T::kRowBlocks; ++r) {
      typename F::Raw raw[kPairs];
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) F::load(raw[pair], from + r * kBlockBytes + lane * 16, pair);
      const uint32_t meta = from + kCodeBytes + second_at;
      typename F::Second second;
#pragma unroll
      for (int step = 0; step < 2 * kPairs; ++step) {
        const int begin = step * F::kStepCols, end = begin + F::kStepCols;
        if ((begin & ((1 << a.entry_shift) - 1)) == 0) {
          second.load(meta + (begin >> a.entry_shift) * entry_bytes, r * 16 + lane / 4);
        }
        uint32_t frag[4];
        F::frag(raw[step / 2], step % 2, second, frag);
#pragma unroll
        for (int i = 0; i < T::kTokenBlocks; ++i) {
          F::mma(acc[r][i], frag, b[i][step / 2][2 * (step % 2)], b[i][step / 2][2 * (step % 2) + 1]);
        }
        if constexpr (kSegments) {
          if ((end & ((1 << a.width_shift) - 1)) == 0) give(part + ((end >> a.width_shift) - 1) * T::kSums, r, acc[r]);
        }
      }
    }
  }

  __device__ void give(Word* part, int r, Acc (&acc)[T::kTokenBlocks][4]) const {
#pragma unroll
    for (int i = 0; i < T::kTokenBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        Word* at = part + (i * 8 + lane % 4 * 2 + j % 2) * T::kPitch + r * 16 + lane / 4 + j / 2 * 8;
        if constexpr (kSegments) {
          *at = F::segment_value(acc[i][j]);
          acc[i][j] = F::segment_zero();
        } else {
          *at = F::row_value(acc[i][j]);
          acc[i][j] = Acc(0);
        }
      }
    }
  }

  __device__ void clear(Acc (&acc)[T::kRowBlocks][T::kTokenBlocks][4]) const {
#pragma unroll
    for (int v = 0; v < T::kRowBlocks * T::kTokenBlocks * 4; ++v) {
      acc[v / 4 / T::kTokenBlocks][v / 4 % T::kTokenBlocks][v % 4] = kSegments ? F::segment_zero() : Acc(0);
    }
  }

  // One term: the written order of matmul.h.
  __device__ float add_term(float value, float scale, float offset, float x_scale, float x_sum, float t) const {
    if (a.x_group == 0) {
      t = __fmaf_rn(scale, value, t);
      if constexpr (F::kOffset) t = __fmaf_rn(offset, x_sum, t);
      return t;
    }
    float u = __fmul_rn(scale, value);
    if constexpr (F::kOffset) u = __fmaf_rn(offset, x_sum, u);
    return __fmaf_rn(x_scale, u, t);
  }

  // All terms of a step whose tiles are whole, `Parts` to a tile: several are on their way before the first is added.
  template <int Parts>
  __device__ float fold_whole(const float* sum, uint32_t meta, uint32_t stride, int column0, int m, float t) const {
    constexpr int kTerms = T::kWarps * Parts, kAtOnce = kTerms < 8 ? kTerms : 8, kWidth = int(kFragCols) / Parts;
#pragma unroll
    for (int i0 = 0; i0 < kTerms; i0 += kAtOnce) {
      float value[kAtOnce], scale[kAtOnce], offset[kAtOnce], x_scale[kAtOnce], x_sum[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int w = (i0 + i) / Parts, g = (i0 + i) % Parts, column = column0 + w * int(kFragCols) + g * kWidth;
        const uint32_t entry = meta + w * stride + uint32_t(g * kWidth >> a.entry_shift) * uint32_t(entry_bytes);
        value[i] = sum[(i0 + i) * T::kSums];
        scale[i] = 1.0f, offset[i] = 0.0f, x_sum[i] = 0.0f;
        if constexpr (F::kOffset) {
          split_halfs(load_shared_u32(entry), scale[i], offset[i]);
          x_sum[i] = mma_sum(a, m, column);
        } else if (second_at > 0) {
          scale[i] = load_shared_f32(entry);
        }
        x_scale[i] = a.x_group > 0 ? __ldg(a.sx + m * a.sx_pitch + (column >> a.x_shift)) : 1.0f;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) t = add_term(value[i], scale[i], offset[i], x_scale[i], x_sum[i], t);
    }
    return t;
  }

  // An owned output's next terms: the sums that the warps have of step `step`, in order of k.
  __device__ float fold(const float* sum, int unit, int step, int row, int m, float t) const {
    const uint32_t meta = stage(0, unit) + kCodeBytes + row * 4;
    const uint32_t stride = uint32_t(T::kStages * stage_bytes);
    if (a.segment <= int(kFragCols) && (step + 1) * T::kWarps * int(kFragCols) <= a.k) {
      const int column = step * T::kWarps * int(kFragCols);
      if (parts == 1) return fold_whole<1>(sum, meta, stride, column, m, t);
      if (parts == 2) return fold_whole<2>(sum, meta, stride, column, m, t);
      if (parts == 4) return fold_whole<4>(sum, meta, stride, column, m, t);
    }
    const int tiles = min(T::kWarps, a.k_tiles - step * T::kWarps);
    for (int w = 0; w < tiles; ++w) {
      for (int g = 0; g < parts; ++g) {
        const int column = (step * T::kWarps + w) * int(kFragCols) + (g << a.width_shift);
        if (column >= a.k) break;
        float value = sum[(w * parts + g) * T::kSums];
        if (a.segment > int(kFragCols)) {  // two tiles; exact
          if (w & 1) continue;
          if (w + 1 < tiles) value = __fadd_rn(value, sum[(w + 1) * T::kSums]);
        }
        const uint32_t entry = uint32_t((g << a.width_shift) >> a.entry_shift) * uint32_t(entry_bytes);
        float scale = 1.0f, offset = 0.0f, x_sum = 0.0f;
        if constexpr (F::kOffset) {
          split_halfs(load_shared_u32(meta + w * stride + entry), scale, offset);
          x_sum = mma_sum(a, m, column);
        } else if (second_at > 0) {
          scale = load_shared_f32(meta + w * stride + entry);
        }
        const float x_scale = a.x_group > 0 ? __ldg(a.sx + m * a.sx_pitch + (column >> a.x_shift)) : 1.0f;
        t = add_term(value, scale, offset, x_scale, x_sum, t);
      }
    }
    return t;
  }
};

template <class F, class T, bool kSegments>
__global__ void __launch_bounds__(T::kThreads) few_matmul_kernel(const __grid_constant__ MmaArgs a) {
  extern __shared__ __align__(128) unsigned char shared[];
  const FewBlock<F, T, kSegments> block(a, shared);
  MmaWalk here(a), ahead = here, first = here;
#pragma unroll
  for (int s = 0; s < T::kStages - 1; ++s) {
    if (s >= here.count) break;
    block.load_weights(ahead, block.stage(block.warp, s));
    ahead.next(a);
  }
  wait_for_earlier();
#pragma unroll
  for (int s = 0; s < T::kStages - 1; ++s) {
    if (s < here.count) {
      block.load_x(first, block.stage(block.warp, s));
      first.next(a);
    }
    copy_commit();
  }
  const auto load_ahead = [&](int unit) {
    if (unit + T::kStages - 1 < here.count) {
      block.load(ahead, block.stage(block.warp, unit + T::kStages - 1));
      ahead.next(a);
    }
    copy_commit();
  };
  typename F::Acc acc[T::kRowBlocks][T::kTokenBlocks][4];
  float total[T::kOwned] = {};
  block.clear(acc);
  for (int unit = 0; unit < here.count; ++unit) {
    copy_wait<T::kStages - 2>();
    __syncwarp();  // the warp's unit has arrived, and no lane reads the one before it
    if constexpr (!kSegments) load_ahead(unit);
    auto* sums = block.sums + (kSegments ? (unit & 1) * T::kWarps * block.parts * T::kSums : 0);
    auto* mine = sums + block.warp * block.parts * T::kSums;
    if (here.step * T::kWarps + block.warp < a.k_tiles) block.multiply(block.stage(block.warp, unit), mine, acc);
    const bool ends = here.step == a.k_steps - 1;
    if constexpr (kSegments) {
      // All sums of this step are there, and nobody folds the step before: its stages may be overwritten.
      __syncthreads();
      load_ahead(unit);
    } else if (ends) {
#pragma unroll
      for (int r = 0; r < T::kRowBlocks; ++r) block.give(mine, r, acc[r]);
      __syncthreads();
    }
    if (kSegments || ends) {
#pragma unroll
      for (int v = 0; v < T::kOwned; ++v) {
        const int at = v * T::kThreads + int(threadIdx.x), row = at % T::kRows, token = at / T::kRows;
        const int n = here.row_tile * T::kRows + row, m = here.token_tile * T::kTokens + token;
        if (token >= T::kTokens || m >= a.m) continue;
        const auto* sum = sums + token * T::kPitch + row;
        if constexpr (kSegments) {
          total[v] = block.fold(sum, unit, here.step, row, m, total[v]);
          if (ends) mma_store_segments(a, n, m, total[v]);
          if (ends) total[v] = 0.0f;
        } else {
          int all = 0;
#pragma unroll
          for (int w = 0; w < T::kWarps; ++w) all += sum[w * T::kSums];
          mma_store_row(a, n, m, all);
        }
      }
      if constexpr (!kSegments) __syncthreads();  // before the sums are written again
    }
    here.next(a);
  }
}

}  // namespace quire::cuda
