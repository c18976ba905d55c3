// Attention over the paged cache: bit for bit the written order of attention.h, and within a derived bound the dense
// softmax.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include "kernels/math.h"
#include "tests/expect_error.h"
#include "tests/kv_steps.h"

namespace quire {
namespace {

// One token's keys or values of one head: value[c] = scale * code[c] + offset, with one scale or several.
struct Seen {
  std::vector<float> code, scale, offset;
};

Seen seen_in(const Tensor& part, int64_t row) {
  Seen s;
  s.code.resize(size_t(part.cols));
  info(part.codec).values(part, row, 0, part.cols, s.code.data());
  for (int64_t g = 0; g < part.groups(); ++g) {
    const AffineParams a = info(part.codec).affine(part, row, g);
    s.scale.push_back(a.scale);
    s.offset.push_back(a.offset);
  }
  return s;
}

Seen half_floats(const float* x, int64_t n) {
  Seen s{{}, {1.0f}, {0.0f}};
  for (int64_t c = 0; c < n; ++c) s.code.push_back(f16_to_f32(f32_to_f16(x[c])));
  return s;
}

// What each token of a sequence looks like from its own page and from later ones.
struct History {
  std::vector<Seen> own, later;
  const Seen& from(int64_t token, int64_t query) const {
    return (token / kPageTokens == query / kPageTokens ? own : later)[size_t(token)];
  }
};

History history(const KvView& view, const KvShape& shape, const KvSequence& s, int32_t slot, int64_t head, bool keys) {
  History h;
  for (int64_t i = 0; i < s.length(); ++i) {
    std::byte* block = view.block(slot, i / kPageTokens, head);
    const Tensor part =
        keys ? kv_keys(block, view.layout, &view.k_scale) : kv_values(block, view.layout, &view.v_scale);
    const std::vector<float>& raw = keys ? s.k : s.v;
    h.later.push_back(seen_in(part, i % kPageTokens));
    h.own.push_back(view.layout.sealed()
                        ? half_floats(raw.data() + (i * shape.kv_heads + head) * shape.channels, shape.channels)
                        : h.later.back());
  }
  return h;
}

// Lane i mod 16 takes term i, then a tree.
class LaneSum {
 public:
  void add(size_t i, float a, float b) { lane_[i % 16] = std::fma(a, b, lane_[i % 16]); }
  void add(size_t i, float a) { lane_[i % 16] += a; }
  float total() const {
    float l[16];
    std::copy_n(lane_, 16, l);
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) l[i] += l[i + width];
    }
    return l[0];
  }

 private:
  float lane_[16] = {};
};

float score(const std::vector<float>& q, const Seen& k) {
  const size_t channels = q.size(), groups = k.scale.size();
  if (groups == channels) {
    LaneSum bias;
    float s = 0.0f;
    for (size_t c = 0; c < channels; ++c) bias.add(c, q[c], k.offset[c]);
    for (size_t c = 0; c < channels; ++c) s = std::fma(q[c] * k.scale[c], k.code[c], s);
    return s + bias.total();
  }
  float s = 0.0f;
  for (size_t g = 0; g < groups; ++g) {
    LaneSum qsum;
    float chain = 0.0f;
    const size_t begin = g * channels / groups, end = (g + 1) * channels / groups;
    for (size_t c = begin; c < end; ++c) {
      qsum.add(c - begin, q[c]);
      chain = std::fma(q[c], k.code[c], chain);
    }
    const float term = std::fma(k.offset[g], qsum.total(), k.scale[g] * chain);
    s = g == 0 ? term : s + term;
  }
  return s;
}

// What a query knows of its keys up to some span.
struct Row {
  float peak = 0.0f, total = 0.0f;
  std::vector<float> out;
};

// Tokens [first, last] of the sequence, seen from `position`; those before `hidden` lie outside its window.
Row span_of(const std::vector<float>& q, const History& k, const History& v, int64_t first, int64_t last,
            int64_t position, int64_t hidden) {
  std::vector<float> p;
  for (int64_t i = first; i <= last; ++i) p.push_back(i < hidden ? -1.0e30f : score(q, k.from(i, position)));
  Row row;
  row.peak = *std::max_element(p.begin(), p.end());
  LaneSum total;
  for (size_t i = 0; i < p.size(); ++i) {
    p[i] = exp_f32(p[i] - row.peak);
    total.add(i, p[i]);
  }
  row.total = total.total();
  for (size_t c = 0; c < q.size(); ++c) {
    float sum = 0.0f;
    LaneSum offsets;
    for (size_t i = 0; i < p.size(); ++i) {
      const Seen& s = v.from(first + int64_t(i), position);
      const size_t g = c * s.scale.size() / q.size();
      sum = std::fma(p[i] * s.scale[g], s.code[c], sum);
      offsets.add(i, p[i], s.offset[g]);
    }
    row.out.push_back(sum + offsets.total());
  }
  return row;
}

