// Long random use of one small cache: sequences that share beginnings are opened, continued, forked, closed and pushed
// out; every output must be what the sequence gives alone in a fresh cache.
#include <gtest/gtest.h>

#include "tests/kv_steps.h"

namespace quire {
namespace {

constexpr KvShape kShape{2, 1, 32, 1};
constexpr int64_t kLength = 200, kRow = 2 * 32;

// Eight stories: at tokens 0, 70 and 128 each takes one of two turns. Equal beginnings have equal tokens, keys, values,
// queries.
std::vector<KvSequence> make_stories() {
  std::vector<KvSequence> stories;
  for (uint32_t which = 0; which < 8; ++which) {
    KvSequence s;
    const std::pair<int64_t, int64_t> parts[] = {{0, 70}, {70, 128}, {128, kLength}};
    for (uint32_t part = 0; part < 3; ++part) {
      Rng rng((which & ((2u << part) - 1)) * 3 + part + 1);  // of the turns so far
      const KvSequence next = random_sequence(rng, kShape, parts[part].second - parts[part].first);
      s.tokens.insert(s.tokens.end(), next.tokens.begin(), next.tokens.end());
      s.q.insert(s.q.end(), next.q.begin(), next.q.end());
      s.k.insert(s.k.end(), next.k.begin(), next.k.end());
      s.v.insert(s.v.end(), next.v.begin(), next.v.end());
    }
    stories.push_back(std::move(s));
  }
  return stories;
}

struct Teller {
  int32_t slot;
  size_t story;
};

class CacheUse : public testing::TestWithParam<const char*> {
 protected:
  Machines machines_;
  Context ctx_ = machines_.context(default_isa(), 1);
  Rng rng_{21};
  const std::vector<KvSequence> stories_ = make_stories();
  std::vector<std::vector<float>> expected_;
  int64_t shared_ = 0, forked_ = 0, refused_ = 0;

  bool same_beginning(size_t a, size_t b, int64_t length) const {
    return std::equal(stories_[a].tokens.begin(), stories_[a].tokens.begin() + length, stories_[b].tokens.begin());
  }
  void open(KvCache& cache, std::vector<Teller>& tellers) {
    const size_t story = rng_() % 8;
    const int32_t slot = cache.open(stories_[story].tokens);
    ASSERT_EQ(slot < 0, tellers.size() == 4);
    if (slot < 0) return;
    ASSERT_EQ(cache.length(slot) % kPageTokens, 0);
    ASSERT_LT(cache.length(slot), kLength);
    shared_ += cache.length(slot);
    tellers.push_back({slot, story});
  }
  void fork(KvCache& cache, std::vector<Teller>& tellers) {
    if (tellers.empty()) return;
    const Teller from = tellers[rng_() % tellers.size()];
    const int32_t slot = cache.fork(from.slot);
    ASSERT_EQ(slot < 0, tellers.size() == 4);
    if (slot < 0) return;
    size_t story = rng_() % 8;  // goes another way where the beginning allows it
    while (!same_beginning(story, from.story, cache.length(slot))) story = rng_() % 8;
    tellers.push_back({slot, story});
    ++forked_;
  }
  // One step of some of the sequences, side by side; those there is no room for are left out.
  void advance(KvCache& cache, const std::vector<Teller>& tellers) {
    std::vector<KvPiece> pieces;
    std::vector<Teller> who;
    for (const Teller& t : tellers) {
      const int64_t left = kLength - cache.length(t.slot);
      if (left == 0 || rng_() % 3 == 0) continue;
      const int64_t n = std::min<int64_t>(left, rng_() % 2 ? between(rng_, 1, 5) : between(rng_, 6, 90));
      if (!cache.reserve(t.slot, n)) {
        ++refused_;
        continue;
      }
      pieces.push_back({t.slot, &stories_[t.story], n});
      who.push_back(t);
    }
    if (pieces.empty()) return;
    std::vector<int64_t> at;
    for (const Teller& t : who) at.push_back(cache.length(t.slot));
    const std::vector<float> out = kv_step(ctx_, kShape, cache, pieces);
    const float* from = out.data();
    for (size_t i = 0; i < pieces.size(); ++i) {
      const float* expected = expected_[who[i].story].data() + at[i] * kRow;
      ASSERT_EQ(first_difference(from, expected, pieces[i].count * kRow), "")
          << "story " << who[i].story << " from " << at[i];
      from += pieces[i].count * kRow;
    }
  }
};

TEST_P(CacheUse, EverySequenceIsAsIfAlone) {
  for (const KvSequence& s : stories_) {
    KvCache alone(kv_config(kShape, GetParam(), 4, 1, 256));
    expected_.push_back(kv_run(ctx_, kShape, alone, alone.open(), s));
  }
  KvCache cache(kv_config(kShape, GetParam(), 9, 4, 256));
  std::vector<Teller> tellers;
  for (int step = 0; step < 400; ++step) {
    switch (rng_() % 8) {
      case 0:
      case 1:
        open(cache, tellers);
        break;
      case 2:
        fork(cache, tellers);
        break;
      case 3:
        if (!tellers.empty()) {
          const size_t i = rng_() % tellers.size();
          cache.close(tellers[i].slot);
          tellers.erase(tellers.begin() + long(i));
        }
        break;
      default:
        advance(cache, tellers);
    }
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(shared_, 1000);
  EXPECT_GT(forked_, 10);
  EXPECT_GT(refused_, 5);
  for (const Teller& t : tellers) cache.close(t.slot);
  EXPECT_EQ(cache.pages().available(), 9);
}

// The memory plan counts on it.
TEST(CacheStep, OpenPagesTakeAtMostWhatIsStated) {
  Rng rng(15);
  Machines machines;
  const KvShape shape{2, 1, 32, 1};
  const int64_t page = kv_layout({}, {}, shape.channels).bytes * shape.kv_heads;
  const KvSequence sequence = random_sequence(rng, shape, 400);
  {
    KvCache cache(kv_config(shape, "kv4", 8, 1, 400));  // the end of a page, a whole one, the beginning of the next
    const int32_t slot = cache.open();
    kv_step(machines.context(), shape, cache, {{slot, &sequence, 63}});
    EXPECT_EQ(cache.open_bytes(), page);
    kv_step(machines.context(), shape, cache, {{slot, &sequence, 66}});
    EXPECT_EQ(cache.open_bytes(), 3 * page);
    EXPECT_EQ(KvCache::step_bytes(cache.config(), 66), 3 * page);
  }
  for (int round = 0; round < 20; ++round) {
    KvCache cache(kv_config(shape, "kv4", 30, 4, 400));
    int64_t most = 0;
    const int32_t slots[] = {cache.open(), cache.open(), cache.open(), cache.open()};
    for (int step = 0; step < 4; ++step) {
      std::vector<KvPiece> pieces;
      int64_t tokens = 0;
      for (const int32_t slot : slots) {
        if (rng() % 4 == 0) continue;
        pieces.push_back({slot, &sequence, rng() % 2 == 0 ? 1 : between(rng, 2, 90)});
        tokens += pieces.back().count;
      }
      if (pieces.empty()) continue;
      kv_step(machines.context(), shape, cache, pieces);
      most = std::max(most, tokens);
      EXPECT_LE(cache.open_bytes(), KvCache::step_bytes(cache.config(), most));
    }
  }
  EXPECT_EQ(KvCache::step_bytes(kv_config(shape, "kv8", 8, 1, 400), 66), 0);
}

INSTANTIATE_TEST_SUITE_P(Words, CacheUse, testing::ValuesIn(kCacheWords),
                         [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace quire
