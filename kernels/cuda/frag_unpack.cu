// What stands around cuBLAS: frag8 / frag16 weights back to rows, and int32 sums to y.
#include <cuda_runtime.h>

#include "kernels/cuda/matmul_blas.h"

namespace quire::cuda {

namespace {

constexpr int kThreads = 256;

// Eight values of one row as f16.
template <FragCode kCode>
__device__ uint4 halfs_of(const FragShape& s, const std::byte* tile, int row, int col, const uint8_t* fields) {
  const std::byte* meta = tile + s.code_bytes() + col / s.entry * s.entry_bytes();
  const float scale = reinterpret_cast<const float*>(meta)[row];
  const int zero = kCode == FragCode::half_nibble ? reinterpret_cast<const uint16_t*>(meta + 256)[row] : 0;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint32_t h[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const uint8_t field = fields[2 * i + e];
      const float q = kCode == FragCode::half_e4m3   ? E4M3Scalar::decode(field)
                      : kCode == FragCode::half_byte ? float(int8_t(field))
                                                     : float(int(field) - zero);
      h[e] = f32_to_f16(__fmul_rn(scale, q));
    }
    words[i] = h[0] | h[1] << 16;
  }
  return {words[0], words[1], words[2], words[3]};
}

// Eight codes of one row; those from column `end` on are zero.
template <FragCode kCode>
__device__ uint2 codes_of(const FragShape& s, const std::byte* tile, int row, int col, int end, const uint8_t* fields) {
  int step = 1, offset = 0;
  if (kCode == FragCode::nibble_affine) {
    const std::byte* meta = tile + s.code_bytes() + col / s.entry * s.entry_bytes();
    const int second = reinterpret_cast<const uint16_t*>(meta)[row];
    step = second & 255;
    offset = (second >> 8) - 128;
  }
  uint32_t words[2] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int field = fields[i], code = kCode == FragCode::nibble_signed ? (field ^ 8) - 8 : field * step + offset;
    if (col + i < end) words[i / 4] |= uint32_t(code & 255) << (i % 4 * 8);
  }
  return {words[0], words[1]};
}

// A block takes a tile: fields to shared memory in their rows, then eight values a thread.
template <FragCode kCode>
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(FragShape s, const std::byte* packed, int64_t first_row, int64_t rows, std::byte* out, int64_t ld) {
  using Field = std::conditional_t<kCode == FragCode::half_float, uint16_t, uint8_t>;
  constexpr int kCols = int(kFragCols), kPitch = kCols + 16 / int(sizeof(Field)), kChunks = kCols / 8;
  __shared__ __align__(16) Field fields[kFragRows * kPitch];
  FragShape kind;  // known to the compiler
  kind.code = kCode;
  const int k_tile = int(blockIdx.x);
  const std::byte* tile = packed + s.tile_at(first_row / kFragRows + blockIdx.y, k_tile);
  for (int i = int(threadIdx.x); i < kind.code_bytes() / 16; i += kThreads) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(tile) + i);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
    const int lane = i % 32, vector = i / 32 % kind.vectors(), block = i / 32 / kind.vectors();
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      frag_word(kind, block, vector, lane, w, [&](int at, int row, int col) {
        fields[row * kPitch + col] = Field(words[w] >> at & ((1u << kind.bits()) - 1u));
      });
    }
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < int(kFragRows) * kChunks; i += kThreads) {
    const int row = i / kChunks, col = i % kChunks * 8;
    const int64_t r = int64_t(blockIdx.y) * kFragRows + row, c = int64_t(k_tile) * kCols + col;
    if (r >= rows || c >= ld) continue;
    const Field* from = fields + row * kPitch + col;
    if constexpr (kCode == FragCode::half_float) {
      *reinterpret_cast<uint4*>(out + (r * ld + c) * 2) = *reinterpret_cast<const uint4*>(from);
    } else if constexpr (kCode > FragCode::half_float || kCode == FragCode::half_nibble ||
                         kCode == FragCode::half_byte) {
      *reinterpret_cast<uint4*>(out + (r * ld + c) * 2) = halfs_of<kCode>(s, tile, row, col, from);
    } else {
      const int end = int(s.k - int64_t(k_tile) * kCols);
      *reinterpret_cast<uint2*>(out + r * ld + c) = codes_of<kCode>(s, tile, row, col, end, from);
    }
  }
}

