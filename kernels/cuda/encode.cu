#include "kernels/cuda/encode.h"

#include "kernels/cuda/warp.cuh"
#include "kernels/math.h"

namespace quire::cuda {

namespace {

// What one block writes: rows [r0, r0 + n) of `to`, which share their scales, with where their values come from.
struct Job {
  Tensor to;
  int64_t r0, n;
  const float* x;        // of the first row, but for `gather`
  const uint16_t* half;  // seal
  int64_t half_pitch;    // in values
  float inv;             // norm

  __device__ float at(const EncodePlan& p, int64_t i, int64_t c) const {
    switch (p.from) {
      case RowsFrom::plain:
        return (p.gather ? p.x + p.gather[r0 + i] * p.ld : x + i * p.ld)[c];
      case RowsFrom::norm:
        return x[c] * inv * p.weight[c];
      case RowsFrom::glu:
        return silu(x[c]) * x[to.cols + c];
      case RowsFrom::append:
        return finite(x[c], 65504.0f);
      default:
        return f16_to_f32(half[i * half_pitch + c]);
    }
  }
};

__device__ int64_t span_of(const Tensor& t) { return t.scale.ptr && t.scale.pitch != 0 ? t.scale.rows : 1; }

__device__ Job make_job(const EncodePlan& p, int64_t index, float* shared) {
  Job job{};
  if (p.from == RowsFrom::append || p.from == RowsFrom::seal) {
    const KvTarget& kv = p.kv;
    const bool seals = p.from == RowsFrom::seal;
    const int64_t spans = seals ? kPageTokens / kv.format.span : 1;
    const int64_t span = index % spans, head = index / spans % kv.kv_heads, item = index / spans / kv.kv_heads;
    const int64_t page = seals ? kv.sealed[2 * item + 1] : kv.pages[item];
    job.to = kv_part(kv.pool + (page * kv.kv_heads + head) * kv.block_bytes, kv.format, kv.part, kv.head_dim,
                     &kv.static_scale);
    job.n = seals ? kv.format.span : 1;
    job.r0 = seals ? span * kv.format.span : kv.positions[item] % kPageTokens;
    if (seals) {
      const std::byte* open = kv.open_pool + (kv.sealed[2 * item] * kv.kv_heads + head) * kv.open_block_bytes;
      job.half_pitch = kv.open_part.code_pitch / 2;
      job.half = reinterpret_cast<const uint16_t*>(open + kv.open_part.codes) + job.r0 * job.half_pitch;
    } else {
      job.x = p.x + item * p.ld + head * kv.head_dim;
    }
    return job;
  }
  const int64_t span = span_of(p.to);
  job.to = p.to;
  job.r0 = index * span;
  job.n = p.to.rows - job.r0 < span ? p.to.rows - job.r0 : span;
  job.x = p.x + job.r0 * p.ld;
  if (p.from == RowsFrom::norm) {
    const float mean = __fdiv_rn(sum_of_squares_block(job.x, p.to.cols, shared), float(p.to.cols));
    job.inv = __fdiv_rn(1.0f, __fsqrt_rn(mean + p.eps));
  }
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
  constexpr int kPerByte = 8 / Bits, kMask = (1 << Bits) - 1;
  for (int64_t b = threadIdx.x; b < (cols + kPerByte - 1) / kPerByte; b += blockDim.x) {
    int byte = 0;
#pragma unroll
    for (int k = 0; k < kPerByte; ++k) {
      const int64_t c = b * kPerByte + k;
      if (c < cols) byte |= ((fields[c] >> shift) & kMask) << (Bits * k);
    }
    out[b] = uint8_t(byte);
  }
}

// min and max of a group, or the sum of its codes: by warp where its columns lie in one group.
__device__ void see(int* lo, int* hi, bool active, bool whole, int key) {
  const int least = active ? key : 0x7fffffff, most = active ? key : -0x7fffffff - 1;
  if (whole) {
    const int l = __reduce_min_sync(kWholeWarp, least), m = __reduce_max_sync(kWholeWarp, most);
    if (threadIdx.x % 32 == 0) {
      atomicMin(lo, l);
      atomicMax(hi, m);
    }
  } else if (active) {
    atomicMin(lo, least);
    atomicMax(hi, most);
  }
}
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
  const bool sums = C::kSums && t.aux.ptr;
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
          see(w.lo + g, w.hi + g, active, whole, ordered(x));
          continue;
        }
        const uint8_t field = C::field_of(t, active ? c : 0, x, w.grids[g]);
        if (active) w.fields[stored_column(t.order, t.cols, c)] = field;
        if (sums) add(w.sums + g, active, whole, int8_t(field));
      }
      if (pass == 1) write_row<C>(t, job.r0 + i, w, sums);
    }
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
__global__ void encode_kernel(const __grid_constant__ EncodePlan p) {
  extern __shared__ int memory[];
  __shared__ float shared;
  const Job job = make_job(p, blockIdx.x, &shared);
  if constexpr (requires { typename C::Grid; }) {
    __syncthreads();  // `shared` is used again
    encode_scaled<C>(p, job, memory, &shared);
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
  const bool cache = p.from == RowsFrom::append || p.from == RowsFrom::seal;
  const int64_t cols = cache ? p.kv.head_dim : p.to.cols;
  const int32_t group = cache ? p.kv.format.group : p.to.group;
  const int64_t span = !cache && p.to.scale.ptr && p.to.scale.pitch != 0 ? p.to.scale.rows : 1;
  int64_t blocks = (rows + span - 1) / span;
  if (p.from == RowsFrom::append) blocks = rows * p.kv.kv_heads;
  if (p.from == RowsFrom::seal) blocks = rows * p.kv.kv_heads * (kPageTokens / p.kv.format.span);
  if (blocks == 0 || cols == 0) return;
  size_t bytes = 0;
  if constexpr (requires { typename C::Grid; }) {
    const int64_t groups = group > 0 ? (cols + group - 1) / group : 1;
    bytes = size_t(groups) * (3 * sizeof(int) + sizeof(typename C::Grid)) + size_t(cols);
    if (bytes > 48 * 1024) {
      check_status(cudaFuncSetAttribute(encode_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
                   "encoding rows: too many groups in a row for a block's shared memory");
    }
  }
  const int threads = int(cols >= 1024 ? 256 : cols >= 128 ? 128 : 64);
  encode_kernel<C><<<unsigned(blocks), threads, bytes, ctx.stream>>>(p);
  check_launch("encode_kernel");
}

}  // namespace

void encode_rows(const Context& ctx, const EncodePlan& plan, int64_t rows) {
  const bool cache = plan.from == RowsFrom::append || plan.from == RowsFrom::seal;
  visit(cache ? plan.kv.format.codec : plan.to.codec, [&]<class C>(C) { launch<C>(ctx, plan, rows); });
}

}  // namespace quire::cuda
