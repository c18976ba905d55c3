#include "kernels/cuda/ceilings.h"

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace quire::cuda {

namespace {

__global__ void read_all_kernel(const uint4* p, int64_t n, uint32_t* sink) {
  uint32_t sum = 0;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + 3 * step < n; i += 4 * step) {
    const uint4 a = __ldcs(p + i), b = __ldcs(p + i + step), c = __ldcs(p + i + 2 * step), d = __ldcs(p + i + 3 * step);
    sum ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
  }
  if (sum == 0x12345678u) *sink = sum;  // or the loads would be dropped
}

__global__ void hold_kernel(uint64_t nanoseconds) {
  uint64_t begin, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do {
    __nanosleep(1000);
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - begin < nanoseconds);
}

enum class Unit : uint8_t { f16, int8, e4m3 };
template <Unit>
struct Sums {
  using type = float;
};
template <>
struct Sums<Unit::int8> {
  using type = int;
};

constexpr int kUnrolled = 16, kGroups = 4;  // products from wait to wait; warp groups a block
// Of one warp group between two waits: 64 rows, 128 tokens, 32 bytes along k.
constexpr double kProducts = 2.0 * 64 * 128 * 32 * kUnrolled;

__device__ __forceinline__ uint32_t random_word(uint32_t i) {
  uint32_t h = i * 2654435761u;
  h = (h ^ h >> 16) * 0x85ebca6bu;
  return h ^ h >> 13;
}

// Random operands, as zeros take less power and run faster; floats stay small and finite.
template <Unit U>
__device__ __forceinline__ uint32_t operand_word(uint32_t i) {
  return U == Unit::int8  ? random_word(i)
         : U == Unit::f16 ? random_word(i) & 0xbbffbbffu
                          : random_word(i) & 0xb7b7b7b7u;
}

__global__ void fill_kernel(uint32_t* p, int64_t words) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < words; i += step)
    p[i] = random_word(uint32_t(i));
}

template <Unit U>
__device__ __forceinline__ void products(typename Sums<U>::type (&d)[64], const uint32_t (&a)[4][4], uint64_t x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kUnrolled; ++i) {
    if constexpr (U == Unit::f16) wgmma_f16(d, a[i % 4], x + 2 * (i % 4));
    if constexpr (U == Unit::int8) wgmma_s8(d, a[i % 4], x + 2 * (i % 4));
    if constexpr (U == Unit::e4m3) wgmma_e4m3(d, a[i % 4], x + 2 * (i % 4));
  }
  wgmma_commit();
  wgmma_wait_all();
  keep_after_wait(d);
#else
#pragma unroll
  for (int i = 0; i < kUnrolled; ++i) {
#pragma unroll
    for (int n = 0; n < 16; ++n) {
      auto& sums = *reinterpret_cast<typename Sums<U>::type(*)[4]>(&d[4 * n]);
      const uint32_t b0 = uint32_t(x) + uint32_t(n), b1 = uint32_t(x) ^ uint32_t(i);
      if constexpr (U == Unit::f16) mma_f16(sums, a[i % 4], b0 & 0xbbffbbffu, b1 & 0xbbffbbffu);
      if constexpr (U == Unit::int8) mma_s8(sums, a[i % 4], b0, b1);
      if constexpr (U == Unit::e4m3) mma_e4m3(sums, a[i % 4], b0 & 0xb7b7b7b7u, b1 & 0xb7b7b7b7u);
    }
  }
#endif
}

template <Unit U>
__global__ void __launch_bounds__(128 * kGroups) tensor_kernel(int rounds, uint32_t* sink) {
  __shared__ alignas(1024) uint32_t tokens[128 * 32];
  for (uint32_t i = threadIdx.x; i < 128 * 32; i += blockDim.x) tokens[i] = operand_word<U>(i + 77 * blockIdx.x);
  fence_shared_for_wgmma();
  __syncthreads();
  uint32_t a[4][4];
#pragma unroll
  for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = operand_word<U>(16 * threadIdx.x + i);
  typename Sums<U>::type d[64] = {};
  const uint64_t x = wgmma_operand(shared_address(tokens));
  for (int r = 0; r < rounds; ++r) products<U>(d, a, x);
  uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < 64; ++i) sum ^= uint32_t(int64_t(d[i]));
  if (sum == 0x12345678u) *sink = sum;
}

// The fastest of some runs, in seconds: the first ones warm up.
template <class Fn>
double fastest(Fn&& enqueue, StreamHandle stream) {
  constexpr int kRuns = 7;
  double best = 0.0;
  Event begin(true), end(true);
  for (int run = 0; run < kRuns; ++run) {
    begin.record(stream);
    enqueue();
    end.record(stream);
    end.synchronize();
    const double seconds = end.seconds_since(begin);
    if (run == 0 || seconds < best) best = seconds;
  }
  return best;
}

template <Unit U>
double tensor_rate(int blocks, uint32_t* sink, StreamHandle stream) {
  // f16: 16 numbers in the 32 bytes along k.
  const double numbers = U == Unit::f16 ? 0.5 : 1.0;
  constexpr int kRounds = 400;
  const double seconds = fastest(
      [&] {
        tensor_kernel<U><<<unsigned(blocks), 128 * kGroups, 0, stream>>>(kRounds, sink);
        check_launch("tensor_kernel");
      },
      stream);
  return kProducts * numbers * kGroups * kRounds * blocks / seconds;
}

struct DeviceMemory {
  explicit DeviceMemory(size_t bytes) : p(allocate(bytes)) {}
  ~DeviceMemory() { release(p); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  std::byte* p;
};

}  // namespace

void read_all(const std::byte* p, int64_t bytes, int blocks, uint32_t* sink, StreamHandle stream) {
  read_all_kernel<<<unsigned(blocks), 512, 0, stream>>>(reinterpret_cast<const uint4*>(p), bytes / 16, sink);
  check_launch("read_all_kernel");
}

void hold(double seconds, StreamHandle stream) {
  hold_kernel<<<1, 1, 0, stream>>>(uint64_t(seconds * 1e9));
  check_launch("hold_kernel");
}

Ceilings measure_ceilings(StreamHandle stream) {
  const DeviceInfo& device = device_info(current_device());
  Ceilings c;
  constexpr int64_t kMost = int64_t(2) << 30, kUnit = int64_t(1) << 24;
  const int64_t half = free_memory() / 2;
  c.read_bytes = (half < kMost ? half : kMost) / kUnit * kUnit + kUnit;
  const DeviceMemory memory{size_t(c.read_bytes)};
  auto* sink = reinterpret_cast<uint32_t*>(memory.p);
  const int sms = device.multiprocessors;
  fill_kernel<<<4096, 256, 0, stream>>>(sink, c.read_bytes / 4);
  check_launch("fill_kernel");
  const double seconds = fastest([&] { read_all(memory.p, c.read_bytes, 4 * sms, sink, stream); }, stream);
  c.read = double(c.read_bytes) / seconds;
  c.f16 = tensor_rate<Unit::f16>(sms, sink, stream);
  c.int8 = tensor_rate<Unit::int8>(sms, sink, stream);
  const bool has_e4m3 = device.major > 8 || (device.major == 8 && device.minor == 9);
  if (has_e4m3) c.e4m3 = tensor_rate<Unit::e4m3>(sms, sink, stream);
  return c;
}

}  // namespace quire::cuda
