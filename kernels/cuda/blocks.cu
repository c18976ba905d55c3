#include "kernels/cuda/ops.h"

namespace quire::cuda {

namespace {

// Blocks are multiples of 128 bytes, so 16 at a time.
__global__ void copy_blocks_kernel(const std::byte* from, std::byte* to, const int32_t* pairs, int64_t words) {
  const int4* source = reinterpret_cast<const int4*>(from) + pairs[2 * blockIdx.x] * words;
  int4* target = reinterpret_cast<int4*>(to) + pairs[2 * blockIdx.x + 1] * words;
  for (int64_t i = threadIdx.x; i < words; i += blockDim.x) target[i] = source[i];
}

__global__ void scatter_words_kernel(const int32_t* pairs, int64_t count, int32_t* to) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[pairs[2 * i]] = pairs[2 * i + 1];
}

}  // namespace

void copy_blocks(const Context& ctx, const std::byte* from, std::byte* to, const int32_t* pairs, int64_t count,
                 int64_t block_bytes) {
  if (count == 0) return;
  copy_blocks_kernel<<<unsigned(count), 256, 0, ctx.stream>>>(from, to, pairs, block_bytes / 16);
  check_launch("copy_blocks_kernel");
}

void scatter_words(const int32_t* pairs, int64_t count, int32_t* to, StreamHandle stream) {
  if (count == 0) return;
  scatter_words_kernel<<<unsigned((count + 255) / 256), 256, 0, stream>>>(pairs, count, to);
  check_launch("scatter_words_kernel");
}

}  // namespace quire::cuda
