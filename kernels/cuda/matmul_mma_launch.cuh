// Which kernel and tile a matmul takes, and one launch of it.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cuda/matmul_few.cuh"
#include "kernels/cuda/matmul_mma.cuh"

namespace quire::cuda {

struct MmaDevice {
  int multiprocessors = 0, shared = 0, capability = 0;  // 90: sm_90
};
const MmaDevice& mma_device();  // the current one's
constexpr int kMmaBlocksPerSm = 4;
constexpr int64_t kMmaPartials = 4 * 128 * 128;  // values a multiprocessor's blocks may leave for others

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Thread blocks of this kernel that the device holds at once.
template <class Kernel>
int mma_slots(Kernel kernel, int threads, int shared) {
  check_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
               "matmul: shared memory");
  int resident = 0;
  check_status(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, size_t(shared)),
               "matmul: occupancy");
  return std::max(1, resident) * mma_device().multiprocessors;
}

template <class F, class T, bool kSegments>
void mma_launch(MmaArgs args, const MmaForce& force, bool split, cudaStream_t stream) {
  const auto kernel = mma_matmul_kernel<F, T, kSegments>;
  const int shared = T::kStages * (T::kPanels * args.tile_bytes + T::kTokens * F::kRowBytes);
  const int slots = std::min(mma_slots(kernel, T::kThreads, shared), kMmaBlocksPerSm * mma_device().multiprocessors);
  args.token_tiles = ceil_div(args.m, T::kTokens);
  args.tiles = ceil_div(args.panels, T::kPanels) * args.token_tiles;
  args.k_steps = args.k_tiles;
  const int64_t units = int64_t(args.tiles) * args.k_steps;
  constexpr int64_t kLeft = 2 * T::kRows * T::kTokens;  // by a block: its first and its last tile
  args.split =
      split && !kSegments && args.tiles <= kMmaCounters && kLeft * slots <= kMmaPartials * mma_device().multiprocessors;
  const int64_t most = args.split ? std::max<int64_t>(1, units / 2) : args.tiles;
  int64_t blocks = std::min<int64_t>(slots, most);
  if (force.blocks > 0) blocks = std::min<int64_t>({force.blocks, slots, args.split ? units : args.tiles});
  kernel<<<int(blocks), T::kThreads, size_t(shared), stream>>>(args);
  check_launch("matmul: mma kernel");
}

template <class F, class T, bool kSegments>
int few_shared(MmaArgs args) {
  args.x_rows = std::min(T::kTokens, args.m);
  return 4 * T::sum_words(kSegments, int(kFragCols) >> args.width_shift) +
         T::kWarps * T::kStages * few_stage_bytes<F, T>(args);
}
template <class F, class T, bool kSegments>
void few_launch(MmaArgs args, const MmaForce& force, cudaStream_t stream) {
  const auto kernel = few_matmul_kernel<F, T, kSegments>;
  const int shared = few_shared<F, T, kSegments>(args), slots = mma_slots(kernel, T::kThreads, shared);
  args.x_rows = std::min(T::kTokens, args.m);
  args.token_tiles = ceil_div(args.m, T::kTokens);
  args.tiles = ceil_div(args.n, T::kRows) * args.token_tiles;
  args.k_steps = ceil_div(args.k_tiles, T::kWarps);
  args.split = false;
  int blocks = std::min(slots, args.tiles);
  if (force.blocks > 0) blocks = std::min(blocks, force.blocks);
  kernel<<<blocks, T::kThreads, size_t(shared), stream>>>(args);
  check_launch("matmul: few tokens");
}

// Rows of a tile for few tokens: as many as still give every multiprocessor two tiles or nearly so; fewer rows read x
// more often.
inline int few_rows(const MmaArgs& a, const MmaForce& force, int tokens, int most) {
  int rows = force.rows > 0 ? force.rows : 64;
  const int enough = mma_device().multiprocessors * 7 / 4;
  if (force.rows == 0) {
    while (rows > 16 && ceil_div(a.n, rows) * ceil_div(a.m, tokens) < enough) rows /= 2;
  }
  return std::min(rows, most);
}

