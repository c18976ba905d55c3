#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/attention_simd.h"

namespace quire {

namespace {

constexpr int64_t kP = kPageTokens;
constexpr int64_t kTileTokens = 16, kMaxRows = kTileTokens * kMaxQueryGroup;

// The rows that share loads: `tokens` consecutive tokens of one page, times the query heads of one kv head.
struct Tile {
  const BatchSequence* sequence;
  int64_t sequence_index, kv_head, token0, tokens;  // token0: offset in the sequence's rows of this batch
};

// What a tile works in; kept per thread and grown to the largest seen.
struct Work {
  std::vector<float> q, folded, qsum, codes, scores, part, weights, acc, offsets, total;
  static float* sized(std::vector<float>& v, int64_t n) {
    if (int64_t(v.size()) < n) v.resize(size_t(n));
    return v.data();
  }
};

int64_t whole_lanes(int64_t n) { return (n + 15) / 16 * 16; }

struct TileRun {
  const cpu::AttentionSimd& simd;
  const KvView& kv;
  const Tile& tile;
  Work& w;
  int64_t group, rows, channels;  // rows = tokens * group, ordered (token, head of the group)
  int64_t position0, length;      // row r sees keys 0 .. position0 + r / group; length: keys the last token sees
  int64_t stride;                 // of a row of scores
  int64_t v_groups;               // of the layout; an open page has one, without offsets

  int64_t pages() const { return (length + kP - 1) / kP; }
  int64_t tokens_in(int64_t page) const { return std::min(kP, length - page * kP); }

  bool open(int64_t page) const { return kv.layout.sealed() && page == position0 / kP; }
  Tensor keys(int64_t page) const {
    if (open(page))
      return kv_keys(kv.open_block(tile.sequence_index, *tile.sequence, page, tile.kv_head), kv.open_layout,
                     &kv.k_scale);
    return kv_keys(kv.block(tile.sequence->slot, page, tile.kv_head), kv.layout, &kv.k_scale);
  }
  Tensor values(int64_t page) const {
    if (open(page))
      return kv_values(kv.open_block(tile.sequence_index, *tile.sequence, page, tile.kv_head), kv.open_layout,
                       &kv.v_scale);
    return kv_values(kv.block(tile.sequence->slot, page, tile.kv_head), kv.layout, &kv.v_scale);
  }

  void take_queries(const Tensor& q);
  void score_page(int64_t page);
  void channel_scores(const Tensor& k, int64_t page, int64_t n);
  void token_scores(const Tensor& k, int64_t page, int64_t n);
  void add_values(int64_t page);
  void give(const Tensor& out);
};

void TileRun::take_queries(const Tensor& q) {
  const float softmax_scale = 1.0f / std::sqrt(float(channels));
  const int64_t row0 = tile.sequence->first + tile.token0, column0 = tile.kv_head * group * channels;
  float* scaled = Work::sized(w.q, rows * channels);
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = q.data.row<const float>(row0 + r / group) + column0 + r % group * channels;
    for (int64_t c = 0; c < channels; ++c) scaled[r * channels + c] = in[c] * softmax_scale;
  }
}

void TileRun::score_page(int64_t page) {
  const Tensor k = keys(page);
  const int64_t n = tokens_in(page);
  simd.key_panels(k, n, Work::sized(w.codes, channels * kP));
  if (k.group == 1) {
    channel_scores(k, page, n);
  } else {
    token_scores(k, page, n);
  }
}

// A channel's scale folds into q once for all the tokens it spans.
void TileRun::channel_scores(const Tensor& k, int64_t page, int64_t n) {
  const CodecInfo& codec = info(k.codec);
  float* folded = Work::sized(w.folded, rows * channels);
  float scale[kMaxHeadDim], offset[kMaxHeadDim], bias[kMaxRows];
  for (int64_t first = 0; first < n; first += k.scale.rows) {
    for (int64_t c = 0; c < channels; ++c) {
      const AffineParams a = codec.affine(k, first, c);
      scale[c] = a.scale;
      offset[c] = a.offset;
    }
    for (int64_t r = 0; r < rows; ++r) {
      bias[r] = simd.fold(w.q.data() + r * channels, scale, offset, channels, folded + r * channels);
    }
    const int64_t width = whole_lanes(std::min<int64_t>(k.scale.rows, n - first));
    float* s = w.scores.data() + page * kP + first;
    simd.float_block({.x = folded,
                      .ldx = channels,
                      .m = rows,
                      .k = channels,
                      .w = w.codes.data() + first * channels,
                      .panel_stride = channels * 16,
                      .panels = width / 16,
                      .part = s,
                      .ld_part = stride,
                      .first = true});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < width; ++i) s[r * stride + i] += bias[r];
    }
  }
}

void TileRun::token_scores(const Tensor& k, int64_t page, int64_t n) {
  const CodecInfo& codec = info(k.codec);
  float* part = Work::sized(w.part, rows * kP);
  float* s = w.scores.data() + page * kP;
  const int64_t width = whole_lanes(n);
  for (int64_t g = 0; g < k.groups(); ++g) {
    const int64_t c0 = k.group_begin(g), c1 = k.group_end(g);
    float scale[kP] = {}, offset[kP] = {};
    for (int64_t i = 0; i < n; ++i) {
      const AffineParams a = codec.affine(k, i, g);
      scale[i] = a.scale;
      offset[i] = a.offset;
    }
    simd.float_block({.x = w.q.data() + c0,
                      .ldx = channels,
                      .m = rows,
                      .k = c1 - c0,
                      .w = w.codes.data() + c0 * 16,
                      .panel_stride = channels * 16,
                      .panels = width / 16,
                      .part = part,
                      .ld_part = kP,
                      .first = true});
    for (int64_t r = 0; r < rows; ++r) {
      float lane[16] = {};
      for (int64_t c = c0; c < c1; ++c) lane[(c - c0) % 16] += w.q[size_t(r * channels + c)];
      simd.token_scores(part + r * kP, scale, offset, cpu::lane_sum(lane), width, g > 0, s + r * stride);
    }
  }
}

