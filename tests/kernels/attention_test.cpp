// Attention over the paged cache: bit for bit the written order of attention.h, and within a derived bound the dense
// softmax.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/kernels/attention_order.h"

namespace quire {
namespace {

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
