// PTX of the tensor cores and of asynchronous copies, sm_80 and later.
#pragma once
#include <cuda_fp16.h>

#include <cstdint>

namespace quire::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// 16 bytes from global to shared memory, past L1; of them only the first `bytes` are read, the rest is zero.
__device__ __forceinline__ void copy16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void copy16_zero(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// Four bytes; zero if not `there`.
__device__ __forceinline__ void copy4_zero(uint32_t to, const void* from, bool there) {
  const int bytes = there ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 16-byte matrices; lane l gives the address of row l % 8 of matrix l / 8 and gets bytes 4 (l % 4) .. of row
// l / 4 of each.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_shared(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_shared(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(address) : "memory");
}
__device__ __forceinline__ void load_shared(float (&x)[2], uint32_t address) {
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x[0]), "=f"(x[1]) : "r"(address) : "memory");
}
__device__ __forceinline__ float load_shared_f32(uint32_t address) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(address) : "memory");
  return x;
}
__device__ __forceinline__ uint32_t load_shared_u32(uint32_t address) {
  uint32_t x;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
  return x;
}
__device__ __forceinline__ uint32_t load_shared_u16(uint32_t address) {
  uint16_t x;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(x) : "r"(address) : "memory");
  return x;
}

#define QUIRE_MMA(name, shape, types, Acc, constraint)                                                    \
  __device__ __forceinline__ void name(Acc(&d)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1) {     \
    asm volatile("mma.sync.aligned." shape ".row.col." types                                              \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                                        \
                 "{%0, %1, %2, %3};"                                                                      \
                 : "+" constraint(d[0]), "+" constraint(d[1]), "+" constraint(d[2]), "+" constraint(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                         \
  }
QUIRE_MMA(mma_s8, "m16n8k32", "s32.s8.s8.s32", int, "r")
QUIRE_MMA(mma_f16, "m16n8k16", "f32.f16.f16.f32", float, "f")
QUIRE_MMA(mma_bf16, "m16n8k16", "f32.bf16.bf16.f32", float, "f")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
QUIRE_MMA(mma_e4m3, "m16n8k32", "f32.e4m3.e4m3.f32", float, "f")
__device__ __forceinline__ uint32_t halfs_of_e4m3(uint16_t codes) {
  uint32_t halfs;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halfs) : "h"(codes));
  return halfs;
}
#else  // never launched there (mma_supports)
__device__ __forceinline__ uint32_t halfs_of_e4m3(uint16_t) { return 0; }
__device__ __forceinline__ void mma_e4m3(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) { __trap(); }
#endif
#undef QUIRE_MMA

}  // namespace quire::cuda
