#include "kernels/cuda/encode.h"

#include "kernels/cuda/encode_quads.cuh"
#include "kernels/cuda/encode_row.cuh"
#include "kernels/cuda/shared_memory.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/math.h"

namespace quire::cuda {

namespace {

constexpr int kMostThreads = 1024;

// What one block writes: rows [r0, r0 + n) of `to`, which share their scales, with where their values come from.
struct Job {
  Tensor to;
  int64_t r0, n;
  const float* x;      // of the first row, but for `gather`
  float inv;           // norm
  const float* stash;  // the values of the one row, in shared memory; null: they are computed where they are asked for

  __device__ float at(const EncodePlan& p, int64_t i, int64_t c) const { return stash ? stash[c] : source(p, i, c); }
  __device__ float source(const EncodePlan& p, int64_t i, int64_t c) const {
    switch (p.from) {
      case RowsFrom::plain: {
        const float value = (p.gather ? p.x + p.gather[r0 + i] * p.ld : x + i * p.ld)[c];
        return fabsf(value) >= p.zero_from ? 0.0f : value;
      }
      case RowsFrom::norm:
        return x[c] * inv * p.weight[c];
      case RowsFrom::gelu_glu:
        return gelu_tanh(x[c]) * x[to.cols + c];
      default:
        return silu(x[c]) * x[to.cols + c];
    }
  }
};

__device__ int64_t span_of(const Tensor& t) { return t.scale.ptr && t.scale.pitch != 0 ? t.scale.rows : 1; }

// to[c] = at(c), several loads in flight.
template <class At>
__device__ void fill(float* to, int64_t n, At at) {
  constexpr int kAtOnce = 4;
  for (int64_t c0 = threadIdx.x; c0 < n; c0 += kAtOnce * blockDim.x) {
    float x[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) x[k] = c0 + k * blockDim.x < n ? at(c0 + k * blockDim.x) : 0.0f;
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (c0 + k * blockDim.x < n) to[c0 + k * blockDim.x] = x[k];
    }
  }
  __syncthreads();
}

// stash: room for a row in shared memory, or null.
__device__ Job make_job(const EncodePlan& p, int64_t index, float* stash, float* shared) {
  Job job{};
  const int64_t span = span_of(p.to), cols = p.to.cols;
  job.to = p.to;
  job.r0 = index * span;
  job.n = p.to.rows - job.r0 < span ? p.to.rows - job.r0 : span;
  job.x = p.x + job.r0 * p.ld;
  const float* row = job.x;
  if (p.from == RowsFrom::norm) {
    if (stash) fill(stash, cols, [&](int64_t c) { return job.x[c]; });
    if (stash) row = stash;
    const float mean = __fdiv_rn(sum_of_squares_block(row, cols, shared), float(cols));
    job.inv = __fdiv_rn(1.0f, __fsqrt_rn(mean + p.eps));
    if (stash) fill(stash, cols, [&](int64_t c) { return stash[c] * job.inv * p.weight[c]; });
  } else if (stash) {
    fill(stash, cols, [&](int64_t c) { return job.source(p, 0, c); });
  }
  job.stash = stash;
  return job;
}

// A group's range, grid and sum of codes, and a row's codes, in shared memory.
template <class Grid>
struct Work {
  int *lo, *hi, *sums;
  Grid* grids;
  uint8_t* fields;
  __device__ Work(int* memory, int64_t groups) {
    lo = memory;
    hi = lo + groups;
    sums = hi + groups;
    grids = reinterpret_cast<Grid*>(sums + groups);
    fields = reinterpret_cast<uint8_t*>(grids + groups);
  }
};

template <class C>
__device__ void find_grids(const Job& job, Work<typename C::Grid>& w, ScaleSource source, float* shared) {
  const Tensor& t = job.to;
  const auto range_of = [&](int lo, int hi) {
    Range range(C::kLimit);
    range.lo = lo;
    range.hi = hi;
    return range;
  };
  if constexpr (requires { &C::first_level; }) {
    if (threadIdx.x == 0) {
      int lo = 0x7fffffff, hi = -0x7fffffff - 1;
      for (int64_t g = 0; g < t.groups(); ++g) {
        lo = min(lo, w.lo[g]);
        hi = max(hi, w.hi[g]);
      }
      const Range row = range_of(lo, hi);
      *shared = C::first_level(t, job.r0, row.least(), row.most(), source);
    }
    __syncthreads();
  }
  for (int64_t g = threadIdx.x; g < t.groups(); g += blockDim.x) {
    const Range range = range_of(w.lo[g], w.hi[g]);
    if constexpr (requires { &C::first_level; }) {
      w.grids[g] = C::grid(t, job.r0, g, *shared, range.least(), range.most(), source);
    } else {
      w.grids[g] = C::grid(t, job.r0, g, range.least(), range.most(), source);
    }
  }
  __syncthreads();
}

template <int Bits>
__device__ void pack_plane(uint8_t* out, const uint8_t* fields, int64_t cols, int shift) {
  for (int64_t b = threadIdx.x; b < (cols * Bits + 7) / 8; b += blockDim.x)
    out[b] = packed<Bits>(fields, cols, b, shift);
}

// The sum of a group's codes: by warp where its columns lie in one group.
__device__ void add(int* sum, bool active, bool whole, int code) {
  if (whole) {
    const int s = __reduce_add_sync(kWholeWarp, active ? code : 0);
    if (threadIdx.x % 32 == 0) atomicAdd(sum, s);
  } else if (active) {
    atomicAdd(sum, code);
  }
}

// Whole bytes of a row's planes from its codes, and the sums beside them.
template <class C>
__device__ void write_row(const Tensor& t, int64_t row, const Work<typename C::Grid>& w, bool sums) {
  using Planes = typename C::Planes;
  __syncthreads();
  pack_plane<Planes::kLow>(t.data.row<uint8_t>(row), w.fields, t.cols, 0);
  if constexpr (Planes::kHigh > 0) pack_plane<Planes::kHigh>(t.high.row<uint8_t>(row), w.fields, t.cols, Planes::kLow);
  for (int64_t g = threadIdx.x; sums && g < t.groups(); g += blockDim.x) {
    t.aux.row<int32_t>(row)[g] = w.sums[g];
    w.sums[g] = 0;
  }
  __syncthreads();
}

// Scaled codes: a pass for the ranges, then grids, then a pass for every row's codes.
template <class C>
__device__ void encode_scaled(const EncodePlan& p, const Job& job, int* memory, float* shared) {
  const Tensor& t = job.to;
  const ScaleSource source = scale_source(t);
  const bool sums = C::kSums && t.aux.ptr, one = t.groups() == 1;
  Work<typename C::Grid> w(memory, t.groups());
  for (int64_t g = threadIdx.x; g < t.groups(); g += blockDim.x) {
    w.lo[g] = 0x7fffffff;
    w.hi[g] = -0x7fffffff - 1;
    w.sums[g] = 0;
  }
  __syncthreads();
#pragma unroll 1
  for (int pass = source == ScaleSource::found ? 0 : 1; pass < 2; ++pass) {
    if (pass == 1) find_grids<C>(job, w, source, shared);
    int least = 0x7fffffff, most = -0x7fffffff - 1, sum = 0;  // of one group for all columns
#pragma unroll 1
    for (int64_t i = 0; i < job.n; ++i) {
      // By whole warps; whole: their 32 columns lie in one group.
      const bool whole = t.group == 0 || t.group % 32 == 0;
#pragma unroll 1
      for (int64_t c0 = threadIdx.x / 32 * 32; c0 < t.cols; c0 += blockDim.x) {
        const int64_t c = c0 + threadIdx.x % 32, g = t.group_of(c < t.cols ? c : t.cols - 1);
        const bool active = c < t.cols;
        const float x = active ? job.at(p, i, c) : 0.0f;
        if (pass == 0) {
          const int key = ordered(x);
          if (!one) {
            see(w.lo + g, w.hi + g, active, whole, key);
          } else if (active) {
            least = min(least, key);
            most = max(most, key);
          }
          continue;
        }
        const uint8_t field = C::field_of(t, active ? c : 0, x, w.grids[g]);
        if (active) w.fields[stored_column(t.order, t.cols, c)] = field;
        if (!sums) continue;
        if (!one) {
          add(w.sums + g, active, whole, int8_t(field));
        } else if (active) {
          sum += int8_t(field);
        }
      }
      if (pass == 1 && one && sums) {
        add(w.sums, true, true, sum);
        sum = 0;
      }
      if (pass == 1) write_row<C>(t, job.r0 + i, w, sums);
    }
    if (pass == 0 && one) see_range(w.lo, w.hi, least, most);
    __syncthreads();
  }
}

template <class C>
__device__ void encode_gguf(const EncodePlan& p, const Job& job) {
  const Tensor& t = job.to;
  for (int64_t i = 0; i < job.n; ++i) {
    for (int64_t g = threadIdx.x; g < (t.cols + 31) / 32; g += blockDim.x) {
      float x[32];
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        x[j] = g * 32 + j < t.cols ? finite(job.at(p, i, g * 32 + j), 65504.0f) : x[0];
      }
      C::encode_block(t.data.row<uint8_t>(job.r0 + i) + g * C::kBytes, x, scale_source(t));
    }
  }
}

