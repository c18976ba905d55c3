// Attention in attention.h's written order, for every pair of cache formats: the generic path. A block takes one token
// and up to four query heads of one kv head, a warp each for what is done head by head. Codecs are chosen page by page,
// so there is one function a codec and never a pair.
#include "kernels/attention.h"

#include <cmath>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/warp.cuh"
#include "kernels/math.h"
#include "quant/element.h"

namespace quire::cuda {

namespace {

constexpr int kHeads = 4, kThreads = 32 * kHeads;
constexpr int64_t kP = kPageTokens;
constexpr int kMaxGroups = 32;  // groups of 16 channels in a head

struct Args {
  const float* q;
  int64_t ldq;
  float* out;
  int64_t ldo;
  KvView kv;
  const int32_t *slots, *positions;
  int64_t rows, group, chunks;  // chunks: blocks that share the query heads of a kv head
  int64_t window;               // AttentionShape::window
  float softmax_scale;
};

// The token and heads that a block works on now.
struct Item {
  int64_t row, kv_head, head0, position, slot;
  int heads;
};

// Blocks of GGUF are no cache formats.
template <class Fn, class... Ts>
__device__ void for_codec(CodecList<Ts...>, Codec codec, Fn&& fn) {
  const auto consider = [&]<class C>(C c) {
    if constexpr (C::kGroup == 0) {
      if (codec == id<C>) fn(c);
    }
  };
  (consider(Ts{}), ...);
}

__device__ std::byte* block_of(const Args& a, const Item& item, int64_t page, bool open) {
  return open ? a.kv.open_block_of_row(item.row, int32_t(item.slot), item.kv_head)
              : a.kv.block(item.slot, page, item.kv_head);
}
__device__ bool is_open(const Args& a, const Item& item, int64_t page) {
  return (a.kv.layout.k_format.sealed() || a.kv.layout.v_format.sealed()) && page == item.position / kP;
}
__device__ Tensor keys_of(const Args& a, const Item& item, int64_t page) {
  const bool open = is_open(a, item, page);
  return kv_keys(block_of(a, item, page, open), open ? a.kv.open_layout : a.kv.layout, &a.kv.k_scale);
}
__device__ Tensor values_of(const Args& a, const Item& item, int64_t page) {
  const bool open = is_open(a, item, page);
  return kv_values(block_of(a, item, page, open), open ? a.kv.open_layout : a.kv.layout, &a.kv.v_scale);
}

// Lane i mod 16 takes term(i), i = 0 .. n-1, in order; by a warp, the sum in every thread.
template <class Fn>
__device__ float lane_sum(int64_t n, Fn&& add) {
  const int l = threadIdx.x % 32;
  float lane = 0.0f;
  for (int64_t i = l; l < 16 && i < n; i += 16) lane = add(lane, i);
  return __shfl_sync(kWholeWarp, lane_tree(lane), 0);
}

struct Shared {
  float q[kHeads][kMaxHeadDim], folded[kHeads][kMaxHeadDim];
  float scores[kHeads][kSpanTokens];
  float sums[kHeads][kMaxGroups];  // of q a group of channels; of q * offset; of p * offset a group of channels
  // Of the spans joined so far.
  float out[kHeads][kMaxHeadDim], peak[kHeads], total[kHeads];
  float a[kHeads], b[kHeads];  // what they and the next span are multiplied by
};

// Keys [first, first + n) of a page that share their channels' scales.
template <class C>
__device__ void channel_scores(const Item& item, const Tensor& k, int64_t first, int64_t n, Shared& s, int64_t at) {
  const int warp = threadIdx.x / 32;
  if (warp < item.heads) {
    for (int64_t c = threadIdx.x % 32; c < k.cols; c += 32) {
      s.folded[warp][c] = s.q[warp][c] * C::affine(k, first, c).scale;
    }
    const float bias = lane_sum(
        k.cols, [&](float lane, int64_t c) { return fmaf(s.q[warp][c], C::affine(k, first, c).offset, lane); });
    if (threadIdx.x % 32 == 0) s.sums[warp][0] = bias;
  }
  __syncthreads();
  for (int64_t j = threadIdx.x; j < n * item.heads; j += kThreads) {
    const int64_t i = first + j % n, h = j / n;
    float sum = 0.0f;
    for (int64_t c = 0; c < k.cols; ++c) sum = fmaf(s.folded[h][c], value_at<C>(k, i, c), sum);
    s.scores[h][at + i] = sum + s.sums[h][0];
  }
  __syncthreads();
}

template <class C>
__device__ void token_scores(const Item& item, const Tensor& k, int64_t n, Shared& s, int64_t at) {
  const int warp = threadIdx.x / 32;
  for (int64_t g = 0; warp < item.heads && g < k.groups(); ++g) {
    const int64_t c0 = k.group_begin(g);
    const float sum = lane_sum(k.group_end(g) - c0, [&](float lane, int64_t c) { return lane + s.q[warp][c0 + c]; });
    if (threadIdx.x % 32 == 0) s.sums[warp][g] = sum;
  }
  __syncthreads();
  for (int64_t j = threadIdx.x; j < n * item.heads; j += kThreads) {
    const int64_t i = j % n, h = j / n;
    float total = 0.0f;
    for (int64_t g = 0; g < k.groups(); ++g) {
      const AffineParams a = C::affine(k, i, g);
      float sum = 0.0f;
      for (int64_t c = k.group_begin(g); c < k.group_end(g); ++c) sum = fmaf(s.q[h][c], value_at<C>(k, i, c), sum);
      const float term = fmaf(a.offset, s.sums[h][g], a.scale * sum);
      total = g == 0 ? term : total + term;
    }
    s.scores[h][at + i] = total;
  }
  __syncthreads();
}

template <class C>
__device__ __noinline__ void score_page(const Item& item, const Tensor& k, int64_t n, Shared& s, int64_t at) {
  if (k.group != 1) return token_scores<C>(item, k, n, s, at);
  const int64_t span = k.scale.pitch > 0 ? k.scale.rows : n;
  for (int64_t first = 0; first < n; first += span) {
    channel_scores<C>(item, k, first, n - first < span ? n - first : span, s, at);
  }
}

// acc = fma over the page's tokens of (p * scale) * code, for one head and channel.
template <class C>
__device__ __noinline__ float add_values(const Tensor& v, int64_t n, int64_t c, const float* p, float acc) {
  const int64_t g = v.group_of(c);
  for (int64_t i = 0; i < n; ++i) acc = fmaf(p[i] * C::affine(v, i, g).scale, value_at<C>(v, i, c), acc);
  return acc;
}
// The lane of this thread of sum over tokens of p * offset.
template <class C>
__device__ __noinline__ float add_offsets(const Tensor& v, int64_t n, int64_t g, const float* p, float lane) {
  for (int64_t i = threadIdx.x % 32; i < n; i += 16) lane = fmaf(p[i], C::affine(v, i, g).offset, lane);
  return lane;
}

// The first `hidden` of n tokens lie before the window.
__device__ void softmax(const Item& item, int64_t hidden, int64_t n, bool first, Shared& s) {
  const int warp = threadIdx.x / 32, l = threadIdx.x % 32;
  if (warp >= item.heads) return;
  float* row = s.scores[warp];
  for (int64_t i = l; i < hidden; i += 32) row[i] = -1.0e30f;
  __syncwarp();
  float peak = row[0];
  for (int64_t i = l; i < n; i += 32) peak = fmaxf(peak, row[i]);
  for (int width = 16; width > 0; width /= 2) peak = fmaxf(peak, __shfl_xor_sync(kWholeWarp, peak, width));
  for (int64_t i = l; i < n; i += 32) row[i] = exp_f32(row[i] - peak);
  __syncwarp();
  const float total = lane_sum(n, [&](float lane, int64_t i) { return lane + row[i]; });
  if (l != 0) return;
  const float top = first || peak > s.peak[warp] ? peak : s.peak[warp];
  s.a[warp] = first ? 0.0f : exp_f32(s.peak[warp] - top);
  s.b[warp] = exp_f32(peak - top);
  s.total[warp] = first ? total : s.total[warp] * s.a[warp] + total * s.b[warp];
  s.peak[warp] = top;
}

// The values of n tokens from `page` on, weighed, joined with the spans before.
__device__ void join_values(const Args& a, const Item& item, int64_t page0, int64_t n, bool first, Shared& s) {
  const int warp = threadIdx.x / 32, l = threadIdx.x % 32;
  const int64_t channels = a.kv.layout.head_dim, pages = (n + kP - 1) / kP;
  const int32_t v_group = a.kv.layout.v_format.group;
  const int64_t groups = v_group > 0 ? channels / v_group : 1;
  const auto tokens_in = [&](int64_t i) { return n - i * kP < kP ? n - i * kP : kP; };
  for (int64_t g = 0; warp < item.heads && g < groups; ++g) {
    float lane = 0.0f;
    for (int64_t i = 0; i < pages; ++i) {
      const Tensor v = values_of(a, item, page0 + i);
      if (g >= v.groups()) continue;  // an open page has one, without offsets
      for_codec(Codecs{}, v.codec, [&]<class C>(C) {
        if constexpr (C::kLinear && C::kOffset) {
          if (l < 16) lane = add_offsets<C>(v, tokens_in(i), g, s.scores[warp] + i * kP, lane);
        }
      });
    }
    const float sum = lane_tree(lane);
    if (l == 0) s.sums[warp][g] = sum;
  }
  __syncthreads();
  for (int64_t j = threadIdx.x; j < channels * item.heads; j += kThreads) {
    const int64_t c = j % channels, h = j / channels;
    float acc = 0.0f;
    for (int64_t i = 0; i < pages; ++i) {
      const Tensor v = values_of(a, item, page0 + i);
      for_codec(Codecs{}, v.codec, [&]<class C>(C) {
        if constexpr (C::kLinear) acc = add_values<C>(v, tokens_in(i), c, s.scores[h] + i * kP, acc);
      });
    }
    acc = acc + s.sums[h][groups == 1 ? 0 : c / v_group];
    s.out[h][c] = first ? acc : fmaf(acc, s.b[h], s.out[h][c] * s.a[h]);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) attention_kernel(const __grid_constant__ Args a) {
  __shared__ Shared s;
  const int64_t channels = a.kv.layout.head_dim;
  const int64_t chunk = blockIdx.x % a.chunks, kv_head = blockIdx.x / a.chunks % a.kv.kv_heads;
  const int64_t row = blockIdx.x / a.chunks / a.kv.kv_heads, left = a.group - chunk * kHeads;
  const Item item{row,
                  kv_head,
                  kv_head * a.group + chunk * kHeads,
                  a.positions[row],
                  a.slots[row],
                  left < kHeads ? int(left) : kHeads};
  if (item.slot < 0) return;  // padding
  for (int64_t j = threadIdx.x; j < channels * item.heads; j += kThreads) {
    s.q[j / channels][j % channels] = a.q[row * a.ldq + item.head0 * channels + j] * a.softmax_scale;
  }
  __syncthreads();
  const int64_t length = item.position + 1;
  const int64_t hidden = AttentionShape::hidden(item.position, a.window);
  const int64_t start = hidden / kSpanTokens * kSpanTokens;
  for (int64_t first = start; first < length; first += kSpanTokens) {
    const int64_t n = length - first < kSpanTokens ? length - first : kSpanTokens, page0 = first / kP;
    for (int64_t i = 0; i * kP < n; ++i) {
      const Tensor k = keys_of(a, item, page0 + i);
      const int64_t in_page = n - i * kP < kP ? n - i * kP : kP;
      for_codec(Codecs{}, k.codec, [&]<class C>(C) {
        if constexpr (C::kLinear) score_page<C>(item, k, in_page, s, i * kP);
      });
    }
    softmax(item, first == start ? hidden - start : 0, n, first == start, s);
    __syncthreads();
    join_values(a, item, page0, n, first == start, s);
  }
  for (int64_t j = threadIdx.x; j < channels * item.heads; j += kThreads) {
    const int64_t h = j / channels;
    a.out[row * a.ldo + item.head0 * channels + j] = __fdiv_rn(s.out[h][j % channels], s.total[h]);
  }
}

}  // namespace

void attention(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, const AttentionShape& shape,
               const Tensor& out) {
  if (q.rows == 0) return;
  Args a{};
  a.q = q.data.row<const float>(0);
  a.ldq = q.data.pitch / 4;
  a.out = out.data.row<float>(0);
  a.ldo = out.data.pitch / 4;
  a.kv = kv;
  a.slots = batch.device.slots;
  a.positions = batch.device.positions;
  a.rows = q.rows;
  a.group = shape.heads / kv.kv_heads;
  a.window = shape.window;
  a.chunks = (a.group + kHeads - 1) / kHeads;
  a.softmax_scale = shape.softmax_scale(kv.layout.head_dim);
  const int64_t blocks = a.rows * kv.kv_heads * a.chunks;
  attention_kernel<<<unsigned(blocks), kThreads, 0, ctx.stream>>>(a);
  check_launch("attention_kernel");
}

}  // namespace quire::cuda
