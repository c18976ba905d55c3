// PTX of the warp-group tensor core operation of sm_90a: d += a x with a in registers (64 rows, in four warps' mma.sync
// order) and x in shared memory (tokens of 128 bytes, 16-byte chunks exchanged by the row: the 128-byte swizzle).
#pragma once
#include <cstdint>

namespace quire::cuda {

// x at a shared address on 1024 bytes; a step of 32 columns further on is + 2.
__device__ __forceinline__ uint64_t wgmma_operand(uint32_t address) {
  return uint64_t(address >> 4 & 0x3fff) | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_wait_all() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
// What this thread copied to shared memory is seen by wgmma (after a barrier).
__device__ __forceinline__ void fence_shared_for_wgmma() { asm volatile("fence.proxy.async;" ::: "memory"); }

// The accumulator as asm sees it: 64 rows of 128 tokens over 128 threads.
#define QUIRE_WGMMA_SUMS                                                             \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define QUIRE_WGMMA_8(c, i)                                                                                          \
  "+" c(d[i]), "+" c(d[i + 1]), "+" c(d[i + 2]), "+" c(d[i + 3]), "+" c(d[i + 4]), "+" c(d[i + 5]), "+" c(d[i + 6]), \
      "+" c(d[i + 7])
#define QUIRE_WGMMA(name, shape_and_types, Sum, c, scales)                                                \
  __device__ __forceinline__ void name(Sum(&d)[64], const uint32_t(&a)[4], uint64_t x) {                  \
    asm volatile("wgmma.mma_async.sync.aligned." shape_and_types " " QUIRE_WGMMA_SUMS                     \
                 ", {%64, %65, %66, %67}, %68, " scales ";"                                               \
                 : QUIRE_WGMMA_8(c, 0), QUIRE_WGMMA_8(c, 8), QUIRE_WGMMA_8(c, 16), QUIRE_WGMMA_8(c, 24),  \
                   QUIRE_WGMMA_8(c, 32), QUIRE_WGMMA_8(c, 40), QUIRE_WGMMA_8(c, 48), QUIRE_WGMMA_8(c, 56) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(x));                                   \
  }
QUIRE_WGMMA(wgmma_s8, "m64n128k32.s32.s8.s8", int, "r", "1")
QUIRE_WGMMA(wgmma_f16, "m64n128k16.f32.f16.f16", float, "f", "1, 1, 1, 0")
QUIRE_WGMMA(wgmma_e4m3, "m64n128k32.f32.e4m3.e4m3", float, "f", "1, 1, 1")
#undef QUIRE_WGMMA
#undef QUIRE_WGMMA_8
#undef QUIRE_WGMMA_SUMS
#else  // never launched there (wide_supports)
__device__ __forceinline__ void wgmma_fence() {}
__device__ __forceinline__ void wgmma_commit() {}
__device__ __forceinline__ void wgmma_wait_all() {}
__device__ __forceinline__ void fence_shared_for_wgmma() {}
template <int N>
__device__ __forceinline__ void wgmma_s8(int (&)[N], const uint32_t (&)[4], uint64_t) {
  __trap();
}
#endif

// The accumulators are read after the wait before this call, not earlier.
template <int N>
__device__ __forceinline__ void keep_after_wait(int (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(d[i])::"memory");
}
template <int N>
__device__ __forceinline__ void keep_after_wait(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

}  // namespace quire::cuda
