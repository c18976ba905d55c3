// The paged cache: what is appended depends on the tokens alone, never on chunks, pages, neighbours or what a page held
// before.
#include "kvcache/kv_cache.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/expect_error.h"
#include "tests/kv_steps.h"

namespace quire {
namespace {

class Cache : public testing::TestWithParam<const char*> {
 protected:
  Machines machines_;
  Context ctx_ = machines_.context();
  Rng rng_{3};
  KvShape shape_{2, 2, 64, 2};

  KvCache cache(int64_t pages, int64_t slots, int64_t max_tokens = 256) {
    return KvCache(kv_config(shape_, GetParam(), pages, slots, max_tokens));
  }
  bool sealed() { return cache(1, 1).layout().sealed(); }
  std::vector<float> run(KvCache& c, int32_t slot, const KvSequence& s, int64_t chunk = 0, int64_t until = -1) {
    return kv_run(ctx_, shape_, c, slot, s, chunk, until);
  }
};

// Every byte of a page that a token of it may have written is the largest finite thing it could be.
void poison(KvCache& cache) {
  for (int64_t layer = 0; layer < cache.config().layers; ++layer) {
    const KvView view = cache.view(layer);
    for (int64_t b = 0; b < cache.config().pages * view.kv_heads; ++b) {
      std::byte* block = view.pool + b * view.layout.bytes;
      std::memset(block, 0xff, size_t(view.layout.bytes));
      const auto halves = [&](int64_t at, int64_t bytes) {
        for (int64_t i = 0; i < bytes; i += 2) std::memcpy(block + at + i, "\xff\x7b", 2);  // 65504
      };
      for (const bool keys : {true, false}) {
        const KvPart& part = keys ? view.layout.k : view.layout.v;
        const KvFormat& format = keys ? view.layout.k_format : view.layout.v_format;
        if (format.codec == id<F16>) halves(part.codes, 64 * part.code_pitch);
        if (part.meta_pitch > 0) halves(part.meta, 64 / format.span * part.meta_pitch);
      }
    }
  }
}

TEST_P(Cache, AnyChunksWriteTheSameBytes) {
  const KvSequence s = random_sequence(rng_, shape_, 140);
  std::vector<std::string> expected;
  for (const int64_t chunk : {0, 1, 64, 23}) {
    KvCache c = cache(3, 1);
    const int32_t slot = c.open();
    run(c, slot, s, chunk);
    EXPECT_EQ(c.length(slot), 140);
    std::vector<std::string> pages;
    for (int64_t p = 0; p < 3; ++p) pages.push_back(page_bytes_of(c, slot, p));
    if (expected.empty()) expected = pages;
    for (size_t p = 0; p < 3; ++p) EXPECT_TRUE(pages[p] == expected[p]) << "page " << p << " in chunks of " << chunk;
  }
}

TEST_P(Cache, WritesOnlyItsOwnTokens) {
  const KvSequence s = random_sequence(rng_, shape_, 70);
  KvCache c = cache(4, 2);
  poison(c);
  const int32_t slot = c.open();
  run(c, slot, s, 0, 65);
  const KvView view = c.view(1);
  // What no token wrote keeps its bytes: pages not asked for, and rows to come of the row kinds.
  const std::string untouched = [&] {
    KvCache fresh = cache(1, 1);
    poison(fresh);
    const KvView v = fresh.view(0);
    return std::string(reinterpret_cast<const char*>(v.pool), size_t(v.layout.bytes));
  }();
  for (int64_t b = 2 * view.kv_heads; b < 4 * view.kv_heads; ++b) {
    EXPECT_EQ(std::memcmp(view.pool + b * view.layout.bytes, untouched.data(), untouched.size()), 0) << "block " << b;
  }
  const std::string open = page_bytes_of(c, slot, 1);
  if (sealed()) {
    for (size_t at = 0; at < open.size(); at += untouched.size())
      EXPECT_TRUE(open.substr(at, untouched.size()) == untouched);
  } else {
    const KvPart& k = view.layout.k;
    for (int64_t row = 1; row < 64; ++row) {
      const size_t at = size_t(k.codes + row * k.code_pitch), n = size_t(k.code_pitch);
      ASSERT_TRUE(open.substr(at, n) == untouched.substr(at, n)) << "row " << row;
    }
  }
}

// A page is sealed when its last token comes, in one piece, from its own tokens alone (K8 and K9 with groups that fit a
// page).
TEST_P(Cache, SealedPagesDependOnTheirOwnTokens) {
  if (!sealed()) return;
  const KvSequence a = random_sequence(rng_, shape_, 128);
  KvSequence b = random_sequence(rng_, shape_, 128);
  const int64_t row = shape_.kv_heads * shape_.channels;
  std::copy_n(a.k.begin() + 64 * row, 64 * row, b.k.begin() + 64 * row);
  std::copy_n(a.v.begin() + 64 * row, 64 * row, b.v.begin() + 64 * row);
  KvCache c = cache(4, 2);
  const int32_t whole = c.open(), piecewise = c.open();
  run(c, whole, a);
  run(c, piecewise, b, 0, 127);
  const std::string empty(page_bytes_of(c, piecewise, 1).size(), '\0');
  EXPECT_TRUE(page_bytes_of(c, piecewise, 1) == empty) << "sealed before its last token came";
  EXPECT_FALSE(page_bytes_of(c, piecewise, 0) == empty);
  run(c, piecewise, b);
  EXPECT_TRUE(page_bytes_of(c, piecewise, 1) == page_bytes_of(c, whole, 1));
  EXPECT_FALSE(page_bytes_of(c, piecewise, 0) == page_bytes_of(c, whole, 0));
}

TEST_P(Cache, WhatAPageHeldBeforeDoesNotMatter) {
  const KvSequence s = random_sequence(rng_, shape_, 130), loud = random_sequence(rng_, shape_, 192);
  KvCache fresh = cache(3, 1);
  const std::vector<float> expected = run(fresh, fresh.open(), s);
  KvSequence extreme = loud;
  for (std::vector<float>* x : {&extreme.k, &extreme.v}) {
    for (size_t i = 0; i < x->size(); ++i) (*x)[i] = i % 3 == 0 ? 1e30f : -7e4f;
  }
  KvCache used = cache(3, 1);
  int32_t slot = used.open();
  run(used, slot, extreme);
  used.close(slot);
  slot = used.open();
  EXPECT_EQ(first_difference(run(used, slot, s, 50), expected), "") << "after another sequence";
  used.close(slot);
  poison(used);
  slot = used.open();
  EXPECT_EQ(first_difference(run(used, slot, s, 1), expected), "") << "after poison";
}

TEST_P(Cache, NothingNonFiniteEnters) {
  KvSequence s = random_sequence(rng_, shape_, 130);
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity(),
                       3e38f,
                       -3e38f,
                       1e-42f};
  for (size_t i = 0; i < s.k.size(); i += 7) s.k[i] = bad[i / 7 % 6];
  for (size_t i = 3; i < s.v.size(); i += 11) s.v[i] = bad[i % 6];
  KvCache c = cache(3, 1);
  const int32_t slot = c.open();
  for (const float x : run(c, slot, s, 40)) ASSERT_TRUE(std::isfinite(x));
  for (int64_t layer = 0; layer < 2; ++layer) {
    const KvView view = c.view(layer);
    for (int64_t p = 0; p < 3; ++p) {
      for (int64_t h = 0; h < 2; ++h) {
        std::byte* block = view.block(slot, p, h);
        for (const float x : decoded(kv_keys(block, view.layout, &view.k_scale))) ASSERT_TRUE(std::isfinite(x));
        for (const float x : decoded(kv_values(block, view.layout, &view.v_scale))) ASSERT_TRUE(std::isfinite(x));
      }
    }
  }
}

TEST_P(Cache, ForkSharesAndCopiesOnWrite) {
  const KvSequence a = random_sequence(rng_, shape_, 200);
  KvSequence b = random_sequence(rng_, shape_, 200);
  const int64_t narrow = shape_.kv_heads * shape_.channels, wide = shape_.heads * shape_.channels, common = 100;
  std::copy_n(a.k.begin(), common * narrow, b.k.begin());
  std::copy_n(a.v.begin(), common * narrow, b.v.begin());
  std::copy_n(a.q.begin(), common * wide, b.q.begin());
  std::copy_n(a.tokens.begin(), common, b.tokens.begin());
  const auto alone = [&](const KvSequence& s) {
    KvCache c = cache(4, 1);
    const int32_t slot = c.open();
    run(c, slot, s, 0, common);
    return run(c, slot, s);
  };
  const std::vector<float> expected_a = alone(a), expected_b = alone(b);
  for (const bool fork_first : {true, false}) {
    KvCache c = cache(7, 2);
    const int32_t one = c.open();
    run(c, one, a, 30, common);
    const int64_t before = c.pages().available();
    const int32_t two = c.fork(one);
    ASSERT_GE(two, 0);
    EXPECT_EQ(c.length(two), common);
    EXPECT_EQ(c.pages().available(), before) << "a fork alone takes no page";
    EXPECT_EQ(c.fork(one), -1) << "there are two slots";
    const std::string full = page_bytes_of(c, one, 0), half = page_bytes_of(c, one, 1);
    const int32_t first = fork_first ? two : one, second = fork_first ? one : two;
    run(c, first, fork_first ? b : a, 0, 150);
    EXPECT_TRUE(page_bytes_of(c, second, 0) == full);
    EXPECT_TRUE(page_bytes_of(c, second, 1) == half) << "the other's page was written";
    const std::vector<float> second_out = run(c, second, fork_first ? a : b, 7);
    EXPECT_EQ(first_difference(second_out, fork_first ? expected_a : expected_b), "");
    run(c, first, fork_first ? b : a, 1);
    // Replaying the last token's attention needs the whole sequence: compare with a run of its own.
    KvCache check_cache = cache(4, 1);
    const int32_t slot = check_cache.open();
    run(check_cache, slot, fork_first ? b : a);
    for (int64_t p = 0; p < 3; ++p) EXPECT_TRUE(page_bytes_of(c, first, p) == page_bytes_of(check_cache, slot, p)) << p;
    EXPECT_TRUE(page_bytes_of(c, one, 0) == page_bytes_of(c, two, 0));
    c.close(one);
    c.close(two);
    EXPECT_EQ(c.pages().available(), 7);
  }
}

TEST_P(Cache, SharesPrefixesNeverTheLastToken) {
  const KvSequence a = random_sequence(rng_, shape_, 192);
  KvSequence b = random_sequence(rng_, shape_, 192);
  const int64_t narrow = shape_.kv_heads * shape_.channels, wide = shape_.heads * shape_.channels, common = 150;
  std::copy_n(a.k.begin(), common * narrow, b.k.begin());
  std::copy_n(a.v.begin(), common * narrow, b.v.begin());
  std::copy_n(a.q.begin(), common * wide, b.q.begin());
  std::copy_n(a.tokens.begin(), common, b.tokens.begin());
  KvCache alone = cache(3, 1);
  const int32_t lonely = alone.open();
  run(alone, lonely, b, 0, 128);
  const std::vector<float> expected = run(alone, lonely, b);

  KvCache c = cache(6, 2);
  const int32_t first = c.open(a.tokens);
  EXPECT_EQ(c.length(first), 0);
  run(c, first, a);
  const int32_t second = c.open(b.tokens);  // while the first is still there
  EXPECT_EQ(c.length(second), 128);
  EXPECT_EQ(c.pages().available(), 3);
  EXPECT_EQ(first_difference(run(c, second, b, 20), expected), "");
  EXPECT_EQ(c.pages().available(), 2);
  c.close(second);
  c.close(first);
  EXPECT_EQ(c.pages().available(), 6);
  EXPECT_EQ(c.pages().kept(), 4);
  const auto shared = [&](std::span<const int32_t> tokens) {
    const int32_t slot = c.open(tokens);
    const int64_t length = c.length(slot);
    c.close(slot);
    return length;
  };
  EXPECT_EQ(shared(a.tokens), 128) << "192 are there, but the last token is always computed";
  EXPECT_EQ(shared(std::span(a.tokens).first(129)), 128);
  EXPECT_EQ(shared(std::span(a.tokens).first(128)), 64);
  EXPECT_EQ(shared(std::span(a.tokens).first(64)), 0);
  EXPECT_EQ(shared(std::span(a.tokens).subspan(1)), 0);
  std::vector<int32_t> longer = a.tokens;
  longer.push_back(5);
  EXPECT_EQ(shared(longer), 192);
}

TEST_P(Cache, EvictsTheEndsOfOldSequencesFirst) {
  const KvSequence a = random_sequence(rng_, shape_, 129), b = random_sequence(rng_, shape_, 64);
  KvCache c = cache(3, 1);
  int32_t slot = c.open();
  run(c, slot, a);
  c.close(slot);
  EXPECT_EQ(c.pages().kept(), 2);
  slot = c.open();
  run(c, slot, b);  // takes the page that was never full
  EXPECT_EQ(c.pages().kept(), 2);
  c.close(slot);
  slot = c.open();
  ASSERT_TRUE(c.reserve(slot, 64));  // takes the second page of a, the oldest
  c.close(slot);
  slot = c.open(a.tokens);
  EXPECT_EQ(c.length(slot), 64);
  c.close(slot);
  slot = c.open();
  ASSERT_TRUE(c.reserve(slot, 192));
  c.close(slot);
  slot = c.open(a.tokens);
  EXPECT_EQ(c.length(slot), 0);
}

TEST_P(Cache, RunningOutChangesNothing) {
  const KvSequence a = random_sequence(rng_, shape_, 256);
  KvCache c = cache(4, 3);
  const int32_t one = c.open();
  run(c, one, a, 0, 100);  // two pages
  const int32_t two = c.fork(one);
  const KvView view = c.view(0);
  const auto table = [&] { return std::vector<int32_t>(view.page_table, view.page_table + 3 * view.max_pages); };
  const std::vector<int32_t> before = table();
  // Page 1 is shared: 28 more tokens fit it only after a copy.
  EXPECT_EQ(c.pages().available(), 2);
  EXPECT_EQ(c.pages_needed(two, 28), 1);
  EXPECT_EQ(c.pages_needed(two, 29), 2);
  EXPECT_EQ(c.pages_needed(two, 100), 3);
  EXPECT_FALSE(c.reserve(two, 100));
  EXPECT_EQ(table(), before);
  EXPECT_EQ(c.pages().available(), 2);
  EXPECT_EQ(c.length(two), 100);
  EXPECT_TRUE(c.reserve(two, 92));
  EXPECT_EQ(c.pages().available(), 0);
  EXPECT_EQ(c.pages_needed(one, 28), 0) << "its page is its own again";
  EXPECT_TRUE(c.reserve(one, 28));
  EXPECT_FALSE(c.reserve(one, 29));
  const int32_t three = c.open();
  EXPECT_FALSE(c.reserve(three, 1));
  EXPECT_EQ(c.open(), -1);
  const int32_t taken = one;
  c.close(two);
  const int32_t fork = c.fork(taken);
  Batch batch = kv_batch(c, {{taken, &a, 28}});
  expect_error([&] { c.begin_step(batch); }, {"slot 0", "shares"});  // reserved before it was forked
  c.close(fork);
  c.begin_step(batch);
  EXPECT_TRUE(c.reserve(three, 64));
  expect_error([&] { c.reserve(one, 157); }, {"257", "256"});
}

TEST_P(Cache, RefusesWhatDoesNotContinue) {
  const KvSequence a = random_sequence(rng_, shape_, 20);
  KvCache c = cache(2, 2);
  const int32_t slot = c.open();
  run(c, slot, a, 0, 10);
  Batch batch = kv_batch(c, {{slot, &a, 5}});
  batch.sequences[0].position = 9;
  expect_error([&] { c.begin_step(batch); }, {"slot 0", "10 tokens", "9"});
  batch.sequences[0].position = 10;
  batch.sequences[0].count = 60;
  expect_error([&] { c.begin_step(batch); }, {"no page", "69"});
  batch.sequences[0] = {1, 0, 5, 0};
  expect_error([&] { c.begin_step(batch); }, {"slot 1"});
  expect_error([&] { c.close(1); }, {"slot 1"});
  batch = kv_batch(c, {{slot, &a, 5}});
  c.begin_step(batch);
  std::vector<float> x(5 * 128);
  expect_error([&] { c.append(ctx_, 0, batch, f32_view(x, 5, 64), f32_view(x, 5, 64)); },
               {"append", "(5, 128)", "(5, 64)"});
}

INSTANTIATE_TEST_SUITE_P(Words, Cache, testing::ValuesIn(kCacheWords),
                         [](const auto& i) { return std::string(i.param); });

// Powers of two: keys and values that are so much larger have the same codes, and results that are as much larger.
TEST(StaticScales, ScaleKeysAndValues) {
  Machines machines;
  Rng rng(7);
  const KvShape shape{4, 2, 64, 1};
  const KvSequence plain = random_sequence(rng, shape, 150);
  KvSequence scaled = plain;
  for (float& x : scaled.q) x *= 0.25f;
  for (float& x : scaled.k) x *= 4.0f;
  for (float& x : scaled.v) x *= 0.5f;
  KvCacheConfig config = kv_config(shape, "kvfp8", 3, 1, 192);
  KvCache one(config);
  config.scales = {{4.0f, 0.5f}};
  KvCache other(config);
  const std::vector<float> expected = kv_run(machines.context(), shape, one, one.open(), plain, 70);
  std::vector<float> got = kv_run(machines.context(), shape, other, other.open(), scaled, 70);
  for (float& x : got) x *= 2.0f;
  EXPECT_EQ(got, expected);
  config.scales.push_back({});
  expect_error([&] { KvCache{config}; }, {"2 static scales", "1 layers"});
}

TEST(CacheBytes, ArePlannedFromTheConfiguration) {
  const KvShape s{4, 2, 128, 3};
  EXPECT_EQ(KvCache::page_bytes(kv_config(s, "kv8", 1, 1, 64)), 3 * 2 * 16896);
  EXPECT_EQ(KvCache::page_bytes(kv_config(s, "kv4", 1, 1, 64)), 3 * 2 * 8960);
  EXPECT_EQ(KvCache::stage_bytes(kv_config(s, "kv8", 1, 5, 64)), 0);
  EXPECT_EQ(KvCache::stage_bytes(kv_config(s, "kv4", 1, 5, 64)), 3 * 5 * 2 * 32768);
}

TEST(CacheBytes, TooMuchIsAnError) {
  const KvShape s{4, 2, 128, 3};
  expect_error([&] { KvCache(kv_config(s, "kvf16", int64_t(1) << 40, 1, 64)); }, {"out of memory", "bytes"});
}

}  // namespace
}  // namespace quire