// attention.h's order, for the query of one head at `position`.
std::vector<float> written_order(const std::vector<float>& q, const History& k, const History& v, int64_t position,
                                 int64_t hidden) {
  Row row;
  const int64_t start = hidden / kSpanTokens * kSpanTokens;
  for (int64_t first = start; first <= position; first += kSpanTokens) {
    const Row next = span_of(q, k, v, first, std::min(first + kSpanTokens - 1, position), position, hidden);
    if (first == start) {
      row = next;
      continue;
    }
    const float top = std::max(row.peak, next.peak), a = exp_f32(row.peak - top), b = exp_f32(next.peak - top);
    row.peak = top;
    row.total = row.total * a + next.total * b;
    for (size_t c = 0; c < q.size(); ++c) row.out[c] = std::fma(next.out[c], b, row.out[c] * a);
  }
  for (float& x : row.out) x /= row.total;
  return row.out;
}

// The dense softmax over decoded keys and values in double; how far f32 may be from it.
void expect_near_dense(const float* query, const std::vector<float>& got, const History& k, const History& v,
                       int64_t position, int64_t hidden) {
  const size_t channels = got.size(), n = size_t(position) + 1, seen_from = size_t(hidden);
  constexpr double kUnit = 0x1.0p-24;
  std::vector<double> s(n);
  double peak = -1e300, widest = 0.0;
  for (size_t i = seen_from; i < n; ++i) {
    const Seen& t = k.from(int64_t(i), position);
    double magnitude = 0.0;
    for (size_t c = 0; c < channels; ++c) {
      const size_t g = c * t.scale.size() / channels;
      const double q = double(query[c]) / std::sqrt(double(channels)), scaled = double(t.scale[g]) * double(t.code[c]);
      s[i] += q * (scaled + double(t.offset[g]));
      magnitude += std::fabs(q) * (std::fabs(scaled) + std::fabs(double(t.offset[g])));
    }
    widest = std::max(widest, magnitude);
    peak = std::max(peak, s[i]);
  }
  double total = 0.0;
  for (size_t i = seen_from; i < n; ++i) total += s[i] = std::exp(s[i] - peak);
  // A score is at most C products, C sums of q, one term a group (at most C) and six roundings away; exp adds 2^-22;
  // both the weights and their total carry this. The chains over tokens round once a token, the total once in 16.
  // Joining spans: the steps from a span's peak to the last one go up only, so their roundings are those of one
  // difference of scores; each join takes an exp and two roundings.
  const double joins = double((n - 1) / size_t(kSpanTokens));
  const double exponent = double(3 * channels + 8) * kUnit * widest + (1.0 + joins) * 0x1.0p-22;
  const double relative = std::expm1(2.0 * exponent) + (double(n) * 17.0 / 16.0 + 10.0 + 4.0 * joins) * kUnit;
  for (size_t c = 0; c < channels; ++c) {
    double exact = 0.0, magnitude = 0.0;
    for (size_t i = seen_from; i < n; ++i) {
      const Seen& t = v.from(int64_t(i), position);
      const size_t g = c * t.scale.size() / channels;
      const double scaled = double(t.scale[g]) * double(t.code[c]), offset = t.offset[g];
      exact += s[i] / total * (scaled + offset);
      magnitude += s[i] / total * (std::fabs(scaled) + std::fabs(offset));
    }
    ASSERT_NEAR(double(got[c]), exact, relative * magnitude) << "channel " << c << ", position " << position;
  }
}

struct Recorded {  // the outputs of one sequence, token by token
  std::vector<float> out;
};

class Attention : public testing::TestWithParam<const char*> {
 protected:
  Machines machines_;