void TileRun::add_values(int64_t page) {
  const Tensor v = values(page);
  const CodecInfo& codec = info(v.codec);
  const int64_t n = tokens_in(page);
  float* codes = Work::sized(w.codes, channels * kP);
  simd.value_panels(v, n, codes);
  float* weights = Work::sized(w.weights, rows * kP);
  for (int64_t g = 0; g < v.groups(); ++g) {
    const int64_t c0 = v.group_begin(g), c1 = v.group_end(g);
    float scale[kP] = {}, offset[kP] = {};
    for (int64_t i = 0; i < n; ++i) {
      const AffineParams a = codec.affine(v, i, g);
      scale[i] = a.scale;
      offset[i] = a.offset;
    }
    for (int64_t r = 0; r < rows; ++r) {
      simd.weigh(w.scores.data() + r * stride + page * kP, scale, offset, n, weights + r * kP,
                 w.offsets.data() + (r * v_groups + g) * 16);
    }
    simd.float_block({.x = weights,
                      .ldx = kP,
                      .m = rows,
                      .k = n,
                      .w = codes + c0 * kP,
                      .panel_stride = kP * 16,
                      .panels = (c1 - c0) / 16,
                      .part = w.acc.data() + c0,
                      .ld_part = channels,
                      .first = false});
  }
}

void TileRun::give(const Tensor& out) {
  const int64_t row0 = tile.sequence->first + tile.token0, column0 = tile.kv_head * group * channels;
  for (int64_t r = 0; r < rows; ++r) {
    float* to = out.data.row<float>(row0 + r / group) + column0 + r % group * channels;
    for (int64_t g = 0; g < v_groups; ++g) {
      const float offset = cpu::lane_sum(w.offsets.data() + (r * v_groups + g) * 16), total = w.total[size_t(r)];
      const int64_t begin = g * (channels / v_groups), end = begin + channels / v_groups;
      for (int64_t c = begin; c < end; ++c) to[c] = (w.acc[size_t(r * channels + c)] + offset) / total;
    }
  }
}

void run_tile(const Context& ctx, const Tensor& q, const KvView& kv, const Tile& tile, int64_t group,
              const Tensor& out) {
  thread_local Work work;
  const int64_t channels = kv.layout.head_dim, rows = tile.tokens * group;
  const int64_t position0 = tile.sequence->position + tile.token0, length = position0 + tile.tokens;
  const int64_t v_groups = kv.layout.v_format.group > 0 ? channels / kv.layout.v_format.group : 1;
  const cpu::AttentionSimd& simd = ctx.isa == Isa::avx512 ? cpu::kAttentionAvx512
                                   : ctx.isa == Isa::avx2 ? cpu::kAttentionAvx2
                                                          : cpu::kAttentionBaseline;
  TileRun run{simd, kv, tile, work, group, rows, channels, position0, length, (length + kP - 1) / kP * kP, v_groups};
  run.take_queries(q);
  float* scores = Work::sized(work.scores, rows * run.stride);
  float* total = Work::sized(work.total, rows);
  for (int64_t page = 0; page < run.pages(); ++page) run.score_page(page);
  for (int64_t r = 0; r < rows; ++r) {
    total[r] = simd.softmax(scores + r * run.stride, position0 + r / group + 1, whole_lanes(length));
  }
  std::fill_n(Work::sized(work.acc, rows * channels), rows * channels, 0.0f);
  std::fill_n(Work::sized(work.offsets, rows * v_groups * 16), rows * v_groups * 16, 0.0f);
  for (int64_t page = 0; page < run.pages(); ++page) run.add_values(page);
  run.give(out);
}

// Tiles never cross a page: all their queries then read the same page as f16.
std::vector<Tile> plan_tiles(const Batch& batch, int64_t kv_heads) {
  std::vector<Tile> tiles;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const BatchSequence& s = batch.sequences[i];
    for (int64_t t = 0; t < s.count;) {
      const int64_t position = s.position + t;
      const int64_t widest = position > 16384 ? 4 : kTileTokens;  // scores of a tile stay within a few MB
      const int64_t n = std::min({widest, s.count - t, kP - position % kP});
      for (int64_t h = 0; h < kv_heads; ++h) tiles.push_back({&s, int64_t(i), h, t, n});
      t += n;
    }
  }
  return tiles;
}

}  // namespace

void attention(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, int64_t heads,
               const Tensor& out) {
  const int64_t channels = kv.layout.head_dim;
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
  const ProfileScope scope(ctx.profile, "attention", [&] {
    OpCost cost{2 * tensor_bytes(q), 0};
    for (const BatchSequence& s : batch.sequences) {
      cost.bytes += (s.position + s.count) * kv.kv_heads * kv.layout.bytes / kPageTokens;  // each key and value once
      const int64_t pairs = s.count * s.position + s.count * (s.count + 1) / 2;            // query and key
      cost.operations += 4 * pairs * q.cols;
    }
    return cost;
  });
  const std::vector<Tile> tiles = plan_tiles(batch, kv.kv_heads);
  ctx.parallel_for(int64_t(tiles.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) run_tile(ctx, q, kv, tiles[size_t(i)], heads / kv.kv_heads, out);
  });
}

}  // namespace quire
