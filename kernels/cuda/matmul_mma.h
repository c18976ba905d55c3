// Tensor-core matmul over frag8 / frag16 weights (frag_layout.h) with mma.sync: weights are the A operand, tokens lie
// on the MMA's N, so few tokens cost little. Same results as the CPU bit for bit for integer activations, whatever M,
// the tile and the split; with float activations the sums are taken in one order too, so a row never depends on its
// batch.
#pragma once
#include <cstddef>

#include "base/cuda/runtime.h"
#include "kernels/frag_layout.h"

namespace quire::cuda {

enum class MmaX : uint8_t { int8, f16, bf16, e4m3 };

struct MmaMatmul {
  FragShape shape;
  const std::byte* w = nullptr;  // packed
  MmaX x_type = MmaX::int8;
  const std::byte* x = nullptr;   // (M, K) codes or halfs, rows on 16 bytes
  int64_t x_pitch = 0;            // bytes
  const float* sx = nullptr;      // (M, groups); null for f16, bf16
  int64_t sx_pitch = 0;           // floats; 0: one for all rows
  int32_t x_group = 0;            // 0: one scale a row
  const int32_t* sums = nullptr;  // (M, segments) of x's codes; only with shape.offset
  int64_t sums_pitch = 0;
  float* y = nullptr;  // (M, N)
  int64_t ldy = 0;
  const float* bias = nullptr;      // (N)
  const float* residual = nullptr;  // (M, N), ldy; may be y
  int64_t m = 0;
};

// What a launch uses beside its operands. counters are zero before the first launch and left so by every launch.
struct MmaWorkspace {
  int32_t* counters = nullptr;    // kMmaCounters
  std::byte* partials = nullptr;  // mma_workspace_bytes() of the device
};
constexpr int kMmaCounters = 1 << 14;
int64_t mma_workspace_bytes();                     // the most
int64_t mma_workspace_bytes(const MmaMatmul& op);  // without a MmaForce; 0: neither counters nor partials are used

struct MmaForce {
  int tokens = 0;  // of a tile: 8, 16, 32, 64, 128, 256 (wgmma, where it can); 0: by M
  int rows = 0;    // of a tile of at most 32 tokens: 16, 32, 64; 0: by N
  int blocks = 0;  // thread blocks that share the work; 0: as many as fit
  int split = -1;  // blocks may begin and end inside a tile's k: 0 no, 1 yes; -1: if it helps
};

bool mma_supports(const FragShape& shape, MmaX x, int32_t x_group);
void mma_matmul(const MmaMatmul& op, const MmaWorkspace& workspace, StreamHandle stream, MmaForce force = {});

}  // namespace quire::cuda