  // Runs sequences through one cache in ragged steps, a different machine each, and returns every output.
  std::vector<Recorded> run(Rng& rng, const KvShape& s, KvCache& cache, const std::vector<int32_t>& slots,
                            const std::vector<KvSequence>& sequences) {
    std::vector<Recorded> recorded(sequences.size());
    const std::vector<Context> all = machines_.all();
    for (size_t round = rng() % all.size();; ++round) {
      std::vector<KvPiece> pieces;
      std::vector<size_t> whose;
      for (size_t i = 0; i < sequences.size(); ++i) {
        const int64_t left = sequences[i].length() - cache.length(slots[i]);
        if (left == 0 || rng() % 8 == 0) continue;
        pieces.push_back({slots[i], &sequences[i], std::min(left, rng() % 4 == 0 ? 1 : between(rng, 2, 60))});
        whose.push_back(i);
      }
      if (pieces.empty()) {
        bool done = true;
        for (size_t i = 0; i < sequences.size(); ++i) done &= cache.length(slots[i]) == sequences[i].length();
        if (done) return recorded;
        continue;
      }
      // Unoptimised builds take seconds for long steps on the scalar path.
      int64_t tokens = 0;
      for (const KvPiece& p : pieces) tokens += p.count;
      const size_t machine =
          tokens > 20 && all[round % all.size()].isa == Isa::baseline ? all.size() - 1 : round % all.size();
      const std::vector<float> out = kv_step(all[machine], s, cache, pieces);
      const float* from = out.data();
      for (size_t i = 0; i < pieces.size(); ++i) {
        std::vector<float>& to = recorded[whose[i]].out;
        to.insert(to.end(), from, from + pieces[i].count * s.heads * s.channels);
        from += pieces[i].count * s.heads * s.channels;
      }
    }
  }

  void compare(Rng& rng, const KvShape& s, KvCache& cache, int32_t slot, const KvSequence& sequence,
               const Recorded& got) {
    const int64_t head = between(rng, 0, s.heads - 1), kv_head = head / (s.heads / s.kv_heads);
    const KvView view = cache.view(0);
    const History k = history(view, s, sequence, slot, kv_head, true),
                  v = history(view, s, sequence, slot, kv_head, false);
    for (int i = 0; i < 8; ++i) {
      const int64_t position = i == 0 ? sequence.length() - 1 : between(rng, 0, sequence.length() - 1);
      const size_t at = size_t((position * s.heads + head) * s.channels);
      const float* query = sequence.q.data() + at;
      std::vector<float> q(query, query + s.channels);
      for (float& x : q) x *= 1.0f / std::sqrt(float(s.channels));
      const std::vector<float> out(got.out.begin() + long(at), got.out.begin() + long(at) + s.channels);
      const int64_t hidden = AttentionShape::hidden(position, s.window);
      ASSERT_EQ(first_difference(out, written_order(q, k, v, position, hidden)), "")
          << "position " << position << ", head " << head << " of " << s.heads << ", " << s.channels << " channels";
      expect_near_dense(query, out, k, v, position, hidden);
    }
  }
};

TEST_P(Attention, WrittenOrder) {
  Rng rng(7);
  for (const int64_t channels : {16, 64, 96, 128}) {
    if (std::string(GetParam()) == "kv2" && channels == 16) continue;  // no group of 32
    for (const int64_t group : {1, 3, 4}) {
      const KvShape s{2 * group, 2, channels};
      KvCache cache(kv_config(s, GetParam(), 12, 3, 200));
      std::vector<KvSequence> sequences;
      std::vector<int32_t> slots;
      for (const int64_t length :
           {between(rng, 1, 30), between(rng, 60, 70), between(rng, 71, channels * group > 64 ? 90 : 200)}) {
        sequences.push_back(random_sequence(rng, s, length));
        slots.push_back(cache.open());
      }
      const std::vector<Recorded> got = run(rng, s, cache, slots, sequences);
      for (size_t i = 0; i < sequences.size(); ++i) {
        ASSERT_NO_FATAL_FAILURE(compare(rng, s, cache, slots[i], sequences[i], got[i]));
      }
    }
  }
}

TEST_P(Attention, WholeChunkedAndTokenByTokenAreEqual) {
  Rng rng(8);
  const KvShape s{3, 1, 64, 2};
  const KvSequence sequence = random_sequence(rng, s, 140);
  std::vector<float> expected;
  for (const int64_t chunk : {0, 1, 64, 37, 100}) {
    KvCache cache(kv_config(s, GetParam(), 3, 1, 192));
    const std::vector<float> out = kv_run(machines_.context(), s, cache, cache.open(), sequence, chunk);
    if (expected.empty()) expected = out;
    EXPECT_EQ(first_difference(out, expected), "") << "in chunks of " << chunk;
  }
}

