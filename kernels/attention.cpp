#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/tile.h"
#include "kernels/math.h"

namespace quire {

namespace {

constexpr int64_t kP = kPageTokens;

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

struct TileRun {
  const Context& ctx;
  const KvView& kv;
  const Tile& tile;
  Work& w;
  int64_t group, rows, channels, position0, length;  // rows = tokens * group; length: keys the last token sees
  int64_t stride;                                    // of a row of scores
  int64_t v_groups;                                  // of the layout; an open page has one, without offsets

  // Rows are ordered (token, head of the group). Row r's query sees keys 0 .. position0 + r / group.
  int64_t pages() const { return (length + kP - 1) / kP; }
  int64_t tokens_in(int64_t page) const { return std::min(kP, length - page * kP); }

  bool open(int64_t page) const { return kv.layout.sealed() && page == position0 / kP; }
  Tensor keys(int64_t page) const {
    if (open(page)) return kv_keys(kv.open_block(tile.sequence_index, *tile.sequence, page, tile.kv_head), kv.open_layout, &kv.k_scale);
    return kv_keys(kv.block(tile.sequence->slot, page, tile.kv_head), kv.layout, &kv.k_scale);
  }
  Tensor values(int64_t page) const {
    if (open(page)) return kv_values(kv.open_block(tile.sequence_index, *tile.sequence, page, tile.kv_head), kv.open_layout, &kv.v_scale);
    return kv_values(kv.block(tile.sequence->slot, page, tile.kv_head), kv.layout, &kv.v_scale);
  }

  void score_page(int64_t page);
  void channel_scales(const Tensor& k, const CodecInfo& codec, int64_t page, int64_t n);
  void token_scales(const Tensor& k, const CodecInfo& codec, int64_t page, int64_t n);
  void softmax();
  void add_values(int64_t page);
};

// codes (64, C) -> (C, 64): tokens on the lanes, so that a score is a chain over channels. Tokens past n are zero.
void transpose_codes(const CodecInfo& codec, const Tensor& k, int64_t n, float* out) {
  float row[512];
  for (int64_t i = 0; i < kP; ++i) {
    if (i < n) codec.values(k, i, 0, k.cols, row);
    for (int64_t c = 0; c < k.cols; ++c) out[c * kP + i] = i < n ? row[c] : 0.0f;
  }
}

void TileRun::score_page(int64_t page) {
  const Tensor k = keys(page);
  const CodecInfo& codec = info(k.codec);
  const int64_t n = tokens_in(page);
  transpose_codes(codec, k, n, Work::sized(w.codes, channels * kP));
  if (k.group == 1) {
    channel_scales(k, codec, page, n);
  } else {
    token_scales(k, codec, page, n);
  }
}

// A channel's scale folds into q once for all the tokens it spans.
void TileRun::channel_scales(const Tensor& k, const CodecInfo& codec, int64_t page, int64_t n) {
  float* folded = Work::sized(w.folded, rows * channels);
  const int64_t span = k.scale.rows;
  for (int64_t first = 0; first < n; first += span) {
    float bias[64 * 8];
    for (int64_t r = 0; r < rows; ++r) {
      const float* q = w.q.data() + r * channels;
      float sum = 0.0f;
      for (int64_t c = 0; c < channels; ++c) {
        const AffineParams a = codec.affine(k, first, c);
        folded[r * channels + c] = q[c] * a.scale;
        sum = std::fma(q[c], a.offset, sum);
      }
      bias[r] = sum;
    }
    float* s = w.scores.data() + page * kP + first;
    tile_product(ctx.isa, {folded, channels, w.codes.data() + first, kP, s, stride, rows, channels, span, false});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < span; ++i) s[r * stride + i] += bias[r];
    }
  }
}

void TileRun::token_scales(const Tensor& k, const CodecInfo& codec, int64_t page, int64_t n) {
  float* part = Work::sized(w.part, rows * kP);
  float* s = w.scores.data() + page * kP;
  for (int64_t g = 0; g < k.groups(); ++g) {
    const int64_t c0 = k.group_begin(g), c1 = k.group_end(g);
    float scale[kP] = {}, offset[kP] = {};
    bool offsets = false;
    for (int64_t i = 0; i < n; ++i) {
      const AffineParams a = codec.affine(k, i, g);
      scale[i] = a.scale;
      offset[i] = a.offset;
      offsets |= a.offset != 0.0f;
    }
    tile_product(ctx.isa, {w.q.data() + c0, channels, w.codes.data() + c0 * kP, kP, part, kP, rows, c1 - c0, kP, false});
    for (int64_t r = 0; r < rows; ++r) {
      float qsum = 0.0f;
      for (int64_t c = c0; offsets && c < c1; ++c) qsum += w.q[size_t(r * channels + c)];
      for (int64_t i = 0; i < kP; ++i) {
        const float scaled = scale[i] * part[r * kP + i];
        const float term = offsets ? std::fma(offset[i], qsum, scaled) : scaled;
        s[r * stride + i] = g == 0 ? term : s[r * stride + i] + term;
      }
    }
  }
}