// Tokens of a tile. The kernel for few tokens re-reads weights from L2 for every 32 of them, which pays while the
// larger tiles would leave multiprocessors idle (measured on an H100 at the layers of an 8B model: up to 3 tiles of 64
// rows and 32 tokens a multiprocessor).
inline int mma_tokens(const MmaArgs& a, const MmaForce& force) {
  if (force.tokens > 0) return force.tokens;
  for (const int tokens : {8, 16, 32}) {
    if (a.m <= tokens) return tokens;
  }
  return a.panels * ceil_div(a.m, 32) <= 3 * mma_device().multiprocessors ? 32 : 64;
}

// Measured: tiles of 128 tokens pay only along a long k, and so does splitting once every multiprocessor has a tile.
inline bool mma_long(const MmaArgs& a) { return a.k > 8192; }
inline bool mma_widest(const MmaArgs& a) { return mma_long(a) && a.m > 512; }
inline bool mma_splits(const MmaArgs& a) {
  if (mma_tokens(a, {}) <= 32 || mma_widest(a)) return false;
  return mma_long(a) || 2 * ceil_div(a.panels, 2) * ceil_div(a.m, 64) < 3 * mma_device().multiprocessors;
}

// Sums of whole rows.
template <class F>
void mma_launch_rows(const MmaArgs& a, const MmaForce& force, cudaStream_t stream) {
  const int tokens = mma_tokens(a, force);
  if (tokens <= 32) {
    const int rows = few_rows(a, force, tokens, 64);
    if (tokens <= 8) {
      if (rows <= 16) return few_launch<F, FewTile<1, 1, 8, 4>, false>(a, force, stream);
      if (rows <= 32) return few_launch<F, FewTile<2, 1, 8, 4>, false>(a, force, stream);
      return few_launch<F, FewTile<4, 1, 4, 4>, false>(a, force, stream);
    }
    if (tokens <= 16) {
      if (rows <= 16) return few_launch<F, FewTile<1, 2, 4, 4>, false>(a, force, stream);
      if (rows <= 32) return few_launch<F, FewTile<2, 2, 4, 4>, false>(a, force, stream);
      return few_launch<F, FewTile<4, 2, 4, 4>, false>(a, force, stream);
    }
    if (rows <= 16) return few_launch<F, FewTile<1, 4, 4, 4>, false>(a, force, stream);
    if (rows <= 32) return few_launch<F, FewTile<2, 4, 4, 3>, false>(a, force, stream);
    return few_launch<F, FewTile<4, 4, 4, 3>, false>(a, force, stream);
  }
  const bool split = force.split >= 0 ? force.split == 1 : mma_splits(a);
  if (force.tokens > 64 || (force.tokens == 0 && mma_widest(a)))
    return mma_launch<F, MmaTile<4, 8, 2, 2, 3>, false>(a, force, split, stream);
  return mma_launch<F, MmaTile<4, 4, 2, 2, 4>, false>(a, force, split, stream);
}

// Sums folded by segment.
template <class F, class Small, class Large>
void few_segments(const MmaArgs& a, const MmaForce& force, int tokens, cudaStream_t stream) {
  if (few_rows(a, force, tokens, 32) > 16 && few_shared<F, Large, true>(a) <= mma_device().shared)
    return few_launch<F, Large, true>(a, force, stream);
  return few_launch<F, Small, true>(a, force, stream);
}
template <class F>
void mma_launch_segments(const MmaArgs& a, const MmaForce& force, cudaStream_t stream) {
  const int tokens = mma_tokens(a, force);
  if (tokens <= 8) return few_segments<F, FewTile<1, 1, 8, 4>, FewTile<2, 1, 8, 3>>(a, force, tokens, stream);
  if (tokens <= 16) return few_segments<F, FewTile<1, 2, 4, 4>, FewTile<2, 2, 4, 4>>(a, force, tokens, stream);
  if (tokens <= 32) return few_segments<F, FewTile<1, 4, 4, 3>, FewTile<2, 4, 4, 3>>(a, force, tokens, stream);
  // Measured: only 16-bit weights gain from tiles of 128 tokens.
  const int tiles = ceil_div(a.panels, 2) * ceil_div(a.m, 128);
  if (force.tokens > 64 || (force.tokens == 0 && F::kBits == 16 && tiles >= mma_device().multiprocessors))
    return mma_launch<F, MmaTile<2, 8, 4, 2, 3>, true>(a, force, false, stream);
  return mma_launch<F, MmaTile<1, 8, 4, 1, 4>, true>(a, force, false, stream);
}

}  // namespace quire::cuda