TEST_P(Attention, MachinesAreEqual) {
  Rng rng(9);
  const KvShape s{3, 1, 96};
  const KvSequence sequence = random_sequence(rng, s, 69);
  std::vector<float> expected;
  for (const Context& ctx : machines_.all()) {
    KvCache cache(kv_config(s, GetParam(), 2, 1, 128));
    const std::vector<float> out = kv_run(ctx, s, cache, cache.open(), sequence);
    if (expected.empty()) expected = out;
    EXPECT_EQ(first_difference(out, expected), "") << to_string(ctx.isa) << ", " << ctx.pool->threads() << " threads";
  }
}

// A window hides the beginning of a span, whole spans, or all but the query itself.
TEST_P(Attention, WindowHidesOlderTokens) {
  Rng rng(14);
  for (const int64_t window : {1, 50, 300}) {
    const KvShape s{.heads = 6, .kv_heads = 2, .channels = 64, .window = window};
    const KvSequence sequence = random_sequence(rng, s, 2 * kSpanTokens + 20);
    std::vector<float> expected;
    for (const int64_t chunk : {0, 100, 1}) {
      KvCache cache(kv_config(s, GetParam(), 9, 1, 9 * kPageTokens));
      const int32_t slot = cache.open();
      Recorded got;
      if (chunk == 1) got.out = kv_run(machines_.context(), s, cache, slot, sequence, 0, 2 * kSpanTokens - 2);
      const std::vector<float> out = kv_run(machines_.context(), s, cache, slot, sequence, chunk);
      got.out.insert(got.out.end(), out.begin(), out.end());
      if (chunk == 0) {
        expected = got.out;
        compare(rng, s, cache, slot, sequence, got);
      }
      EXPECT_EQ(first_difference(got.out, expected), "") << "window " << window << ", in chunks of " << chunk;
    }
  }
}

// Several spans: joined by the thread that walks them, or given to threads one by one and joined afterwards.
TEST_P(Attention, SpansAreJoinedInOrder) {
  Rng rng(13);
  const KvShape s{6, 2, 64};
  const KvSequence sequence = random_sequence(rng, s, 2 * kSpanTokens + 20);
  const int64_t prompt = 2 * kSpanTokens + 5, row = s.heads * s.channels;
  Recorded expected;
  for (const Context& ctx : machines_.all()) {
    KvCache cache(kv_config(s, GetParam(), 9, 1, 9 * kPageTokens));
    const int32_t slot = cache.open();
    Recorded got;
    got.out = kv_run(machines_.context(), s, cache, slot, sequence, 300, prompt);
    for (const auto& [chunk, until] : {std::pair(int64_t(1), prompt + 6), std::pair(int64_t(0), sequence.length())}) {
      const std::vector<float> more = kv_run(ctx, s, cache, slot, sequence, chunk, until);
      got.out.insert(got.out.end(), more.begin(), more.end());
    }
    if (expected.out.empty()) {
      expected = got;
      compare(rng, s, cache, slot, sequence, got);
    }
    EXPECT_EQ(first_difference(got.out, expected.out), "") << to_string(ctx.isa) << ", " << ctx.pool->threads();
  }
  // The same as a prompt of one step.
  KvCache cache(kv_config(s, GetParam(), 9, 1, 9 * kPageTokens));
  const std::vector<float> whole = kv_run(machines_.context(), s, cache, cache.open(), sequence);
  EXPECT_EQ(first_difference(whole.data() + prompt * row, expected.out.data() + prompt * row,
                             (sequence.length() - prompt) * row),
            "");
}

// Pages are an address, nothing more: a cache whose pages lie in any order and hold other sequences between gives the
// same.
TEST_P(Attention, PagedEqualsDense) {
  Rng rng(10);
  const KvShape s{3, 3, 64};
  const KvSequence sequence = random_sequence(rng, s, 200), other = random_sequence(rng, s, 130);
  KvCache dense(kv_config(s, GetParam(), 4, 1, 256));
  const std::vector<float> expected = kv_run(machines_.context(), s, dense, dense.open(), sequence);
  KvCache paged(kv_config(s, GetParam(), 7, 2, 256));
  const int32_t before = paged.open(), slot = paged.open();
  for (int64_t n = 0; n < 130; n += 26) {
    kv_run(machines_.context(), s, paged, before, other, 0, n + 26);
    if (n == 52) kv_run(machines_.context(), s, paged, slot, sequence, 0, 1);
  }
  std::vector<float> out = kv_run(machines_.context(), s, paged, slot, sequence, 50);
  out.insert(out.begin(), expected.begin(), expected.begin() + s.heads * s.channels);
  EXPECT_EQ(first_difference(out, expected), "");
  const KvView view = paged.view(0);
  EXPECT_NE(view.page_table[slot * view.max_pages + 1], view.page_table[slot * view.max_pages] + 1)
      << "pages were in order";
}

