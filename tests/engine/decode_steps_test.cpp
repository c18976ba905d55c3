// Steps of decode that a GPU takes alone: whatever is launched as a graph or ahead of its input, tokens and events are
// those of single launches read one by one, and those of the CPU.
#include "engine/decode_steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <set>

#include "engine/engine.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using testing::Contains;
using testing::HasSubstr;

TEST(DecodeSteps, RowsArePaddedToFewSizes) {
  for (const int64_t slots : {1, 3, 8, 37, 256, 1000}) {
    std::set<int64_t> sizes;
    for (int64_t n = 1; n <= slots; ++n) {
      const int64_t rows = DecodeSteps::bucket(n, slots);
      ASSERT_GE(rows, n);
      ASSERT_LE(rows, slots);
      ASSERT_LE(rows, std::max<int64_t>(n + 7, n + n / 2 + 1)) << n;  // little is computed in vain
      ASSERT_EQ(DecodeSteps::bucket(rows, slots), rows);
      sizes.insert(rows);
    }
    EXPECT_LE(sizes.size(), 24u) << slots;
    EXPECT_EQ(*sizes.rbegin(), slots);
  }
}

// A sequence decodes: `flying` is its step, as next() planned it.
struct Planned {
  explicit Planned(int64_t pages, int64_t slots = 4, int64_t max_tokens = 256)
      : cache(config(pages, slots, max_tokens)), scheduler(cache, 512) {}
  static KvCacheConfig config(int64_t pages, int64_t slots, int64_t max_tokens) {
    KvCacheConfig c;
    c.layers = c.kv_heads = 1;
    c.head_dim = 16;
    c.pages = pages;
    c.slots = slots;
    c.max_tokens = max_tokens;
    return c;
  }
  Sequence* add(int64_t id, int64_t prompt) {
    auto s = std::make_unique<Sequence>();
    s->id = id;
    for (int64_t i = 0; i < prompt; ++i) s->tokens.push_back(int32_t(i % 50));
    s->request.prompt = s->tokens;
    Sequence* const added = s.get();
    Scheduler::List list;
    list.push_back(std::move(s));
    scheduler.add(std::move(list));
    return added;
  }
  Step step() {
    Step step = scheduler.next();
    cache.begin_step(step.batch);
    cache.end_step(step.batch);
    for (Sequence* s : step.sequences) {
      if (cache.length(s->slot) == int64_t(s->tokens.size())) s->tokens.push_back(7);
    }
    return step;
  }
  Step ahead(const Step& flying) {
    return scheduler.ahead(flying, [](const Sequence&) { return true; });
  }
  KvCache cache;
  Scheduler scheduler;
};

TEST(SchedulerAhead, PlansTheSameSequencesWithoutTheirTokens) {
  Planned p(8);
  Sequence *const a = p.add(1, 3), *const b = p.add(2, 64);
  p.step();
  Step flying = p.scheduler.next();
  ASSERT_EQ(flying.batch.size(), 2);
  p.cache.begin_step(flying.batch);
  p.cache.end_step(flying.batch);
  const Step next = p.ahead(flying);
  EXPECT_EQ(next.sequences, (std::vector<Sequence*>{a, b}));
  EXPECT_EQ(next.batch.tokens, (std::vector<int32_t>{-1, -1}));
  EXPECT_EQ(next.batch.positions, (std::vector<int32_t>{4, 65}));
  const Step one = p.scheduler.ahead(flying, [&](const Sequence& s) { return &s == b; });
  EXPECT_EQ(one.sequences, std::vector<Sequence*>{b});
  flying.sequences[0] = nullptr;  // it was cancelled meanwhile
  p.scheduler.remove(a);
  EXPECT_EQ(p.ahead(flying).sequences, std::vector<Sequence*>{b});
}

TEST(SchedulerAhead, LeavesWhatNeedsAWholePlan) {
  Planned p(3, 2);
  p.add(1, 3);
  p.add(2, 10);
  p.step();
  const Step flying = p.scheduler.next();
  p.cache.begin_step(flying.batch);
  p.cache.end_step(flying.batch);
  Sequence* const waits = p.add(3, 5);
  EXPECT_EQ(p.ahead(flying).batch.size(), 0) << "who waits may be admitted";
  EXPECT_EQ(p.scheduler.next().batch.size(), 0);  // tries, and finds no slot
  EXPECT_EQ(p.ahead(flying).batch.size(), 2) << "who waits has no slot";
  p.scheduler.remove(flying.sequences[1]);
  Step rest = flying;
  rest.sequences[1] = nullptr;
  EXPECT_EQ(p.ahead(rest).batch.size(), 0) << "a slot became free";
  EXPECT_GE(p.scheduler.next().batch.size(), 1);
  EXPECT_EQ(p.ahead(rest).batch.size(), 0) << "the new one has a prompt";
  EXPECT_GE(waits->slot, 0);
}

