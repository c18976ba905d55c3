// Programmatic dependent launch (Hopper): a kernel starts while the one before it still runs, does what does not depend
// on that, such as fetching weights, and waits for the rest. Elsewhere a launch like any other.
#pragma once
#include <cuda_runtime.h>

#include <type_traits>

#include "base/cuda/runtime.h"

namespace quire::cuda {

// All that was enqueued before is done. A kernel that launch_early starts calls it in every thread, before it reads
// what earlier work wrote and before it writes at all.
__device__ __forceinline__ void wait_for_earlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Once every block has said so (or ended), the next kernel may start beside this one, if launch_early starts it. What
// is then on the device can always end: it waits only for blocks that run.
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether kernels of this build wait on the current device: code made for older ones does not (launch.cu).
bool launches_early();

// early: false launches as usual.
template <class... Params>
void launch_early(const char* name, bool early, void (*kernel)(Params...), dim3 grid, unsigned threads, size_t shared,
                  cudaStream_t stream, const std::type_identity_t<Params>&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early && launches_early() ? 1 : 0;
  check_status(cudaLaunchKernelEx(&config, kernel, args...), name);
}

}  // namespace quire::cuda
