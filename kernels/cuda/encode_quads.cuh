// Rows whose values stay in registers from reading to writing: what a model's layers do between matmuls. A block takes
// a row, a thread every blockDim.x-th quad (4 columns) of it. Formats of whole bytes with a scale a row or a group of
// 32, 64 or 128 (the quads of a group are neighbouring lanes), and halfs; floats on 16 bytes, rows in natural order
// on 8.
#pragma once
#include "kernels/cuda/encode.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/shared_memory.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/math.h"

namespace quire::cuda {

constexpr int kMostQuadThreads = 1024;

template <class C>
concept HalfCodec = std::is_same_v<C, F16> || std::is_same_v<C, BF16>;
template <class C>
concept QuadCodec = std::is_same_v<C, Int8> || std::is_same_v<C, E4M3> || HalfCodec<C>;

template <class Fn>
__device__ __forceinline__ float4 quad_of(float4 a, float4 b, Fn&& fn) {
  return {fn(a.x, b.x), fn(a.y, b.y), fn(a.z, b.z), fn(a.w, b.w)};
}

// Quad q of the row at x; `up` is the second half of a gated row.
__device__ __forceinline__ float4 load_quad(const EncodePlan& p, const float* x, const float* up, int q) {
  const float4 a = reinterpret_cast<const float4*>(x)[q];
  switch (p.from) {
    case RowsFrom::norm:
      return a;
    case RowsFrom::plain:
      return quad_of(a, a, [&](float v, float) { return fabsf(v) >= p.zero_from ? 0.0f : v; });
    case RowsFrom::gelu_glu:
      return quad_of(a, reinterpret_cast<const float4*>(up)[q], [](float g, float u) { return gelu_tanh(g) * u; });
    default:
      return quad_of(a, reinterpret_cast<const float4*>(up)[q], [](float g, float u) { return silu(g) * u; });
  }
}

// Smallest and largest as keys (`ordered`), and a sum, over neighbouring lanes, or over the block.
struct QuadSpan {
  int least, most, sum;
  static __device__ QuadSpan none() { return {0x7fffffff, -0x7fffffff - 1, 0}; }
  __device__ void see(float v) {
    const int key = ordered(v);
    least = min(least, key);
    most = max(most, key);
  }
  __device__ void merge(const QuadSpan& o) {
    least = min(least, o.least);
    most = max(most, o.most);
    sum += o.sum;
  }
  __device__ void over_lanes(int lanes) {
    if (lanes == 32) {
      least = __reduce_min_sync(kWholeWarp, least);
      most = __reduce_max_sync(kWholeWarp, most);
      sum = __reduce_add_sync(kWholeWarp, sum);
      return;
    }
    for (int step = lanes / 2; step > 0; step /= 2) {
      merge({__shfl_xor_sync(kWholeWarp, least, step), __shfl_xor_sync(kWholeWarp, most, step),
             __shfl_xor_sync(kWholeWarp, sum, step)});
    }
  }
  // Complete in every thread of the first warp. shared: one a warp.
  __device__ void over_block(QuadSpan* shared) {
    over_lanes(32);
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    if (lane == 0) shared[warp] = *this;
    __syncthreads();
    if (warp > 0) return;
    *this = lane < int(blockDim.x) / 32 ? shared[lane] : none();
    over_lanes(32);
  }
};

// Words of lane `from` of each thread's group.
template <class T>
__device__ T from_lane(const T& value, int from) {
  static_assert(sizeof(T) % 4 == 0);
  uint32_t words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (uint32_t& word : words) word = __shfl_sync(kWholeWarp, word, from);
  T out;
  memcpy(&out, words, sizeof(T));
  return out;
}

template <class C>
__device__ typename C::Grid grid_of(const Tensor& t, int64_t r, int64_t g, const QuadSpan& span, ScaleSource source) {
  Range range(C::kLimit);
  range.lo = span.least;
  range.hi = span.most;
  return C::grid(t, r, g, range.least(), range.most(), source);
}

template <class C, int kQuads>
__global__ void __launch_bounds__(kMostQuadThreads) encode_quads_kernel(const __grid_constant__ EncodePlan p) {
  extern __shared__ __align__(16) float stash[];  // norm: the row
  __shared__ QuadSpan spans[kMostQuadThreads / 32];
  let_next_start();
  const Tensor& t = p.to;
  const int64_t r = blockIdx.x;
  const int quads = int(t.cols / 4);
  const float* x = p.x + (p.gather ? p.gather[r] : r) * p.ld;
  float4 v[kQuads], weight[kQuads];
#pragma unroll
  for (int j = 0; j < kQuads; ++j) {
    const int q = int(threadIdx.x) + j * int(blockDim.x);
    v[j] = q < quads ? load_quad(p, x, x + t.cols, q) : float4{};
    if (p.from == RowsFrom::norm) weight[j] = q < quads ? reinterpret_cast<const float4*>(p.weight)[q] : float4{};
  }
  if (p.from == RowsFrom::norm) {
    __shared__ float sum;
#pragma unroll
    for (int j = 0; j < kQuads; ++j) {
      const int q = int(threadIdx.x) + j * int(blockDim.x);
      if (q < quads) reinterpret_cast<float4*>(stash)[q] = v[j];
    }
    __syncthreads();
    const float inv =
        __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(sum_of_squares_block(stash, t.cols, &sum), float(t.cols)) + p.eps));
#pragma unroll
    for (int j = 0; j < kQuads; ++j) {
      v[j] = quad_of(v[j], weight[j], [&](float a, float w) { return a * inv * w; });
    }
  }
  std::byte* row = t.data.row<std::byte>(r);
  if constexpr (HalfCodec<C>) {
#pragma unroll
    for (int j = 0; j < kQuads; ++j) {
      const int q = int(threadIdx.x) + j * int(blockDim.x);
      const uint2 words{C::half(v[j].x) | uint32_t(C::half(v[j].y)) << 16, C::half(v[j].z) | uint32_t(C::half(v[j].w))
                                                                                                 << 16};
      if (q < quads) reinterpret_cast<uint2*>(row)[q] = words;
    }
  } else {
    const ScaleSource source = scale_source(t);
    const int lanes = t.group / 4, first = int(threadIdx.x) % 32 / (lanes > 0 ? lanes : 32) * lanes;
    const bool sums = C::kSums && t.aux.ptr;
    typename C::Grid grid{};
    if (lanes == 0) {
      __shared__ typename C::Grid shared;
      QuadSpan span = QuadSpan::none();
      if (source == ScaleSource::found) {
#pragma unroll
        for (int j = 0; j < kQuads; ++j) {
          if (int(threadIdx.x) + j * int(blockDim.x) >= quads) continue;
          span.see(v[j].x), span.see(v[j].y), span.see(v[j].z), span.see(v[j].w);
        }
        span.over_block(spans);
      }
      if (threadIdx.x == 0) shared = grid_of<C>(t, r, 0, span, source);
      __syncthreads();
      grid = shared;
    }
    QuadSpan all = QuadSpan::none();
#pragma unroll
    for (int j = 0; j < kQuads; ++j) {
      const int q = int(threadIdx.x) + j * int(blockDim.x), g = lanes > 0 ? q / lanes : 0;
      if (lanes > 0) {
        QuadSpan span = QuadSpan::none();
        if (q < quads) span.see(v[j].x), span.see(v[j].y), span.see(v[j].z), span.see(v[j].w);
        span.over_lanes(lanes);
        if (q < quads && int(threadIdx.x) % 32 == first) grid = grid_of<C>(t, r, g, span, source);
        grid = from_lane(grid, first);
      }
      const uint8_t fields[4] = {C::field_of(t, 4 * q, v[j].x, grid), C::field_of(t, 4 * q + 1, v[j].y, grid),
                                 C::field_of(t, 4 * q + 2, v[j].z, grid), C::field_of(t, 4 * q + 3, v[j].w, grid)};
      QuadSpan span = QuadSpan::none();
      for (const uint8_t field : fields) span.sum += int8_t(field);
      if (q < quads) {
        uint32_t word;
        memcpy(&word, fields, 4);
        reinterpret_cast<uint32_t*>(row)[q] = word;
        all.sum += span.sum;
      } else {
        span.sum = 0;
      }
      if (lanes > 0 && sums) {
        span.over_lanes(lanes);
        if (q < quads && int(threadIdx.x) % 32 == first) t.aux.row<int32_t>(r)[g] = span.sum;
      }
    }
    if (lanes == 0 && sums) {
      all.over_block(spans);
      if (threadIdx.x == 0) *t.aux.row<int32_t>(r) = all.sum;
    }
  }
}

