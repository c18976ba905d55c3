#include "kernels/cuda/frag_pack.h"

#include <cuda_runtime.h>

#include "kernels/frag_pack.h"

namespace quire::cuda {

namespace {

constexpr int kThreads = 256;

// A thread makes the 16 bytes of one lane.
template <class C>
__global__ void pack_codes_kernel(FragShape s, Tensor src, int64_t row0, std::byte* dst, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t in_tile = s.code_bytes() / 16, tile = i / in_tile;
  const int64_t panel = row0 / kFragRows + tile / s.k_tiles(), k_tile = tile % s.k_tiles();
  const int at = int(i % in_tile), lane = at % 32, vector = at / 32 % s.vectors(), block = at / 32 / s.vectors();
  uint4 out;
  out.x = frag_pack_word<C>(s, src, row0, panel, k_tile, block, vector, lane, 0);
  out.y = frag_pack_word<C>(s, src, row0, panel, k_tile, block, vector, lane, 1);
  out.z = frag_pack_word<C>(s, src, row0, panel, k_tile, block, vector, lane, 2);
  out.w = frag_pack_word<C>(s, src, row0, panel, k_tile, block, vector, lane, 3);
  *reinterpret_cast<uint4*>(dst + s.tile_at(panel, k_tile) + at * 16) = out;
}

// A thread makes one row of one entry of meta; those of the first entry of the row also what the row is scaled with.
template <class C>
__global__ void pack_meta_kernel(FragShape s, Tensor src, int64_t row0, std::byte* dst, int64_t rows) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, entries = kFragCols / s.entry;
  if (i >= rows * s.k_tiles() * entries) return;
  const int64_t row = row0 + i % rows, entry = i / rows, k_tile = entry / entries;
  frag_pack_entry<C>(s, src, row0, row, k_tile, int(entry % entries), dst + s.tile_at(row / kFragRows, k_tile));
  if (entry == 0) frag_pack_row<C>(s, src, row0, row, dst);
}

// Kernels that start early read weights before they wait: what is packed must be there for them, which it is once
// another kernel, launched as usual, could start.
__global__ void settle_kernel() {}

template <class C>
void pack(const FragShape& s, const Tensor& src, int64_t row0, std::byte* dst, cudaStream_t stream) {
  const int64_t panels = (src.rows + kFragRows - 1) / kFragRows, rows = panels * kFragRows;
  const int64_t vectors = panels * s.k_tiles() * s.code_bytes() / 16;
  const int64_t meta = rows * s.k_tiles() * (kFragCols / s.entry);
  pack_codes_kernel<C>
      <<<unsigned((vectors + kThreads - 1) / kThreads), kThreads, 0, stream>>>(s, src, row0, dst, vectors);
  check_launch("packing codes");
  pack_meta_kernel<C><<<unsigned((meta + kThreads - 1) / kThreads), kThreads, 0, stream>>>(s, src, row0, dst, rows);
  check_launch("packing scales");
}

// A warp a segment.
__global__ void sum_codes_kernel(Plane codes, int64_t rows, int64_t cols, int64_t segment, int32_t* sums) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32, segments = (cols + segment - 1) / segment;
  const int lane = int(threadIdx.x) % 32;
  if (i >= rows * segments) return;
  const int64_t r = i / segments, begin = i % segments * segment, end = min(cols, begin + segment);
  int sum = 0;
  for (int64_t c = begin + lane; c < end; c += 32) sum += codes.row<const int8_t>(r)[c];
  sum = __reduce_add_sync(~0u, sum);
  if (lane == 0) sums[i] = sum;
}

}  // namespace

void sum_codes(const Plane& codes, int64_t rows, int64_t cols, int64_t segment, int32_t* sums, StreamHandle stream) {
  if (rows < 1) return;
  if (segment == 0) segment = cols;
  const int64_t warps = rows * ((cols + segment - 1) / segment);
  const unsigned blocks = unsigned((warps * 32 + kThreads - 1) / kThreads);
  sum_codes_kernel<<<blocks, kThreads, 0, stream>>>(codes, rows, cols, segment, sums);
  check_launch("summing codes");
}

void frag_pack(const FragShape& s, const Tensor& src, int64_t row0, std::byte* dst, StreamHandle stream) {
  if (src.rows < 1) return;
  visit_frag(src.codec, [&]<class C>(C) { pack<C>(s, src, row0, dst, stream); });
  settle_kernel<<<1, 1, 0, stream>>>();
  check_launch("settling what was packed");
}

}  // namespace quire::cuda
