// One launch of a kernel, and the kernel of a tile.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_few.cuh"
#include "kernels/cuda/matmul_mma.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace quire::cuda {

struct MmaDevice {
  int multiprocessors = 0, shared = 0, capability = 0;  // 90: sm_90
};
MmaDevice mma_device();  // the current one's
constexpr int kMmaBlocksPerSm = 4;
constexpr int64_t kMmaPartials = 4 * 128 * 128;  // values a multiprocessor's blocks may leave for others

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Thread blocks of this kernel that the device holds at once.
template <class Kernel>
int mma_slots(Kernel kernel, int threads, int shared) {
  allow_shared_memory(kernel, size_t(shared), "matmul: shared memory");
  int resident = 0;
  check_status(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, size_t(shared)),
               "matmul: occupancy");
  return std::max(1, resident) * mma_device().multiprocessors;
}

template <class F, class T, bool kSegments>
void mma_launch(MmaArgs args, const MmaForce& force, cudaStream_t stream) {
  const auto kernel = mma_matmul_kernel<F, T, kSegments>;
  const int folds = mma_fold_bytes<T>(kSegments && args.x_group > 0, args.width_shift) +
                    mma_fold_bytes<T>(kSegments && F::kOffset, args.width_shift);
  const int shared = T::kStages * (T::kPanels * args.tile_bytes + T::kTokens * F::kRowBytes + folds);
  const int slots = std::min(mma_slots(kernel, T::kThreads, shared), kMmaBlocksPerSm * mma_device().multiprocessors);
  args.token_tiles = ceil_div(args.m, T::kTokens);
  args.tiles = ceil_div(args.panels, T::kPanels) * args.token_tiles;
  args.k_steps = args.k_tiles;
  const int64_t units = int64_t(args.tiles) * args.k_steps;
  constexpr int64_t kLeft = 2 * T::kRows * T::kTokens;  // by a block: its first and its last tile
  args.split = force.split == 1 && !kSegments && args.tiles <= kMmaCounters &&
               kLeft * slots <= kMmaPartials * mma_device().multiprocessors;
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
  // Beside the kernel that makes x. Measured on Llama-3-8B, w8a8: 11 % of a step of one sequence, 3 % of 16; for 64 it
  // costs 5 %. Halfs as they are load twice as much, and were not measured apart between 9 and 16.
  constexpr int kMostEarly = F::kBits == 16 ? 8 : 16;
  launch_early("matmul: few tokens", args.m <= kMostEarly, kernel, dim3(unsigned(blocks)), T::kThreads, size_t(shared),
               stream, args);
}

// Sums of whole rows. `force` is whole here (matmul_choice.h).
template <class F>
void mma_launch_rows(const MmaArgs& a, const MmaForce& force, cudaStream_t stream) {
  const int tokens = force.tokens, rows = force.rows;
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
  if (tokens <= 32) {
    if (rows <= 16) return few_launch<F, FewTile<1, 4, 4, 4>, false>(a, force, stream);
    if (rows <= 32) return few_launch<F, FewTile<2, 4, 4, 3>, false>(a, force, stream);
    return few_launch<F, FewTile<4, 4, 4, 3>, false>(a, force, stream);
  }
  if (tokens <= 64) return mma_launch<F, MmaTile<4, 4, 2, 2, 4>, false>(a, force, stream);
  return mma_launch<F, MmaTile<4, 8, 2, 2, 3>, false>(a, force, stream);
}

// Sums folded by segment.
template <class F, class Small, class Large>
void few_segments(const MmaArgs& a, const MmaForce& force, cudaStream_t stream) {
  if (force.rows > 16 && few_shared<F, Large, true>(a) <= mma_device().shared)
    return few_launch<F, Large, true>(a, force, stream);
  return few_launch<F, Small, true>(a, force, stream);
}
template <class F>
void mma_launch_segments(const MmaArgs& a, const MmaForce& force, cudaStream_t stream) {
  const int tokens = force.tokens;
  if (force.rows == 64 && tokens <= 32) {  // a warp has all of k for its rows, which folds sums where they are
    if (tokens <= 8) return mma_launch<F, MmaTile<1, 1, 4, 1, 5>, true>(a, force, stream);
    if (tokens <= 16) return mma_launch<F, MmaTile<1, 2, 4, 1, 5>, true>(a, force, stream);
    return mma_launch<F, MmaTile<1, 4, 4, 1, 4>, true>(a, force, stream);
  }
  if (tokens <= 8) return few_segments<F, FewTile<1, 1, 8, 4>, FewTile<2, 1, 8, 3>>(a, force, stream);
  if (tokens <= 16) return few_segments<F, FewTile<1, 2, 4, 4>, FewTile<2, 2, 4, 4>>(a, force, stream);
  if (tokens <= 32) return few_segments<F, FewTile<1, 4, 4, 3>, FewTile<2, 4, 4, 3>>(a, force, stream);
  if (tokens <= 64) return mma_launch<F, MmaTile<1, 8, 4, 1, 4>, true>(a, force, stream);
  return mma_launch<F, MmaTile<2, 8, 4, 2, 3>, true>(a, force, stream);
}

}  // namespace quire::cuda
