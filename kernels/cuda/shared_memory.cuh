// Kernels that need more shared memory than a launch may take unasked.
#pragma once
#include "base/cuda/runtime.h"

namespace quire::cuda {

// Lets the kernel take all that its device has: a limit that is the same for every call, so that threads which launch
// it with different sizes do not lower it for each other. The launch fails if that is not enough.
template <class Kernel>
void allow_shared_memory(Kernel kernel, size_t bytes, const char* what) {
  cudaFuncAttributes now;
  check_status(cudaFuncGetAttributes(&now, kernel), what);
  if (size_t(now.maxDynamicSharedSizeBytes) >= bytes) return;
  const int most = int(device_info(current_device()).shared_per_block) - int(now.sharedSizeBytes);
  check_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), what);
}

}  // namespace quire::cuda