template <class C>
__global__ void __launch_bounds__(kMostThreads) encode_kernel(const __grid_constant__ EncodePlan p, int64_t stashed) {
  extern __shared__ int memory[];
  __shared__ float shared;
  const Job job = make_job(p, blockIdx.x, stashed > 0 ? reinterpret_cast<float*>(memory) : nullptr, &shared);
  if constexpr (requires { typename C::Grid; }) {
    __syncthreads();  // `shared` is used again
    encode_scaled<C>(p, job, memory + stashed, &shared);
  } else if constexpr (requires { &C::encode_block; }) {
    encode_gguf<C>(p, job);
  } else {
    for (int64_t i = 0; i < job.n; ++i) {
      for (int64_t c = threadIdx.x; c < job.to.cols; c += blockDim.x) C::put(job.to, job.r0 + i, c, job.at(p, i, c));
    }
  }
}

template <class C>
void launch(const Context& ctx, const EncodePlan& p, int64_t rows) {
  const int64_t cols = p.to.cols, group = p.to.group;
  const int64_t span = p.to.scale.ptr && p.to.scale.pitch != 0 ? p.to.scale.rows : 1;
  const int64_t blocks = (rows + span - 1) / span;
  if (blocks == 0 || cols == 0) return;
  constexpr size_t kMostStashed = 96 * 1024;  // what every device has that this is built for
  constexpr bool kScaled = requires { typename C::Grid; };
  size_t bytes = 0;
  if constexpr (kScaled) {
    const int64_t groups = group > 0 ? (cols + group - 1) / group : 1;
    bytes = size_t(groups) * (3 * sizeof(int) + sizeof(typename C::Grid)) + size_t(cols);
  }
  // Values that are asked for again: for ranges and then for codes, or squared and then scaled.
  int64_t stashed = span == 1 && (kScaled || p.from == RowsFrom::norm) ? (cols + 3) / 4 * 4 : 0;
  if (bytes + size_t(stashed) * sizeof(float) > kMostStashed) stashed = 0;
  bytes += size_t(stashed) * sizeof(float);
  if (bytes > 47 * 1024) {
    allow_shared_memory(encode_kernel<C>, bytes, "encoding rows: shared memory");
  }
  const int threads = int(cols >= 8192   ? kMostThreads
                          : cols >= 4096 ? 512
                          : cols >= 1024 ? 256
                          : cols >= 128  ? 128
                                         : 64);
  encode_kernel<C><<<unsigned(blocks), threads, bytes, ctx.stream>>>(p, stashed);
  check_launch("encode_kernel");
}

}  // namespace

void encode_rows(const Context& ctx, const EncodePlan& plan, int64_t rows) {
  visit(plan.to.codec, [&]<class C>(C) {
    if constexpr (QuadCodec<C>) {
      if (encode_quads<C>(ctx, plan, rows)) return;
    }
    if constexpr (requires { &C::encode; }) launch<C>(ctx, plan, rows);
  });
}

}  // namespace quire::cuda
