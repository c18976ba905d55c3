// What a problem becomes: arguments, and the field whose kernels take them.
#include <cuda_runtime.h>

#include "base/error.h"
#include "kernels/cuda/matmul_choice.h"
#include "kernels/cuda/matmul_mma_launch.cuh"
#include "kernels/cuda/matmul_wide.h"

namespace quire::cuda {

extern template void mma_launch_rows<FieldInt8>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_rows<FieldNibbleSigned>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_rows<FieldNibbleAffine>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_rows<FieldNibbleOffset>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldInt8>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldNibbleSigned>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldNibbleAffine>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldNibbleOffset>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldHalfNibble>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldHalfByte>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldHalf>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldBfloat>(const MmaArgs&, const MmaForce&, cudaStream_t);
extern template void mma_launch_segments<FieldHalfE4M3>(const MmaArgs&, const MmaForce&, cudaStream_t);
void mma_launch_e4m3(const MmaArgs& a, const MmaForce& force, cudaStream_t stream);

MmaDevice mma_device() {
  const DeviceInfo& d = device_info(current_device());
  return {d.multiprocessors, int(d.shared_per_block), 10 * d.major + d.minor};
}

int64_t mma_workspace_bytes() { return mma_device().multiprocessors * kMmaPartials * 4; }

int64_t mma_workspace_bytes(const MmaMatmul& op) {
  if (op.shape.segment > 0) return 0;
  return mma_choose(op.shape, op.m, mma_device().multiprocessors, {}).split == 1 ? mma_workspace_bytes() : 0;
}

bool mma_supports(const FragShape& s, MmaX x, int32_t x_group) {
  const auto power = [](int32_t v, int32_t lo, int32_t hi) { return v >= lo && v <= hi && (v & (v - 1)) == 0; };
  if (device_count() == 0 || mma_device().capability != 90)
    return false;  // tiles are made for its 227 KB of shared memory
  if (s.n < 1 || s.k < 1 || s.n > (1 << 30) || s.k > (1 << 20)) return false;
  if (!power(s.entry, 32, 128) || (s.segment != 0 && !power(s.segment, 32, 256))) return false;
  if (s.segment == 0 && (s.k > 65536 || x_group > 0)) return false;  // 16 * 8 * 127 * k fits an int
  if (x_group != 0 && (!power(x_group, 32, 1 << 20) || x_group < s.segment)) return false;
  if (s.offset != (s.code == FragCode::nibble_offset)) return false;
  switch (s.code) {
    case FragCode::int8:
    case FragCode::nibble_signed:
    case FragCode::nibble_affine:
    case FragCode::nibble_offset:
      return x == MmaX::int8;
    case FragCode::e4m3:
      return x == MmaX::e4m3 && s.segment > 0;
    case FragCode::half_nibble:
    case FragCode::half_byte:
    case FragCode::half_e4m3:
      return x == MmaX::f16 && s.segment > 0 && x_group == 0;
    case FragCode::half_float:
      return (x == MmaX::f16 || x == MmaX::bf16) && s.segment == 128 && x_group == 0;
  }
  return false;
}

namespace {

int log2_of(int v) {
  int shift = 0;
  while (v >> (shift + 1)) ++shift;
  return shift;
}

MmaArgs arguments(const MmaMatmul& op, const MmaWorkspace& workspace) {
  const FragShape& s = op.shape;
  MmaArgs a{};
  a.w = op.w;
  a.x = op.x;
  a.row_scale = reinterpret_cast<const float*>(op.w + s.row_scale_at(0));
  a.offset = s.offset;
  a.panel_bytes = s.panel_bytes();
  a.sx = op.sx;
  a.bias = op.bias;
  a.residual = op.residual;
  a.sums = op.sums;
  a.y = op.y;
  a.counters = workspace.counters;
  a.partials = reinterpret_cast<int32_t*>(workspace.partials);
  a.x_pitch = op.x_pitch;
  a.ldy = op.ldy;
  a.sx_pitch = op.sx_pitch;
  a.sums_pitch = op.sums_pitch;
  a.m = int(op.m);
  a.n = int(s.n);
  a.k = int(s.k);
  a.x_bytes = int(s.k * (s.half() ? 2 : 1));
  a.panels = int(s.panels());
  a.k_tiles = int(s.k_tiles());
  a.tile_bytes = int(s.tile_bytes());
  a.entry_shift = log2_of(s.entry);
  a.entry_bytes = int(s.entry_bytes());
  a.second_at = s.scaled() ? 256 : 0;
  a.segment = s.segment;
  a.segment_shift = log2_of(s.segment);
  a.width_shift = log2_of(s.segment > 0 && s.segment < kFragCols ? s.segment : int(kFragCols));
  a.x_group = op.x_group;
  a.x_shift = log2_of(op.x_group);
  return a;
}

}  // namespace

void mma_matmul(const MmaMatmul& op, const MmaWorkspace& workspace, StreamHandle stream, MmaForce force) {
  const FragShape& s = op.shape;
  check(mma_supports(s, op.x_type, op.x_group), "matmul: no tensor-core kernel for this weight and activation");
  check(op.x_pitch % 16 == 0 && reinterpret_cast<uintptr_t>(op.x) % 16 == 0 &&
            reinterpret_cast<uintptr_t>(op.w) % 16 == 0,
        "matmul: rows of x and the packed weight must begin on 16 bytes");
  check(!s.offset || op.sums, "matmul: a weight with an offset needs the sums of x's codes");
  check(op.m < (1 << 24), "matmul: too many rows of x");
  if (op.m < 1) return;
  const MmaArgs a = arguments(op, workspace);
  force = mma_choose(s, op.m, mma_device().multiprocessors, force);
  if (force.tokens > 128 && wide_supports(s.code, s.segment)) return wide_matmul(s.code, a, stream);
  switch (s.code) {
    case FragCode::int8:
      return s.segment ? mma_launch_segments<FieldInt8>(a, force, stream)
                       : mma_launch_rows<FieldInt8>(a, force, stream);
    case FragCode::nibble_signed:
      return s.segment ? mma_launch_segments<FieldNibbleSigned>(a, force, stream)
                       : mma_launch_rows<FieldNibbleSigned>(a, force, stream);
    case FragCode::nibble_affine:
      return s.segment ? mma_launch_segments<FieldNibbleAffine>(a, force, stream)
                       : mma_launch_rows<FieldNibbleAffine>(a, force, stream);
    case FragCode::nibble_offset:
      return s.segment ? mma_launch_segments<FieldNibbleOffset>(a, force, stream)
                       : mma_launch_rows<FieldNibbleOffset>(a, force, stream);
    case FragCode::e4m3:
      return mma_launch_e4m3(a, force, stream);
    case FragCode::half_e4m3:
      return mma_launch_segments<FieldHalfE4M3>(a, force, stream);
    case FragCode::half_nibble:
      return mma_launch_segments<FieldHalfNibble>(a, force, stream);
    case FragCode::half_byte:
      return mma_launch_segments<FieldHalfByte>(a, force, stream);
    case FragCode::half_float:
      return op.x_type == MmaX::f16 ? mma_launch_segments<FieldHalf>(a, force, stream)
                                    : mma_launch_segments<FieldBfloat>(a, force, stream);
  }
}

}  // namespace quire::cuda
