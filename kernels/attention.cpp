#include "kernels/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/carver.h"
#include "kernels/cpu/attention_simd.h"
#include "kernels/cuda/attention_args.h"
#include "kernels/cuda/ops.h"

namespace quire {

namespace {

using cpu::AttentionRows;

constexpr int64_t kP = kPageTokens;
constexpr int64_t kTileRows = 192;     // share what is unpacked from a page; their scores of a span fit a core's cache
constexpr int64_t kJobsPerThread = 4;  // enough for threads to end at about the same time

// The rows that share loads: `tokens` consecutive tokens of one page, times the query heads of one kv head.
struct Tile {
  const BatchSequence* sequence;
  int64_t sequence_index, kv_head, token0, tokens;  // token0: offset in the sequence's rows of this batch
  int64_t window;
  float* parts;  // of a tile cut into spans: the result of each, for the join
  int64_t position() const { return sequence->position + token0; }
  int64_t first_span() const { return AttentionShape::hidden(position(), window) / kSpanTokens; }
  int64_t spans() const { return (position() + tokens + kSpanTokens - 1) / kSpanTokens - first_span(); }
};

struct Job {
  const Tile* tile;
  int64_t first_span, spans;  // counted from the tile's first
};

int64_t row_floats(int64_t rows, int64_t channels) { return rows * (channels + 2); }
AttentionRows rows_at(float* p, int64_t rows) { return {p, p + rows, p + 2 * rows}; }

// What a thread works in.
struct Work {
  float *q, *qsum, *folded, *scores, *part, *panels, *offsets, *joined, *span;

  Work(Carver<>& carver, int64_t rows, const KvLayout& layout) {
    const int64_t channels = layout.head_dim;
    q = carver.take<float>(rows * channels);
    qsum = carver.take<float>(rows * k_groups(layout));
    folded = carver.take<float>(rows * channels);
    scores = carver.take<float>(rows * kSpanTokens);
    part = carver.take<float>(rows * kP);
    panels = carver.take<float>(channels * kP);
    offsets = carver.take<float>(rows * v_groups(layout) * 16);
    joined = carver.take<float>(row_floats(rows, channels));
    span = carver.take<float>(row_floats(rows, channels));
  }
  static int64_t groups(const KvFormat& format, int64_t channels) {
    return format.group > 1 ? channels / format.group : 1;
  }
  static int64_t k_groups(const KvLayout& layout) { return groups(layout.k_format, layout.head_dim); }
  static int64_t v_groups(const KvLayout& layout) { return groups(layout.v_format, layout.head_dim); }
};

struct Attention {
  const cpu::AttentionSimd& simd;
  const Tensor& q;
  const KvView& kv;
  const Tensor& out;
  int64_t group, channels;
  float softmax_scale;