// mma_store_row of matmul_args.cuh.
constexpr int kRowsOfBlock = 8;
__global__ void __launch_bounds__(kThreads)
    finish_sums_kernel(const __grid_constant__ MmaMatmul op, const int32_t* sums, int64_t first_row, int64_t rows) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, n = first_row + i;
  if (i >= rows || n >= op.shape.n) return;
  const float scale = *reinterpret_cast<const float*>(op.w + op.shape.row_scale_at(n));
  const float offset = *reinterpret_cast<const float*>(op.w + op.shape.row_offset_at(n));
  const float bias = op.bias ? op.bias[n] : 0.0f;
#pragma unroll
  for (int j = 0; j < kRowsOfBlock; ++j) {
    const int64_t m = int64_t(blockIdx.y) * kRowsOfBlock + j, at = m * op.ldy + n;
    if (m >= op.m) return;
    const float sx = __ldg(op.sx + m * op.sx_pitch);
    float value = __fmul_rn(__fmul_rn(__int2float_rn(sums[m * rows + i]), sx), scale);
    if (op.shape.offset) {
      value = __fmaf_rn(__fmul_rn(offset, sx), __int2float_rn(__ldg(op.sums + m * op.sums_pitch)), value);
    }
    if (op.bias) value = __fadd_rn(value, bias);
    if (op.residual) value = __fadd_rn(value, op.residual[at]);
    op.y[at] = value;
  }
}

__global__ void __launch_bounds__(kThreads) add_bias_kernel(float* y, int64_t ldy, int64_t n, const float* bias) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) y[blockIdx.y * ldy + i] += bias[i];
}

unsigned blocks_for(int64_t n, int64_t of) { return unsigned((n + of - 1) / of); }

}  // namespace

void frag_unpack(const FragShape& s, const std::byte* packed, int64_t first_row, int64_t rows, std::byte* out,
                 int64_t ld, StreamHandle stream) {
  const dim3 grid(unsigned(s.k_tiles()), blocks_for(rows, kFragRows));
  const auto launch = [&](auto kernel) { kernel<<<grid, kThreads, 0, stream>>>(s, packed, first_row, rows, out, ld); };
  switch (s.code) {
    case FragCode::int8:
      launch(unpack_kernel<FragCode::int8>);
      break;
    case FragCode::nibble_signed:
      launch(unpack_kernel<FragCode::nibble_signed>);
      break;
    case FragCode::nibble_affine:
      launch(unpack_kernel<FragCode::nibble_affine>);
      break;
    case FragCode::nibble_offset:
      launch(unpack_kernel<FragCode::nibble_offset>);
      break;
    case FragCode::half_nibble:
      launch(unpack_kernel<FragCode::half_nibble>);
      break;
    case FragCode::half_byte:
      launch(unpack_kernel<FragCode::half_byte>);
      break;
    case FragCode::half_e4m3:
      launch(unpack_kernel<FragCode::half_e4m3>);
      break;
    case FragCode::half_float:
      launch(unpack_kernel<FragCode::half_float>);
      break;
    case FragCode::e4m3:
      return;  // refused by blas_supports
  }
  check_launch("unpacking weights");
}

void finish_sums(const MmaMatmul& op, const int32_t* sums, int64_t first_row, int64_t rows, StreamHandle stream) {
  const dim3 grid(blocks_for(rows, kThreads), blocks_for(op.m, kRowsOfBlock));
  finish_sums_kernel<<<grid, kThreads, 0, stream>>>(op, sums, first_row, rows);
  check_launch("finishing sums");
}

void add_bias(float* y, int64_t ldy, int64_t m, int64_t n, const float* bias, StreamHandle stream) {
  add_bias_kernel<<<dim3(blocks_for(n, kThreads), unsigned(m)), kThreads, 0, stream>>>(y, ldy, n, bias);
  check_launch("adding a bias");
}

}  // namespace quire::cuda