TEST(SchedulerAhead, StopsWhereThereIsNoPage) {
  Planned p(1);
  p.add(1, 63);
  p.step();
  const Step flying = p.scheduler.next();
  p.cache.begin_step(flying.batch);
  p.cache.end_step(flying.batch);
  EXPECT_EQ(p.ahead(flying).batch.size(), 0) << "64 tokens are all that fit";
}

// Pages become known by their tokens, when those are known.
TEST(KvCacheLearn, PublishesAPageOnceItsTokensAreKnown) {
  Planned p(4);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 70; ++i) tokens.push_back(i);
  const int32_t slot = p.cache.open();
  const auto step = [&](int64_t n, bool known) {
    Batch b;
    b.sequences = {{slot, 0, n, p.cache.length(slot)}};
    for (int64_t i = 0; i < n; ++i) {
      b.tokens.push_back(known ? tokens[size_t(p.cache.length(slot) + i)] : -1);
      b.positions.push_back(int32_t(p.cache.length(slot) + i));
    }
    ASSERT_TRUE(p.cache.reserve(slot, n));
    p.cache.begin_step(b);
    p.cache.end_step(b);
  };
  const auto shared = [&] {
    const int32_t other = p.cache.open(tokens);
    const int64_t length = p.cache.length(other);
    p.cache.close(other);
    return length;
  };
  step(63, true);
  step(1, false);
  step(1, false);
  EXPECT_EQ(p.cache.length(slot), 65);
  EXPECT_EQ(shared(), 0);
  p.cache.learn(slot, tokens[63]);
  EXPECT_EQ(shared(), 64);
  p.cache.learn(slot, tokens[64]);
  EXPECT_THROW(p.cache.learn(slot, 1), Error);
}

struct Result {
  std::vector<int32_t> tokens;
  std::string text;
  Finish finish = Finish::none;
  int64_t prompt = 0, generated = 0;
  bool operator==(const Result&) const = default;
};
using Results = std::map<int64_t, Result>;

class DecodeStepsOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  }
  EngineOptions options(const std::string& device, bool eager = false) {
    EngineOptions o;
    o.model = path_;
    o.scheme = "w8a8kv4";
    o.device = device;
    o.eager = eager;
    o.max_batch = 21;
    o.chunk = 64;
    o.context = 256;
    return o;
  }
  // Requests that come and end at different steps, so that every number of rows occurs.
  static Request request(int i) {
    Request r;
    for (int j = 0; j < 3 + i * 13 % 90; ++j) r.prompt.push_back(3 + (i * 7919 + j * j * 31 + j * 17) % 290);
    r.max_tokens = 1 + i * 29 % 70;
    r.ignore_eos = i % 4 != 0;
    r.sampler.seed = uint64_t(i);
    r.sampler.temperature = i % 2 == 0 ? 0.0f : 0.9f;
    if (i % 5 == 1) r.sampler.top_k = 30, r.sampler.repetition_penalty = 1.2f;
    if (i % 5 == 2) r.sampler.top_p = 0.9f, r.sampler.frequency_penalty = 0.3f;
    if (i % 7 == 3) r.sampler.logit_bias = {{7, 2.0f}, {0, 3.0f}};  // 0 ends a sequence
    if (i % 3 == 1) r.stop = {"e", "\n"};
    if (i % 11 == 5) r.top_logprobs = 1;  // logits come to the host, so does the step
    if (i % 11 == 7) r.forced = {5, 6, 7};
    return r;
  }
  static Results run(EngineOptions o, int requests, int at_once) {
    const auto engine = Engine::open(std::move(o));
    Results out;
    std::set<int64_t> cancelled;
    int submitted = 0;
    for (int step = 0; submitted < requests || engine->busy(); ++step) {
      for (int i = 0; submitted < requests && i < at_once && step % 3 == 0; ++i) {
        const int64_t id = engine->submit(request(submitted++));
        if (id % 9 != 8) continue;
        engine->cancel(id - 3);
        cancelled.insert(id - 3);
      }
      for (const Event& e : engine->step()) {
        EXPECT_EQ(e.error, "");
        EXPECT_LE(e.tokens.size(), 1u) << "a step is one token";
        Result& r = out[e.request];
        EXPECT_EQ(r.finish, Finish::none) << "events after the last";
        for (const GeneratedToken& t : e.tokens) r.tokens.push_back(t.token);
        r.text += e.text;
        r.finish = e.finish;
        if (e.finish == Finish::none) continue;
        r.prompt = e.usage.prompt_tokens;
        r.generated = e.usage.generated_tokens;
      }
    }
    std::erase_if(out, [&](const auto& r) { return cancelled.count(r.first) > 0; });  // how far they got, is not said
    return out;
  }

  TempDir dir_;
  std::string path_ = write_tiny_gguf(make_tiny_model({.head_dim = 32, .matrices = id<Q4_1>}), dir_.file("tiny.gguf"));
};