  Tensor part(const Tile& tile, int64_t page, bool keys) const {
    const bool open = kv.layout.sealed() && page == tile.position() / kP;
    std::byte* block = open ? kv.open_block(tile.sequence_index, *tile.sequence, page, tile.kv_head)
                            : kv.block(tile.sequence->slot, page, tile.kv_head);
    const KvLayout& layout = open ? kv.open_layout : kv.layout;
    return keys ? kv_keys(block, layout, &kv.k_scale) : kv_values(block, layout, &kv.v_scale);
  }
  void take_queries(const Tile& tile, const Work& work) const;
  void run_span(const Tile& tile, int64_t span, const Work& work, const AttentionRows& result) const;
  void give(const Tile& tile, const AttentionRows& rows) const;
  void run(const Job& job, const Work& work) const;
  void join_parts(const Tile& tile) const;
};

void Attention::take_queries(const Tile& tile, const Work& work) const {
  const int64_t row0 = tile.sequence->first + tile.token0, width = group * channels;
  for (int64_t t = 0; t < tile.tokens; ++t) {
    const float* in = q.data.row<const float>(row0 + t) + tile.kv_head * width;
    for (int64_t c = 0; c < width; ++c) work.q[t * width + c] = in[c] * softmax_scale;
  }
  if (kv.layout.k_format.group != 1 && kv.layout.k_format.codec != id<F16>) {
    simd.query_sums(work.q, tile.tokens * group, channels, Work::k_groups(kv.layout), work.qsum);
  }
}

void Attention::run_span(const Tile& tile, int64_t span, const Work& work, const AttentionRows& result) const {
  constexpr int64_t kPages = kSpanTokens / kP;
  const int64_t first = (tile.first_span() + span) * kSpanTokens, sees = tile.position() + 1 - first;
  const int64_t tokens = std::min(kSpanTokens, sees + tile.tokens - 1);
  Tensor keys[kPages], values[kPages];
  for (int64_t i = 0; i * kP < tokens; ++i) {
    keys[i] = part(tile, first / kP + i, true);
    values[i] = part(tile, first / kP + i, false);
  }
  simd.span({.keys = keys,
             .values = values,
             .tokens = tokens,
             .first_sees = sees,
             .first_hidden = tile.window > 0 ? sees - tile.window : -kSpanTokens - kP,
             .rows = tile.tokens * group,
             .group = group,
             .channels = channels,
             .k_groups = Work::k_groups(kv.layout),
             .v_groups = Work::v_groups(kv.layout),
             .q = work.q,
             .qsum = work.qsum,
             .folded = work.folded,
             .scores = work.scores,
             .part = work.part,
             .panels = work.panels,
             .offsets = work.offsets,
             .result = result});
}

void Attention::give(const Tile& tile, const AttentionRows& rows) const {
  const int64_t row0 = tile.sequence->first + tile.token0, width = group * channels;
  for (int64_t t = 0; t < tile.tokens; ++t) {
    float* to = out.data.row<float>(row0 + t) + tile.kv_head * width;
    for (int64_t h = 0; h < group; ++h) {
      const int64_t r = t * group + h;
      for (int64_t c = 0; c < channels; ++c) to[h * channels + c] = rows.out[r * channels + c] / rows.total[r];
    }
  }
}

void Attention::run(const Job& job, const Work& work) const {
  const Tile& tile = *job.tile;
  const int64_t rows = tile.tokens * group;
  take_queries(tile, work);
  if (tile.parts) {
    for (int64_t s = job.first_span; s < job.first_span + job.spans; ++s) {
      run_span(tile, s, work, rows_at(tile.parts + s * row_floats(rows, channels), rows));
    }
    return;
  }
  const AttentionRows joined = rows_at(work.joined, rows), next = rows_at(work.span, rows);
  run_span(tile, 0, work, joined);
  for (int64_t s = 1; s < job.spans; ++s) {
    run_span(tile, s, work, next);
    simd.join(joined, next, rows, channels);
  }
  give(tile, joined);
}

void Attention::join_parts(const Tile& tile) const {
  const int64_t rows = tile.tokens * group;
  const AttentionRows joined = rows_at(tile.parts, rows);
  for (int64_t s = 1; s < tile.spans(); ++s) {
    simd.join(joined, rows_at(tile.parts + s * row_floats(rows, channels), rows), rows, channels);
  }
  give(tile, joined);
}

// How a step is cut; nothing of it changes a result.
struct Cut {
  int64_t window, tile_tokens, tiles = 0, jobs = 0, split_tiles = 0, split_spans = 0;
  int64_t most_rows = 0;

  Cut(const Batch& batch, int64_t kv_heads, int64_t group, int64_t window, int threads) : window(window) {
    // Tiles as large as leave every thread several; a power of two, so that pages are whole tiles.
    const int64_t wanted = batch.size() * kv_heads / (kJobsPerThread * threads);
    tile_tokens = largest_tile(group);
    while (tile_tokens > 8 && tile_tokens > wanted) tile_tokens /= 2;
    each_tile(batch, kv_heads, [&](const Tile& t) {
      ++tiles;
      most_rows = std::max(most_rows, t.tokens * group);
    });
    const bool few = tiles < kJobsPerThread * threads;
    each_tile(batch, kv_heads, [&](const Tile& t) {
      const bool split = few && t.sequence->count == 1 && t.spans() > 1;
      jobs += split ? t.spans() : 1;
      split_tiles += split;
      split_spans += split ? t.spans() : 0;
    });
  }
  static int64_t largest_tile(int64_t group) {
    int64_t n = kP;
    while (n > 1 && n * group > kTileRows) n /= 2;
    return n;
  }
  bool split(const Tile& t) const { return split_tiles > 0 && t.sequence->count == 1 && t.spans() > 1; }

