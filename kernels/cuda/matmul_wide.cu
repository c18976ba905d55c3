// The kernel for a great many tokens on sm_90a: two warp groups share the tokens of a block, each multiplies a panel of
// 64 rows with wgmma, weights from registers. Sums of whole rows only: integers are exact in whatever order they are
// added, so every result equals that of the other kernels.
#include "kernels/cuda/matmul_wide.h"

#include "kernels/cuda/matmul_mma_launch.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace quire::cuda {

namespace {

// 128 tokens and as many stages as let a multiprocessor hold two blocks: one's multiplication hides the other's waits.
// (256 tokens in one block took about twice as long a token on an H100.)
constexpr int kThreads = 256, kPanelsOfBlock = 2, kTokens = 128;
template <class F>
constexpr int kStages = F::kBits == 4 ? 4 : 3;

int stage_bytes(const MmaArgs& a) {  // what wgmma reads begins on 1024 bytes
  return (kTokens * int(kFragCols) + kPanelsOfBlock * a.tile_bytes + 1023) / 1024 * 1024;
}

__device__ void wide_load(const MmaArgs& a, const MmaWalk& at, uint32_t to) {
  const int token0 = at.token_tile * kTokens, thread = int(threadIdx.x);
  for (int i = thread; i < kTokens * 8; i += kThreads) {
    const int row = i / 8, chunk = i % 8, byte = at.step * int(kFragCols) + chunk * 16;
    const bool inside = token0 + row < a.m && byte < a.x_bytes;
    copy16_zero(to + uint32_t(row * int(kFragCols) + ((chunk ^ (row & 7)) << 4)),
                inside ? a.x + (token0 + row) * a.x_pitch + byte : a.x, inside ? min(16, a.x_bytes - byte) : 0);
  }
  to += uint32_t(kTokens * int(kFragCols));
#pragma unroll
  for (int p = 0; p < kPanelsOfBlock; ++p) {
    const int panel = min(at.row_tile * kPanelsOfBlock + p, a.panels - 1);
    const std::byte* from = a.w + panel * a.panel_bytes + at.step * a.tile_bytes;
    for (int i = thread * 16; i < a.tile_bytes; i += kThreads * 16)
      copy16(to + uint32_t(p * a.tile_bytes + i), from + i);
  }
}

template <class F>
__global__ void __launch_bounds__(kThreads, 2) wide_matmul_kernel(const __grid_constant__ MmaArgs a, int stage_size) {
  extern __shared__ __align__(1024) unsigned char shared[];
  constexpr int kBlockBytes = 16 * int(kFragCols) * F::kBits / 8;
  const uint32_t ring = (shared_address(shared) + 1023u) & ~1023u;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32 % 4, half = int(threadIdx.x) / 128;
  const auto stage = [&](int i) { return ring + uint32_t(i % kStages<F> * stage_size); };
  MmaWalk here(a), ahead = here;
#pragma unroll
  for (int s = 0; s < kStages<F> - 1; ++s) {
    if (s < here.count) {
      wide_load(a, ahead, stage(s));
      ahead.next(a);
    }
    copy_commit();
  }
  int acc[kTokens / 2];
#pragma unroll
  for (int i = 0; i < kTokens / 2; ++i) acc[i] = 0;
#pragma unroll 1
  for (int unit = 0; unit < here.count; ++unit) {
    copy_wait<kStages<F> - 2>();
    fence_shared_for_wgmma();
    __syncthreads();  // the unit has arrived, and nobody multiplies the one before it
    if (unit + kStages<F> - 1 < here.count) {
      wide_load(a, ahead, stage(unit + kStages<F> - 1));
      ahead.next(a);
    }
    copy_commit();
    const uint32_t x = stage(unit), tile = x + uint32_t(kTokens * int(kFragCols) + half * a.tile_bytes);
    uint32_t frag[4][4];
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      typename F::Raw raw;
      F::load(raw, tile + uint32_t(warp * kBlockBytes + lane * 16), pair);
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const int begin = (2 * pair + s) * F::kStepCols;
        typename F::Second second;
        second.load(tile + uint32_t(4 * kBlockBytes + (begin >> a.entry_shift) * a.entry_bytes + a.second_at),
                    warp * 16 + lane / 4);
        F::frag(raw, s, second, frag[2 * pair + s]);
      }
    }
    const uint64_t operand = wgmma_operand(x);
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; ++s) wgmma_s8(acc, frag[s], operand + uint64_t(2 * s));
    wgmma_commit();
    wgmma_wait_all();  // before the registers of a fragment are written again
    if (here.step == a.k_steps - 1) {
      keep_after_wait(acc);
      const int n = (here.row_tile * kPanelsOfBlock + half) * int(kFragRows) + warp * 16 + lane / 4;
      const int m = here.token_tile * kTokens + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) {
        mma_store_row(a, n + i % 4 / 2 * 8, m + i / 4 * 8 + i % 2, F::row_value(acc[i]));
        acc[i] = 0;
      }
    }
    here.next(a);
  }
}

template <class F>
void launch(MmaArgs args, cudaStream_t stream) {
  const auto kernel = wide_matmul_kernel<F>;
  const int stage_size = stage_bytes(args), shared = kStages<F> * stage_size + 1024;
  const int slots = mma_slots(kernel, kThreads, shared);
  args.token_tiles = ceil_div(args.m, kTokens);
  args.tiles = ceil_div(args.panels, kPanelsOfBlock) * args.token_tiles;
  args.k_steps = args.k_tiles;
  args.split = false;
  kernel<<<std::min(slots, args.tiles), kThreads, size_t(shared), stream>>>(args, stage_size);
  check_launch("matmul: wgmma kernel");
}

}  // namespace

bool wide_supports(FragCode code, int segment) {
  const bool integer = code <= FragCode::nibble_offset;
  return integer && segment == 0 && mma_device().capability == 90;
}

void wide_matmul(FragCode code, const MmaArgs& a, cudaStream_t stream) {
  if (code == FragCode::int8) return launch<FieldInt8>(a, stream);
  if (code == FragCode::nibble_signed) return launch<FieldNibbleSigned>(a, stream);
  if (code == FragCode::nibble_offset) return launch<FieldNibbleOffset>(a, stream);
  launch<FieldNibbleAffine>(a, stream);
}

}  // namespace quire::cuda