// Whether it did: rows of other shapes are left to others.
template <class C>
bool encode_quads(const Context& ctx, const EncodePlan& p, int64_t rows) {
  constexpr int64_t kMostQuads = 8 * kMostQuadThreads;
  const auto on = [](const void* ptr, int64_t bytes) { return reinterpret_cast<uintptr_t>(ptr) % bytes == 0; };
  const Tensor& t = p.to;
  const int64_t quads = t.cols / 4;
  const int32_t group = t.group;
  const bool lanes = group == 0 || group == 32 || group == 64 || group == 128;
  const bool span = t.scale.rows <= 1 && t.data.rows == 1 && t.order == Order::natural;
  const bool norm = p.from == RowsFrom::norm;
  constexpr int64_t kMostStashed = 96 * 1024;  // what every device has that this is built for
  if (t.cols % 4 != 0 || quads > kMostQuads || !lanes || !span || p.ld % 4 != 0 || !on(p.x, 16) ||
      (norm && (!on(p.weight, 16) || t.cols * 4 > kMostStashed)) || !on(t.data.ptr, 8) || t.data.pitch % 8 != 0)
    return false;
  if (rows == 0 || quads == 0) return true;
  const int a_thread = quads <= 2048 ? 2 : quads <= 4096 ? 4 : 8;
  const unsigned threads = unsigned(((quads + a_thread - 1) / a_thread + 31) / 32 * 32);
  const size_t bytes = norm ? size_t(t.cols) * sizeof(float) : 0;
  const auto launch = [&](auto* kernel) {
    if (bytes > 46 * 1024) allow_shared_memory(kernel, bytes, "encoding rows: shared memory");
    kernel<<<unsigned(rows), threads, bytes, ctx.stream>>>(p);
    check_launch("encode_quads_kernel");
  };
  if (a_thread == 2) {
    launch(encode_quads_kernel<C, 2>);
  } else if (a_thread == 4) {
    launch(encode_quads_kernel<C, 4>);
  } else {
    launch(encode_quads_kernel<C, 8>);
  }
  return true;
}

}  // namespace quire::cuda