  // Heads outside, so that the pages of one stay in a core's cache. Tiles never cross a page: all their queries then
  // read the same page as f16.
  template <class Fn>
  void each_tile(const Batch& batch, int64_t kv_heads, Fn&& fn) const {
    for (size_t i = 0; i < batch.sequences.size(); ++i) {
      const BatchSequence& s = batch.sequences[i];
      for (int64_t h = 0; h < kv_heads; ++h) {
        for (int64_t t = 0; t < s.count;) {
          const int64_t n = std::min({tile_tokens, s.count - t, kP - (s.position + t) % kP});
          fn(Tile{&s, int64_t(i), h, t, n, window, nullptr});
          t += n;
        }
      }
    }
  }
};

void run_cut(const Context& ctx, const Attention& attention, const Batch& batch, const Cut& cut) {
  const Scratch::Scope scope(*ctx.scratch);
  const KvLayout& layout = attention.kv.layout;
  const int64_t workers = std::min<int64_t>(ctx.pool->threads(), cut.jobs);
  const int64_t part_floats = cut.split_spans * row_floats(attention.group, attention.channels);
  Carver<> count;
  count.take<Tile>(cut.tiles);
  count.take<Job>(cut.jobs);
  count.take<float>(part_floats);
  for (int64_t i = 0; i < workers; ++i) Work(count, cut.most_rows, layout);
  Carver<> carver{ctx.scratch->take_bytes(size_t(count.used))};
  Tile* tile = carver.take<Tile>(cut.tiles);
  Job* job = carver.take<Job>(cut.jobs);
  Job* const jobs = job;
  float* parts = carver.take<float>(part_floats);
  std::byte* const works = carver.block + carver.used;
  const int64_t work_bytes = workers > 0 ? (count.used - carver.used) / workers : 0;
  const Tile* const tiles = tile;
  cut.each_tile(batch, attention.kv.kv_heads, [&](const Tile& t) {
    *tile = t;
    if (cut.split(t)) {
      tile->parts = parts;
      parts += t.spans() * row_floats(attention.group, attention.channels);
      for (int64_t s = 0; s < t.spans(); ++s) *job++ = {tile, s, 1};
    } else {
      *job++ = {tile, 0, t.spans()};
    }
    ++tile;
  });
  // Late tiles see the most keys: they come first.
  std::atomic<int64_t> left{cut.jobs};
  ctx.parallel_for(workers, 1, [&](int64_t worker, int64_t) {
    Carver<> mine{works + worker * work_bytes};
    const Work work(mine, cut.most_rows, layout);
    for (int64_t i; (i = left.fetch_sub(1, std::memory_order_relaxed)) > 0;) attention.run(jobs[i - 1], work);
  });
  if (cut.split_tiles == 0) return;
  for (int64_t i = 0; i < cut.tiles; ++i) {
    if (tiles[i].parts) attention.join_parts(tiles[i]);
  }
}

}  // namespace

int64_t attention_scratch(const KvLayout& layout, int64_t heads, int64_t kv_heads, int64_t tokens, int64_t context,
                          int threads) {
  const int64_t group = heads / kv_heads, tiles = tokens * kv_heads;
  const int64_t spans = (context + kSpanTokens - 1) / kSpanTokens;
  const int64_t split_spans = std::min(tiles, kJobsPerThread * threads) * spans;
  Carver<> count;
  count.take<Tile>(tiles);
  count.take<Job>(tiles + split_spans);
  count.take<float>(split_spans * row_floats(group, layout.head_dim));
  const int64_t rows = std::max<int64_t>(1, std::min(Cut::largest_tile(group), tokens)) * group;
  for (int i = 0; i < threads; ++i) Work(count, rows, layout);
  return count.used;
}

int64_t gpu_attention_scratch(const KvLayout& layout, int64_t heads, int64_t kv_heads) {
  int64_t bytes = 0;
  if constexpr (kCuda) {
    cuda::AttentionArgs a;
    a.kv.layout = layout;
    a.kv.kv_heads = kv_heads;
    a.heads = int32_t(heads);
    const int multiprocessors = cuda::device_info(cuda::current_device()).multiprocessors;
    bytes = cuda::attention_plan(a, 1, multiprocessors).partial_floats * int64_t(sizeof(float));
  }
  return bytes;
}

void attention(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, const AttentionShape& shape,
               const Tensor& out, std::string_view kernel) {
  const int64_t channels = kv.layout.head_dim, heads = shape.heads;
  check(shape.window >= 0 && shape.scale >= 0, "attention: a window of {} tokens and a scale of {} are not possible",
        shape.window, shape.scale);
  check(q.codec == id<F32> && out.codec == id<F32> && q.rows == batch.size() && out.rows == q.rows &&
            q.cols == heads * channels && out.cols == q.cols,
        "attention: q {} and out {} are not f32 ({}, {} heads of {})", describe(q), describe(out), batch.size(), heads,
        channels);
  check(heads % kv.kv_heads == 0 && heads / kv.kv_heads <= kMaxQueryGroup,
        "attention: {} heads cannot share {} kv heads", heads, kv.kv_heads);
  const CodecInfo& k = info(kv.layout.k_format.codec);
  const CodecInfo& v = info(kv.layout.v_format.codec);
  check(k.linear && v.linear && kv.layout.v_format.group % 16 == 0 && channels <= kMaxHeadDim,
        "attention: keys {} and values {} (heads of {}) have no reader; linear codecs with values per token, in groups "
        "of a multiple of 16, do",
        k.name, v.name, channels);
  bool fast = false;
  if constexpr (kCuda) fast = ctx.device == Device::cuda && cuda::attention_mma_supports(kv, batch, shape);
  const bool mma = kernel == "mma" || kernel == "mma_fixed" || kernel == "mma_prefill";
  check(
      kernel.empty() || kernel == "generic" || (mma && fast),
      "attention: kernel '{}' is not there or not for keys {} and values {}, {} heads of {} on {} kv heads; generic is",
      kernel, k.name, v.name, heads, channels, kv.kv_heads);
  const ProfileScope scope(ctx.profile, "attention", [&] {
    OpCost cost{2 * tensor_bytes(q), 0, OpUnit::f16};
    for (const BatchSequence& s : batch.sequences) {
      cost.bytes += (s.position + s.count) * kv.kv_heads * kv.layout.bytes / kPageTokens;  // each key and value once
      const int64_t pairs = s.count * s.position + s.count * (s.count + 1) / 2;            // query and key
      cost.operations += 4 * pairs * q.cols;
    }
    return cost;
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      check(batch.device.positions != nullptr, "attention: the batch was not uploaded");
      if (mma || (fast && kernel.empty())) {
        const bool whole = kernel == "mma_prefill" || (kernel.empty() && ctx.deterministic);
        const auto cuts = whole                   ? cuda::AttentionCuts::none
                          : kernel == "mma_fixed" ? cuda::AttentionCuts::fixed
                                                  : cuda::AttentionCuts::even;
        return cuda::attention_mma(ctx, q, kv, batch, heads, out, cuts);
      }
      return cuda::attention(ctx, q, kv, batch, shape, out);
    }
  }
  const cpu::AttentionSimd& simd = ctx.isa == Isa::avx512 ? cpu::kAttentionAvx512
                                   : ctx.isa == Isa::avx2 ? cpu::kAttentionAvx2
                                                          : cpu::kAttentionBaseline;
  const int64_t group = heads / kv.kv_heads;
  run_cut(ctx, {simd, q, kv, out, group, channels, shape.softmax_scale(channels)}, batch,
          Cut(batch, kv.kv_heads, group, shape.window, ctx.pool->threads()));
}

}  // namespace quire