void TileRun::softmax() {
  const int64_t padded = pages() * kP;
  for (int64_t r = 0; r < rows; ++r) {
    float* s = w.scores.data() + r * stride;
    const int64_t seen = position0 + r / group + 1;
    float peak = s[0];
    for (int64_t i = 1; i < seen; ++i) peak = s[i] > peak ? s[i] : peak;
    float lane[16] = {};
    for (int64_t i = seen; i < padded; ++i) s[i] = -1.0e30f;  // exp gives 0
    for (int64_t i = 0; i < padded; i += 16) {
      for (int l = 0; l < 16; ++l) {
        s[i + l] = exp_f32(s[i + l] - peak);
        lane[l] += s[i + l];
      }
    }
    for (int width = 8; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
    }
    w.total[size_t(r)] = lane[0];
  }
}

void TileRun::add_values(int64_t page) {
  const Tensor v = values(page);
  const CodecInfo& codec = info(v.codec);
  const int64_t n = tokens_in(page);
  float* codes = Work::sized(w.codes, channels * kP);
  for (int64_t i = 0; i < n; ++i) codec.values(v, i, 0, channels, codes + i * channels);
  float* weights = Work::sized(w.weights, rows * kP);
  for (int64_t g = 0; g < v.groups(); ++g) {
    const int64_t c0 = v.group_begin(g), c1 = v.group_end(g);
    float scale[kP], offset[kP];
    for (int64_t i = 0; i < n; ++i) {
      const AffineParams a = codec.affine(v, i, g);
      scale[i] = a.scale;
      offset[i] = a.offset;
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float* p = w.scores.data() + r * stride + page * kP;
      float sum = w.offsets[size_t(r * v_groups + g)];
      for (int64_t i = 0; i < n; ++i) {
        weights[r * kP + i] = p[i] * scale[i];
        sum = std::fma(p[i], offset[i], sum);
      }
      w.offsets[size_t(r * v_groups + g)] = sum;
    }
    tile_product(ctx.isa, {weights, kP, codes + c0, channels, w.acc.data() + c0, channels, rows, n, c1 - c0, true});
  }
}

void run_tile(const Context& ctx, const Tensor& q, const KvView& kv, const Tile& tile, int64_t group, const Tensor& out) {
  thread_local Work work;
  const int64_t channels = kv.layout.head_dim, rows = tile.tokens * group;
  const int64_t position0 = tile.sequence->position + tile.token0, length = position0 + tile.tokens;
  const int64_t groups = kv.layout.v_format.group > 0 ? channels / kv.layout.v_format.group : 1;
  TileRun run{ctx, kv, tile, work, group, rows, channels, position0, length, (length + kP - 1) / kP * kP, groups};
  const float softmax_scale = 1.0f / std::sqrt(float(channels));
  const int64_t row0 = tile.sequence->first + tile.token0, column0 = tile.kv_head * group * channels;
  float* rotated = Work::sized(work.q, rows * channels);
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = q.data.row<const float>(row0 + r / group) + column0 + r % group * channels;
    for (int64_t c = 0; c < channels; ++c) rotated[r * channels + c] = in[c] * softmax_scale;
  }
  Work::sized(work.scores, rows * run.stride);
  Work::sized(work.total, rows);
  for (int64_t page = 0; page < run.pages(); ++page) run.score_page(page);
  run.softmax();
  std::fill_n(Work::sized(work.acc, rows * channels), rows * channels, 0.0f);
  std::fill_n(Work::sized(work.offsets, rows * groups), rows * groups, 0.0f);
  for (int64_t page = 0; page < run.pages(); ++page) run.add_values(page);
  for (int64_t r = 0; r < rows; ++r) {
    float* to = out.data.row<float>(row0 + r / group) + column0 + r % group * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float offset = work.offsets[size_t(r * groups + c / (channels / groups))];
      to[c] = (work.acc[size_t(r * channels + c)] + offset) / work.total[size_t(r)];
    }
  }
}

// Tiles never cross a page: all their queries then read the same page as f16.
std::vector<Tile> plan_tiles(const Batch& batch, int64_t kv_heads) {
  std::vector<Tile> tiles;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const BatchSequence& s = batch.sequences[i];
    for (int64_t t = 0; t < s.count;) {
      const int64_t position = s.position + t;
      const int64_t widest = position > 16384 ? 4 : 16;  // scores of a tile stay within a few MB
      const int64_t n = std::min({widest, s.count - t, kP - position % kP});
      for (int64_t h = 0; h < kv_heads; ++h) tiles.push_back({&s, int64_t(i), h, t, n});
      t += n;
    }
  }
  return tiles;
}

}  // namespace

void attention(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, int64_t heads, const Tensor& out) {
  const int64_t channels = kv.layout.head_dim;
  check(q.codec == id<F32> && out.codec == id<F32> && q.rows == batch.size() && out.rows == q.rows &&
            q.cols == heads * channels && out.cols == q.cols,
        "attention: q {} and out {} are not f32 ({}, {} heads of {})", describe(q), describe(out), batch.size(), heads, channels);
  check(heads % kv.kv_heads == 0 && heads / kv.kv_heads <= 32, "attention: {} heads cannot share {} kv heads", heads, kv.kv_heads);
  const CodecInfo& k = info(kv.layout.k_format.codec);
  const CodecInfo& v = info(kv.layout.v_format.codec);
  check(k.linear && v.linear && kv.layout.v_format.group != 1 && channels <= 512,
        "attention: keys {} and values {} (heads of {}) have no reader; linear codecs with values per token do", k.name, v.name,
        channels);
  const std::vector<Tile> tiles = plan_tiles(batch, kv.kv_heads);
  ctx.parallel_for(int64_t(tiles.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) run_tile(ctx, q, kv, tiles[size_t(i)], heads / kv.kv_heads, out);
  });
}

}  // namespace quire