TEST_F(DecodeStepsOnGpu, GraphsAndLookingAheadChangeNothing) {
  const Results expected = run(options("cpu"), 60, 4);
  EXPECT_GE(expected.size(), 50u);
  EXPECT_EQ(run(options("cuda", true), 60, 4), expected);
  EXPECT_EQ(run(options("cuda"), 60, 4), expected);
}

TEST_F(DecodeStepsOnGpu, NeitherDoSmallCachesWithPreemption) {
  EngineOptions small = options("cpu");
  small.max_batch = 6;
  small.cache_tokens = 448;
  small.scheme = "w8a8kv2";
  const Results expected = run(small, 40, 40);
  EXPECT_GE(expected.size(), 30u);
  small.device = "cuda";
  EXPECT_EQ(run(small, 40, 40), expected);
}

TEST_F(DecodeStepsOnGpu, EveryNumberOfSequencesGivesTheSame) {
  Results single;
  for (const int at_once : {1, 2, 3, 5, 9, 21}) {
    EngineOptions o = options("cuda");
    o.max_batch = at_once;
    const Results got = run(o, 24, 24);
    if (single.empty()) single = got;
    for (const auto& [id, result] : single) {
      const auto it = got.find(id);
      ASSERT_NE(it, got.end()) << "request " << id << ", " << at_once << " at once";
      EXPECT_EQ(it->second, result) << "request " << id << ", " << at_once << " at once";
    }
  }
}

// Heads that attention on tensor cores takes, with cuts that do not depend on the batch: padding rows, the counters
// that its blocks leave zero, and pages read while the next step is enqueued.
TEST_F(DecodeStepsOnGpu, NeitherDoTheyOnTensorCores) {
  for (const int64_t head_dim : {64, 128}) {
    const std::string path = write_tiny_gguf(
        make_tiny_model({.hidden = 2 * head_dim, .head_dim = head_dim, .matrices = id<F16>}), dir_.file("heads.gguf"));
    for (const char* scheme : {"f16", "w8a8kv8", "w4a8kv4", "w8a8kv2", "f16kvfp8", "w8a8kv3row"}) {
      EngineOptions o = options("cuda", true);
      o.model = path;
      o.scheme = scheme;
      o.deterministic = true;
      o.max_batch = 9;
      const Results expected = run(o, 30, 4);
      EXPECT_GE(expected.size(), 20u);
      o.eager = false;
      EXPECT_EQ(run(o, 30, 4), expected) << scheme << ", heads of " << head_dim;
      o.max_batch = 1;
      EXPECT_EQ(run(o, 30, 4), expected) << scheme << ", heads of " << head_dim << ", one by one";
    }
  }
}

TEST_F(DecodeStepsOnGpu, GraphsTakeWhatThePlanSays) {
  if constexpr (kCuda) {
    EngineOptions o = options("cuda");
    const auto engine = Engine::open(o);
    const int64_t planned = engine->memory().graphs;
    EXPECT_GT(planned, 0);
    EXPECT_THAT(engine->description(), Contains(HasSubstr("decode steps: 0 graphs")));
    // All rows there are, twice each: once the scratch has its size, what goes is the graphs'.
    const auto round = [&] {
      for (int i = 0; i < 21; ++i) {
        Request r = request(1);
        r.stop.clear();
        r.ignore_eos = true;
        r.max_tokens = 6 + 6 * i;
        engine->submit(std::move(r));
      }
    };
    round();
    for (int i = 0; i < 4; ++i) engine->step();
    const int64_t before = cuda::free_memory();
    while (engine->busy()) engine->step();
    EXPECT_LE(before - cuda::free_memory(), planned);
    const int64_t after = cuda::allocated();
    round();
    while (engine->busy()) engine->step();
    EXPECT_EQ(cuda::allocated(), after) << "everything is there already";
    int graphs = 0, launches = 0;
    for (const std::string& line : engine->description()) {
      std::sscanf(line.c_str(), "decode steps: %d graphs, of %d launches", &graphs, &launches);
    }
    EXPECT_GE(graphs, 3);
    EXPECT_GT(launches, 10);
    EXPECT_LE(launches, DecodeSteps::nodes_at_most(engine->config().layers));
  }
}

}  // namespace
}  // namespace quire
