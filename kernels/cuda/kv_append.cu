#include "kernels/cuda/kv_append.h"

#include <type_traits>

#include "kernels/attention.h"
#include "kernels/context.h"
#include "kernels/cuda/encode_row.cuh"
#include "kernels/cuda/shared_memory.cuh"
#include "quant/formats.h"

namespace quire::cuda {

namespace {

constexpr int kThreads = 128;

// What kv_layout takes and attention reads: linear, groups of any size, scale and offset in one plane.
template <class C>
concept CacheCodec = C::kLinear && C::kGroup == 0 && !requires {
  &C::first_level;
}
&&std::integral_constant<bool, C::row_bytes(64, 1).aux == 0>::value;

template <class Fn, class... Ts>
__device__ void for_cache_codec(CodecList<Ts...>, Codec codec, Fn&& fn) {
  const auto consider = [&]<class C>(C c) {
    if constexpr (CacheCodec<C>) {
      if (codec == id<C>) fn(c);
    }
  };
  (consider(Ts{}), ...);
}

// Rows of values of one head: f32 in shared memory, or an f16 page.
struct Values {
  const float* row;      // of one row; null: half
  const uint16_t* half;  // (rows, cols)
  int64_t pitch;         // of half, in values
  __device__ float at(int64_t i, int64_t c) const { return row ? row[c] : f16_to_f32(half[i * pitch + c]); }
};

// fn(row, column, active) over n rows by whole warps, a warp a row.
template <class Fn>
__device__ void each_value(int n, int cols, Fn&& fn) {
  for (int i = int(threadIdx.x) / 32; i < n; i += kThreads / 32) {
    for (int c = int(threadIdx.x) % 32; c - int(threadIdx.x) % 32 < cols; c += 32)
      fn(i, c < cols ? c : cols - 1, c < cols);
  }
}

// Rows [r0, r0 + n) of a part of a block, whole spans, by a block of threads. memory: part_bytes.
template <class C>
__device__ __noinline__ void encode_part(const Tensor& t, int r0, int n, const Values& x, int* memory) {
  const int cols = int(t.cols), groups = int(t.groups());
  if constexpr (requires { typename C::Grid; }) {
    using Planes = typename C::Planes;
    const ScaleSource source = scale_source(t);
    const int span = int(t.scale.rows), count = n / span * groups;
    int *lo = memory, *hi = lo + count;
    auto* grids = reinterpret_cast<typename C::Grid*>(hi + count);
    auto* fields = reinterpret_cast<uint8_t*>(grids + count);
    for (int j = int(threadIdx.x); j < count; j += kThreads) {
      lo[j] = 0x7fffffff;
      hi[j] = -0x7fffffff - 1;
    }
    __syncthreads();
    const bool whole = t.group == 0 || t.group % 32 == 0;  // a warp's columns lie in one group
    if (source == ScaleSource::found) {
      each_value(n, cols, [&](int i, int c, bool active) {
        const int g = i / span * groups + int(t.group_of(c));
        see(lo + g, hi + g, active, whole, ordered(x.at(i, c)));
      });
    }
    __syncthreads();
    for (int j = int(threadIdx.x); j < count; j += kThreads) {
      Range range(C::kLimit);
      range.lo = lo[j];
      range.hi = hi[j];
      grids[j] = C::grid(t, r0 + j / groups * span, j % groups, range.least(), range.most(), source);
    }
    __syncthreads();
    each_value(n, cols, [&](int i, int c, bool active) {
      if (!active) return;
      const int g = i / span * groups + int(t.group_of(c));
      fields[i * cols + stored_column(t.order, cols, c)] = C::field_of(t, c, x.at(i, c), grids[g]);
    });
    __syncthreads();
    const auto pack = [&]<int Bits>(const Plane& plane, int shift) {
      const int bytes = (cols * Bits + 7) / 8;
      for (int j = int(threadIdx.x); j < n * bytes; j += kThreads) {
        const int i = j / bytes, b = j % bytes;
        plane.row<uint8_t>(r0 + i)[b] = packed<Bits>(fields + i * cols, cols, b, shift);
      }
    };
    pack.template operator()<Planes::kLow>(t.data, 0);
    if constexpr (Planes::kHigh > 0) pack.template operator()<Planes::kHigh>(t.high, Planes::kLow);
  } else {
    each_value(n, cols, [&](int i, int c, bool active) {
      if (active) C::put(t, r0 + i, c, x.at(i, c));
    });
  }
}

__device__ void encode(const Tensor& t, int64_t r0, int n, const Values& x, int* memory) {
  for_cache_codec(Codecs{}, t.codec, [&]<class C>(C) { encode_part<C>(t, int(r0), n, x, memory); });
}

__device__ Tensor part_of(std::byte* block, const KvView& kv, const KvLayout& layout, bool keys) {
  return keys ? kv_keys(block, layout, &kv.k_scale) : kv_values(block, layout, &kv.v_scale);
}

__device__ void seal(const KvView& kv, std::byte* open, std::byte* block, bool keys, int* memory) {
  const Tensor from = part_of(open, kv, kv.open_layout, keys);
  const Values page{nullptr, from.data.row<const uint16_t>(0), from.data.pitch / 2};
  encode(part_of(block, kv, kv.layout, keys), 0, int(kPageTokens), page, memory);
}

// The row of one head, turned if it is a key, finite.
__device__ void take_row(const KvAppend& a, bool keys, int64_t t, int64_t head, const float* cos, float* row) {
  const int64_t dim = a.kv.layout.head_dim, half = keys && a.table ? a.rope_dim / 2 : 0;
  const float* x = keys ? a.k + t * a.k_ld + head * dim : a.v + t * a.v_ld + head * dim;
  const float* sin = cos + half;
  for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
    float y = x[i];
    if (i < half) {
      y = x[i] * cos[i] - x[i + half] * sin[i];
    } else if (i < 2 * half) {
      y = x[i] * cos[i - half] + x[i - half] * sin[i - half];
    }
    row[i] = finite(y, 65504.0f);
  }
}

// A block a row, kv head and side. Blocks of keys also turn the queries that read their head.
__global__ void __launch_bounds__(kThreads) kv_append_kernel(const __grid_constant__ KvAppend a) {
  extern __shared__ int memory[];
  __shared__ float row[kMaxHeadDim];
  const int64_t kv_heads = a.kv.kv_heads;
  const bool keys = blockIdx.x % 2 == 0;
  const int64_t head = blockIdx.x / 2 % kv_heads, t = blockIdx.x / 2 / kv_heads;
  const int32_t slot = a.slots[t];
  if (slot < 0) return;
  const int64_t position = a.positions[t], page = position / kPageTokens, dim = a.kv.layout.head_dim;
  const float* cos = a.table + position * a.rope_dim;
  take_row(a, keys, t, head, cos, row);
  if (keys && a.table) {
    const int64_t half = a.rope_dim / 2, group = a.heads / kv_heads;
    const float* sin = cos + half;
    for (int64_t j = threadIdx.x; j < group * half; j += kThreads) {
      const int64_t i = j % half;
      float* x = a.q + t * a.q_ld + (head * group + j / half) * dim + i;
      const float left = x[0], right = x[half];
      x[0] = left * cos[i] - right * sin[i];
      x[half] = right * cos[i] + left * sin[i];
    }
  }
  __syncthreads();
  const Values values{row, nullptr, 0};
  if (!a.kv.layout.sealed()) {
    std::byte* block = a.kv.block(slot, page, head);
    return encode(part_of(block, a.kv, a.kv.layout, keys), position % kPageTokens, 1, values, memory);
  }
  std::byte* open = a.kv.open_block_of_row(t, slot, head);
  encode(part_of(open, a.kv, a.kv.open_layout, keys), position % kPageTokens, 1, values, memory);
  if (t >= a.single || position % kPageTokens != kPageTokens - 1) return;
  __syncthreads();
  seal(a.kv, open, a.kv.block(slot, page, head), keys, memory);
}

__global__ void __launch_bounds__(kThreads) kv_seal_kernel(const __grid_constant__ KvView kv, const int32_t* pairs) {
  extern __shared__ int memory[];
  const int64_t head = blockIdx.x / 2 % kv.kv_heads, pair = blockIdx.x / 2 / kv.kv_heads;
  std::byte* block = kv.pool + kv_block_offset(kv.layout, pairs[2 * pair + 1], kv.kv_heads, head);
  seal(kv, kv.open_block_at(pairs[2 * pair], head), block, blockIdx.x % 2 == 0, memory);
}

// Shared memory of encode_part for either side.
size_t part_bytes(const KvLayout& layout, int64_t rows) {
  constexpr size_t kMostOfAGrid = 16;
  size_t most = 0;
  for (const KvFormat& f : {layout.k_format, layout.v_format}) {
    const int64_t groups = f.group > 0 ? (layout.head_dim + f.group - 1) / f.group : 1;
    const int64_t spans = rows > f.span ? rows / f.span : 1;
    const size_t bytes = size_t(spans * groups) * (2 * sizeof(int) + kMostOfAGrid) + size_t(rows * layout.head_dim);
    most = bytes > most ? bytes : most;
  }
  return most;
}

template <class Kernel>
void allow(Kernel kernel, size_t bytes) {
  if (bytes <= 46 * 1024) return;  // beside a row of values
  allow_shared_memory(kernel, bytes, "cache append: shared memory");
}

}  // namespace

void kv_append(const Context& ctx, const KvAppend& a, int64_t rows) {
  if (rows == 0) return;
  const bool sealed = a.kv.layout.sealed();
  const size_t bytes = part_bytes(a.kv.layout, sealed ? kPageTokens : 1);
  allow(kv_append_kernel, bytes);
  kv_append_kernel<<<unsigned(2 * rows * a.kv.kv_heads), kThreads, bytes, ctx.stream>>>(a);
  check_launch("kv_append_kernel");
}

void kv_seal(const Context& ctx, const KvView& kv, const int32_t* pairs, int64_t count) {
  if (count == 0) return;
  const size_t bytes = part_bytes(kv.layout, kPageTokens);
  allow(kv_seal_kernel, bytes);
  kv_seal_kernel<<<unsigned(2 * count * kv.kv_heads), kThreads, bytes, ctx.stream>>>(kv, pairs);
  check_launch("kv_seal_kernel");
}

}  // namespace quire::cuda
