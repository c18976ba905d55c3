#include "kernels/cuda/ops.h"
#include "kernels/cuda/sample_block.cuh"

namespace quire::cuda {

namespace {

__global__ void __launch_bounds__(kSampleThreads)
    sample_kernel(float* all, int64_t ld, int64_t n, const SampleRow* rows, const LogitChange* changes, int32_t* ids) {
  __shared__ SampleShared s;
  const SampleRow plan = rows[blockIdx.x];
  float* logits = all + blockIdx.x * ld;
  for (int32_t i = plan.first + threadIdx.x; i < plan.first + plan.count; i += kSampleThreads) {
    float& x = logits[changes[i].token];
    x = changed(x, changes[i], plan.repetition);
  }
  __syncthreads();
  const int32_t id = sample_block(logits, n, plan.params, plan.uniform, s);
  if (threadIdx.x == 0) ids[blockIdx.x] = id;
}

}  // namespace

void sample_rows(const Context& ctx, const Tensor& logits, const SampleRow* rows, const LogitChange* changes,
                 int32_t* ids) {
  if (logits.rows == 0) return;
  sample_kernel<<<unsigned(logits.rows), kSampleThreads, 0, ctx.stream>>>(
      logits.data.row<float>(0), logits.data.pitch / 4, logits.cols, rows, changes, ids);
  check_launch("sample_kernel");
}

}  // namespace quire::cuda
