// Decode attention: one query token a sequence, split over the pages of all sequences and kv heads.
//
// The axis (sequence, head slot, page) is cut into equal ranges, one a block; its only input is the prefix sum of page
// counts, made here. A block writes what it covers wholly, and a partial for what it shares with its neighbours; the
// last of them to arrive merges in page order. Deterministic cuts instead depend on a sequence's own length only.
#include "kernels/cuda/attention_warp.cuh"

namespace quire::cuda {

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kBlocks = 3;  // of a multiprocessor
constexpr int kMinPages = 2, kPieceMultiple = 8, kMaxPieces = 32;

// What one block does next: pages [page0, page1) of a sequence's head slot. Part k of `parts` lies at first_part +
// part_step * k (+ 1 for k = 0 when ranges are shared with the range before).
struct Work {
  int sequence, slot, page0, page1, parts, place, first_part, part_step;
  __device__ int part(int k) const { return first_part + part_step * k + (part_step == 2 && k == 0); }
};

__host__ __device__ inline int piece_pages(int pages) {
  const int even = (pages + kMaxPieces - 1) / kMaxPieces;
  return (even + kPieceMultiple - 1) / kPieceMultiple * kPieceMultiple;
}

__device__ int decode_pages(const BatchSequence& s) {
  return s.count == 1 && s.slot >= 0 ? int(s.position / kPageTokens) + 1 : 0;
}

// Equal ranges: the block's next work from `at`, or false.
__device__ bool next_range(const AttentionArgs& a, const int* prefix, int n, int per, int& at, int end, Work& w) {
  if (at >= end) return false;
  w.sequence = find_interval(prefix, n, at);
  const int first = prefix[w.sequence], pages = decode_pages(a.sequences[w.sequence]);
  w.slot = (at - first) / pages;
  const int begin = first + w.slot * pages, stop = begin + pages, range = at / per;
  w.page0 = at - begin;
  w.page1 = min(stop, end) - begin;
  w.part_step = 2;
  w.first_part = begin / per * 2;
  w.parts = (stop - 1) / per - begin / per + 1;
  w.place = 2 * range + (w.page0 == 0);
  at = begin + w.page1;
  return true;
}

// Pieces: items at, at + blocks, ... of the axis (sequence, head slot, piece).
__device__ bool next_piece(const AttentionArgs& a, const int* prefix, int n, int& at, int end, Work& w) {
  if (at >= end) return false;
  w.sequence = find_interval(prefix, n, at);
  const int pages = decode_pages(a.sequences[w.sequence]), piece = piece_pages(pages);
  w.parts = (pages + piece - 1) / piece;
  const int item = at - prefix[w.sequence];
  w.slot = item / w.parts;
  w.page0 = item % w.parts * piece;
  w.page1 = min(pages, w.page0 + piece);
  w.part_step = 1;
  w.first_part = at - item % w.parts;
  w.place = at;
  at += int(gridDim.x);
  return true;
}

template <class Pair, int C>
struct Shared {
  float out[kWarps][kRowTile][C];
  float peaks[kWarps][kRowTile], totals[kWarps][kRowTile];
  int prefix[kMaxSequencesOnGpu + 1];
  int last;
};

// The tokens [token0, limit) of the work, dealt to the warps tile by tile. `again`: the warp has stored something of
// this work. Returns whether it has now.
template <class Pair, class All, int C>
__device__ bool attend_pages(const AttentionArgs& a, const KvLayout& layout, const Work& w, int token0, int limit,
                             bool open, bool again, Shared<All, C>& shared) {
  using Warp = DecodeWarp<Pair, C>;
  const int warp = int(threadIdx.x) / 32;
  const BatchSequence& s = a.sequences[w.sequence];
  const int group = a.heads / int(a.kv.kv_heads), slots_a_head = (group + kRowTile - 1) / kRowTile;
  const int kv_head = w.slot / slots_a_head, first = w.slot % slots_a_head * kRowTile;
  int token = token0 + warp * Warp::kTokens;
  if (token >= limit) return again;
  Warp state(a.kv, layout, int(threadIdx.x) % 32);
  state.start(a.q + s.first * a.q_stride + int64_t(kv_head * group + first) * C, min(kRowTile, group - first),
              1.44269504f * rsqrtf(float(C)));
  for (; token < limit; token += kWarps * Warp::kTokens) {
    const int page = token / int(kPageTokens), row = token % int(kPageTokens);
    const std::byte* block =
        open ? a.kv.open_block_of_row(s.first, s.slot, kv_head) : a.kv.block(s.slot, page, kv_head);
    state.take(block, row, limit - token);
  }
  state.store(&shared.out[warp][0][0], shared.peaks[warp], shared.totals[warp], again);
  return true;
}

// Joins `parts` partials in order: out[i] for the i of this thread. at(k): partial k: (8 heads, C), peaks, totals.
template <int C, class At>
__device__ void merge(int parts, int heads, At at, float* out) {
  for (int i = int(threadIdx.x); i < heads * C; i += kThreads) {
    const int head = i / C;
    float top = kNothing, total = 0.0f, sum = 0.0f;
    for (int k = 0; k < parts; ++k) top = fmaxf(top, __ldcg(at(k) + kRowTile * C + head));
    for (int k = 0; k < parts; ++k) {
      const float weight = exp2_fast(__ldcg(at(k) + kRowTile * C + head) - top);
      total = fmaf(__ldcg(at(k) + kRowTile * C + kRowTile + head), weight, total);
      sum = fmaf(__ldcg(at(k) + i), weight, sum);
    }
    out[i] = sum / total;
  }
}

template <class Pair, int C>
__device__ void finish(const AttentionArgs& a, const Work& w, int slots, int group, Shared<Pair, C>& shared) {
  constexpr int kPartial = kRowTile * (C + 2);
  const int slots_a_head = (group + kRowTile - 1) / kRowTile;
  const int kv_head = w.slot / slots_a_head, first = w.slot % slots_a_head * kRowTile;
  const int heads = min(kRowTile, group - first);
  float* out = a.out + a.sequences[w.sequence].first * a.out_stride + int64_t(kv_head * group + first) * C;
  float* partial = w.parts > 1 ? a.partials + int64_t(w.place) * kPartial : nullptr;
  __syncthreads();
  for (int i = int(threadIdx.x); i < heads * C; i += kThreads) {
    const int head = i / C, c = i % C;
    float top = kNothing, total = 0.0f, sum = 0.0f;
    for (int k = 0; k < kWarps; ++k) top = fmaxf(top, shared.peaks[k][head]);
    for (int k = 0; k < kWarps; ++k) {
      const float peak = shared.peaks[k][head];
      if (peak == kNothing) continue;
      const float weight = exp2_fast(peak - top);
      total = fmaf(shared.totals[k][head], weight, total);
      sum = fmaf(shared.out[k][head][c], weight, sum);
    }
    if (!partial) {
      out[i] = sum / total;
      continue;
    }
    partial[i] = sum;
    if (c == 0) {
      partial[kRowTile * C + head] = top;
      partial[kRowTile * C + kRowTile + head] = total;
    }
  }
  if (!partial) return;
  __threadfence();
  __syncthreads();
  uint32_t* arrivals = a.arrivals + w.sequence * slots + w.slot;
  if (threadIdx.x == 0) shared.last = atomicAdd(arrivals, 1u) == uint32_t(w.parts - 1);
  __syncthreads();
  if (!shared.last) return;
  __threadfence();
  if (threadIdx.x == 0) *arrivals = 0;
  const float* partials = a.partials;
  merge<C>(
      w.parts, heads, [&](int k) { return partials + int64_t(w.part(k)) * kPartial; }, out);
}

template <class Pair, int C>
__global__ void __launch_bounds__(kThreads, kBlocks) attention_decode_kernel(const __grid_constant__ AttentionArgs a) {
  extern __shared__ __align__(16) unsigned char memory[];
  Shared<Pair, C>& shared = *reinterpret_cast<Shared<Pair, C>*>(memory);
  const int n = min(*a.sequence_count, kMaxSequencesOnGpu), warp = int(threadIdx.x) / 32;
  const int group = a.heads / int(a.kv.kv_heads);
  const int slots = int(a.kv.kv_heads) * ((group + kRowTile - 1) / kRowTile);
  prefix_sums(n, shared.prefix, [&](int i) {
    const int pages = decode_pages(a.sequences[i]);
    if (!a.deterministic || pages == 0) return pages * slots;
    const int piece = piece_pages(pages);
    return (pages + piece - 1) / piece * slots;
  });
  __syncthreads();
  const int total = shared.prefix[n], per = max(kMinPages, (total + int(gridDim.x) - 1) / int(gridDim.x));
  int at = a.deterministic ? int(blockIdx.x) : int(blockIdx.x) * per;
  const int end = a.deterministic ? total : min(total, at + per);
  Work w;
  while (a.deterministic ? next_piece(a, shared.prefix, n, at, end, w)
                         : next_range(a, shared.prefix, n, per, at, end, w)) {
    const int position = int(a.sequences[w.sequence].position), own = position / int(kPageTokens);
    bool written = false;
    if constexpr (Pair::kSealed) {
      const int stop = min(w.page1, own) * int(kPageTokens);
      written = attend_pages<Pair>(a, a.kv.layout, w, w.page0 * int(kPageTokens), stop, false, false, shared);
      if (w.page1 > own) {
        written = attend_pages<PlainPair>(a, a.kv.open_layout, w, own * int(kPageTokens), position + 1, true, written,
                                          shared);
      }
    } else {
      const int limit = min(w.page1 * int(kPageTokens), position + 1);
      written = attend_pages<Pair>(a, a.kv.layout, w, w.page0 * int(kPageTokens), limit, false, false, shared);
    }
    if (!written && int(threadIdx.x) % 32 < kRowTile) {
      shared.peaks[warp][threadIdx.x % 32] = kNothing;
      shared.totals[warp][threadIdx.x % 32] = 0.0f;
    }
    finish(a, w, slots, group, shared);
    __syncthreads();
  }
}

template <class Pair, int C>
void launch(const AttentionArgs& a, int ctas, StreamHandle stream) {
  constexpr size_t kBytes = sizeof(Shared<Pair, C>);
  if (kBytes > 48 * 1024) {
    check_status(cudaFuncSetAttribute(attention_decode_kernel<Pair, C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      int(kBytes)),
                 "shared memory of attention_decode_kernel");
  }
  attention_decode_kernel<Pair, C><<<ctas, kThreads, kBytes, stream>>>(a);
  check_launch("attention_decode_kernel");
}

template <int C, class... Pairs>
bool choose(KvPairList<Pairs...>, const AttentionArgs& a, int ctas, StreamHandle stream) {
  return ((Pairs::is(a.kv.layout) ? (launch<Pairs, C>(a, ctas, stream), true) : false) || ...);
}

}  // namespace

AttentionPlan attention_plan(const AttentionArgs& a, int64_t max_sequences, int multiprocessors) {
  AttentionPlan plan;
  plan.ctas = kBlocks * multiprocessors;
  const int64_t parts =
      a.deterministic ? max_sequences * head_slots(a.heads, a.kv.kv_heads) * kMaxPieces : 2 * plan.ctas;
  plan.partial_floats = parts * kRowTile * (a.kv.layout.head_dim + 2);
  return plan;
}

bool attention_decode(const AttentionArgs& a, const AttentionPlan& plan, StreamHandle stream) {
  switch (a.kv.layout.head_dim) {
    case 64:
      return choose<64>(KvPairs{}, a, plan.ctas, stream);
    case 128:
      return choose<128>(KvPairs{}, a, plan.ctas, stream);
    default:
      return false;
  }
}

}  // namespace quire::cuda