// Scores far apart and huge values stay finite and keep the largest.
TEST_P(Attention, ExtremeScores) {
  Rng rng(11);
  const KvShape s{2, 1, 64};
  KvSequence sequence = random_sequence(rng, s, 70);
  for (float& x : sequence.q) x *= 3000.0f;
  for (float& x : sequence.k) x *= 1000.0f;
  for (float& x : sequence.v) x *= 30000.0f;
  KvCache cache(kv_config(s, GetParam(), 2, 1, 128));
  const std::vector<float> out = kv_run(machines_.context(), s, cache, cache.open(), sequence);
  for (const float x : out) ASSERT_TRUE(std::isfinite(x) && std::fabs(x) <= 65504.0f * 1.5f) << x;
}

INSTANTIATE_TEST_SUITE_P(Caches, Attention, testing::ValuesIn(kCacheWords),
                         [](const auto& i) { return std::string(i.param); });

// The memory plan counts on it: no step takes more, and the largest takes nearly all.
TEST(AttentionScratch, IsWhatIsStated) {
  Rng rng(14);
  Machines machines;
  for (const char* word : {"kv8", "kv2"}) {
    for (const int threads : {1, 3}) {
      const KvShape s{6, 2, 256};
      const int64_t chunk = 512, context = 1200;
      KvCache cache(kv_config(s, word, 60, 3, context));
      const int64_t stated = attention_scratch(cache.layout(), s.heads, s.kv_heads, chunk + 2, context, threads);
      ASSERT_GT(stated, 1 << 20);  // else the scratch's least block hides it
      size_t most = 0;
      const KvSequence sequence = random_sequence(rng, s, context);
      const int32_t a = cache.open(), b = cache.open(), c = cache.open();
      while (cache.length(a) < context) {
        Scratch scratch;
        Context ctx = machines.context(default_isa(), threads);
        ctx.scratch = &scratch;
        const int64_t left = context - cache.length(a);
        if (left > 1) {
          kv_step(ctx, s, cache, {{b, &sequence, 1}, {c, &sequence, 1}, {a, &sequence, std::min(chunk, left - 1)}});
        } else {
          kv_step(ctx, s, cache, {{a, &sequence, 1}});  // span by span
        }
        most = std::max(most, scratch.capacity());
      }
      EXPECT_LE(most, size_t(stated)) << word << ", " << threads << " threads";
      EXPECT_GT(most, size_t(stated / 2)) << word << ", " << threads << " threads";
    }
  }
}

// Sealed kinds keep what a sequence reads from its own page in f16: below one page they are the f16 cache (K10).
TEST(AttentionSealed, ShorterThanAPageEqualsHalfFloats) {
  Rng rng(12);
  Machines machines;
  const KvShape s{4, 2, 64, 2};
  const KvSequence sequence = random_sequence(rng, s, 64);
  KvCache half(kv_config(s, "kvf16", 1, 1, 64));
  const std::vector<float> expected = kv_run(machines.context(), s, half, half.open(), sequence);
  for (const char* word : {"kv4", "kv2"}) {
    for (const int64_t chunk : {0, 1, 40}) {
      KvCache cache(kv_config(s, word, 1, 1, 64));
      EXPECT_EQ(first_difference(kv_run(machines.context(), s, cache, cache.open(), sequence, chunk), expected), "")
          << word;
    }
  }
}

TEST(AttentionRefusals, ShapesAndHeads) {
  Machines machines;
  const KvShape s{4, 2, 16};
  KvCache cache(kv_config(s, "kv8", 1, 1, 64));
  std::vector<float> x(64), y(64);
  const Batch none;
  const KvView view = cache.view(0);
  const auto refused = [&](int64_t heads, int64_t cols, std::initializer_list<std::string> parts) {
    expect_error([&] { attention(machines.context(), f32_view(x, 0, cols), view, none, heads, f32_view(y, 0, cols)); },
                 parts);
  };
  refused(3, 48, {"attention", "3 heads", "2 kv heads"});
  refused(4, 48, {"attention", "4 heads of 16"});
  attention(machines.context(), f32_view(x, 0, 64), view, none, 4, f32_view(y, 0, 64));  // nothing to do is no error
}

}  // namespace
}  // namespace quire
