// The engine's promises: what a request gets depends on the request alone, and nothing is lost when something goes
// wrong.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "kernels/sample.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

struct Outcome {
  std::string text, error;
  std::vector<int32_t> tokens;
  std::vector<GeneratedToken> details;
  Finish finish = Finish::none;
  Usage usage;
};

// Steps until nothing is left; a cancelled or refused request must not keep the others waiting.
std::map<int64_t, Outcome> run(Engine& engine) {
  std::map<int64_t, Outcome> out;
  for (int guard = 0; engine.busy(); ++guard) {
    if (guard > 20000) ADD_FAILURE() << "the engine does not come to an end";
    if (guard > 20000) break;
    for (const Event& e : engine.step()) {
      Outcome& o = out[e.request];
      EXPECT_EQ(o.finish, Finish::none) << "an event after the last";
      o.text += e.text;
      for (const GeneratedToken& t : e.tokens) {
        o.tokens.push_back(t.token);
        o.details.push_back(t);
      }
      if (e.finish == Finish::none) continue;
      o.finish = e.finish;
      o.error = e.error;
      o.usage = e.usage;
    }
  }
  return out;
}

std::vector<int32_t> prompt_of(int64_t n, int32_t seed) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(int32_t(3 + (int64_t(seed) * 7919 + i * i * 31 + i * 17) % 290));
  return ids;
}

class EngineTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> open(EngineOptions options = {}) {
    if (options.model.empty()) options.model = path_;
    if (options.threads == 0) options.threads = 2;
    return Engine::open(std::move(options));
  }
  Request request(int64_t prompt, int32_t seed, int64_t tokens) {
    Request r;
    r.prompt = prompt_of(prompt, seed);
    r.max_tokens = tokens;
    r.ignore_eos = true;
    return r;
  }
  Outcome alone(const EngineOptions& options, Request r) {
    const auto engine = open(options);
    engine->submit(std::move(r));
    return run(*engine).begin()->second;
  }
  TempDir dir_;
  std::string path_ = write_tiny_gguf(make_tiny_model({.head_dim = 32, .matrices = id<Q4_1>}), dir_.file("tiny.gguf"));
};

TEST_F(EngineTest, WhatARequestGetsDoesNotDependOnTheOthers) {
  for (const char* scheme : {"f32", "", "w8a8kv8", "w4a8kv4", "w8a8g64kv2"}) {
    EngineOptions options;
    options.scheme = scheme;
    options.max_batch = 3;
    options.chunk = 40;
    const auto engine = open(options);
    std::map<int64_t, Request> requests;
    for (int i = 0; i < 6; ++i) {
      Request r = request(5 + i * 37, i, 20 + i);
      r.sampler.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      r.sampler.seed = uint64_t(i);
      requests[engine->submit(r)] = r;
    }
    const auto together = run(*engine);
    for (auto& [id, r] : requests) {
      EngineOptions single = options;
      single.max_batch = 1;
      single.chunk = 512;
      single.threads = 1;
      const Outcome o = alone(single, r);
      EXPECT_EQ(together.at(id).tokens, o.tokens) << scheme;
      EXPECT_EQ(together.at(id).text, o.text) << scheme;
      EXPECT_EQ(together.at(id).finish, Finish::length);
    }
  }
}

TEST_F(EngineTest, EnginesOnTheSameWeightsGiveWhatSeparateOnesGive) {
  EngineOptions options;
  options.scheme = "w8a8";
  auto first = open(options);
  std::map<std::string, Outcome> beside;
  for (const char* kv : {"kv8", "kv4"}) {
    EngineOptions other = options;
    other.model = path_;
    other.kv = kv;
    other.threads = 1;
    other.chunk = 24;
    const auto second = first->open_beside(other);
    if (std::string(kv) == "kv4") first.reset();  // either may go first
    EXPECT_EQ(second->threads(), 1);
    EXPECT_GT(second->memory().cache_tokens, 0);
    second->submit(request(70, 3, 30));
    const Outcome got = run(*second).begin()->second;
    const Outcome expected = alone(other, request(70, 3, 30));
    EXPECT_EQ(got.tokens, expected.tokens) << kv;
    EXPECT_EQ(got.usage.cached_tokens, 0);
    if (!first) continue;
    EngineOptions wrong = other;
    wrong.scheme = "w4a8";
    expect_error([&] { first->open_beside(wrong); }, {"'w4a8kv8' cannot run on weights that were loaded for 'w8a8'"});
    wrong = other;
    wrong.model = dir_.file("another.gguf");
    expect_error([&] { first->open_beside(wrong); }, {"another.gguf", "tiny.gguf"});
  }
  options.context = 64;
  const auto small = open(options);
  EngineOptions longer = options;
  longer.model = path_;
  longer.context = 65;
  expect_error([&] { small->open_beside(longer); }, {"65", "64"});
}

TEST_F(EngineTest, ASmallCachePreemptsAndLosesNothing) {
  EngineOptions options;
  options.scheme = "w8a8kv4";
  options.context = 256;
  options.cache_tokens = 320;  // two sequences of up to 200 tokens do not fit at once
  options.max_batch = 4;
  const auto engine = open(options);
  std::map<int64_t, Request> requests;
  for (int i = 0; i < 4; ++i) {
    Request r = request(60, i, 140);
    requests[engine->submit(r)] = r;
  }
  const auto out = run(*engine);
  options.cache_tokens = 0;
  for (auto& [id, r] : requests) {
    EXPECT_EQ(out.at(id).tokens, alone(options, r).tokens);
    EXPECT_EQ(out.at(id).usage.generated_tokens, 140);
  }
}

TEST_F(EngineTest, APrefixThatWasSeenIsNotComputedAgain) {
  EngineOptions options;
  options.scheme = "w8a8kv2";
  const auto engine = open(options);
  const Request first = request(200, 1, 10);
  engine->submit(first);
  const Outcome a = run(*engine).begin()->second;
  EXPECT_EQ(a.usage.cached_tokens, 0);
  Request again = first;
  again.prompt.resize(192);  // whole pages only, and never the last token
  engine->submit(again);
  const Outcome b = run(*engine).begin()->second;
  EXPECT_EQ(b.usage.cached_tokens, 128);
  engine->submit(first);
  const Outcome c = run(*engine).begin()->second;
  EXPECT_EQ(c.usage.cached_tokens, 192);
  EXPECT_EQ(c.tokens, a.tokens);
  EXPECT_EQ(b.tokens, alone(options, again).tokens);
}

TEST_F(EngineTest, LogitsOfThePromptAreThoseOfItsPrefixes) {
  EngineOptions options;
  options.scheme = "w8a8kv4";
  options.chunk = 50;
  const auto engine = open(options);
  Request r = request(150, 3, 0);
  std::map<int64_t, std::vector<float>> seen;
  r.logits_from = 60;
  r.on_logits = [&](int64_t position, std::span<const float> logits) {
    EXPECT_TRUE(seen.emplace(position, std::vector<float>(logits.begin(), logits.end())).second) << position;
  };
  engine->submit(r);
  EXPECT_EQ(run(*engine).begin()->second.finish, Finish::length);
  ASSERT_EQ(seen.size(), 90u);
  EXPECT_EQ(seen.begin()->first, 60);
  // Asked again, after the prefix was cached: the same, for as many positions.
  const auto before = seen;
  seen.clear();
  engine->submit(r);
  run(*engine);
  EXPECT_EQ(seen, before);
  for (const int64_t n : {61, 100, 150}) {
    Request prefix = request(n, 3, 0);
    prefix.prompt.assign(r.prompt.begin(), r.prompt.begin() + n);
    std::vector<float> last;
    prefix.logits_from = n - 1;
    prefix.on_logits = [&](int64_t, std::span<const float> logits) { last.assign(logits.begin(), logits.end()); };
    const auto other = open(options);
    other->submit(prefix);
    run(*other);
    EXPECT_EQ(last, before.at(n - 1)) << n;
  }
}

TEST_F(EngineTest, ForcedTokensAreScoredNotSampled) {
  EngineOptions options;
  options.scheme = "f32";
  const auto engine = open(options);
  Request r = request(20, 5, 6);
  r.forced = {50, 2, 60, 70, 2, 80};  // an end-of-sequence token among them does not end it
  r.top_logprobs = 3;
  r.ignore_eos = false;
  engine->submit(r);
  const Outcome o = run(*engine).begin()->second;
  EXPECT_EQ(o.tokens, r.forced);
  Request whole = request(20, 5, 0);
  whole.prompt.insert(whole.prompt.end(), r.forced.begin(), r.forced.end());
  whole.logits_from = 19;
  std::vector<double> expected;
  whole.on_logits = [&](int64_t p, std::span<const float> logits) {
    if (p + 1 < int64_t(whole.prompt.size()))
      expected.push_back(double(logits[size_t(whole.prompt[size_t(p + 1)])]) - log_sum_exp(logits));
  };
  engine->submit(whole);
  run(*engine);
  ASSERT_EQ(expected.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_FLOAT_EQ(o.details[i].logprob, float(expected[i]));
    ASSERT_EQ(o.details[i].top.size(), 3u);
    EXPECT_GE(o.details[i].top[0].logprob, o.details[i].logprob);
    EXPECT_GE(o.details[i].top[0].logprob, o.details[i].top[1].logprob);
  }
}

TEST_F(EngineTest, EndOfSequenceStopStringsAndLimits) {
  EngineOptions options;
  options.scheme = "f32";
  const auto engine = open(options);
  Request plain = request(30, 7, 12);
  const int64_t a = engine->submit(plain);
  const Outcome whole = run(*engine).at(a);
  EXPECT_EQ(whole.finish, Finish::length);
  EXPECT_EQ(whole.tokens.size(), 12u);

  Request biased = plain;  // the end-of-sequence token made certain
  biased.ignore_eos = false;
  biased.sampler.logit_bias = {{2, 1000.0f}};
  const int64_t b = engine->submit(biased);
  const Outcome ended = run(*engine).at(b);
  EXPECT_EQ(ended.finish, Finish::stop);
  EXPECT_EQ(ended.tokens, std::vector<int32_t>{2});
  EXPECT_EQ(ended.text, "");

  Request stopped = plain;  // an x each time; the stop string spans tokens
  const int32_t x = engine->tokenizer().encode("x").at(0);
  stopped.sampler.logit_bias = {{x, 1000.0f}};
  stopped.stop = {"xxx"};
  const int64_t c = engine->submit(stopped);
  const Outcome three = run(*engine).at(c);
  EXPECT_EQ(three.finish, Finish::stop);
  EXPECT_EQ(three.text, "");
  EXPECT_EQ(three.tokens.size(), 3u);

  Request endless = request(500, 8, -1);  // the context ends it
  const int64_t d = engine->submit(endless);
  const Outcome full = run(*engine).at(d);
  EXPECT_EQ(full.finish, Finish::length);
  EXPECT_EQ(int64_t(full.tokens.size()), engine->context() - 500 + 1);
}

TEST_F(EngineTest, CancelEndsOneRequestOnly) {
  const auto engine = open();
  const int64_t a = engine->submit(request(100, 1, 50)), b = engine->submit(request(100, 2, 50));
  engine->step();
  engine->cancel(a);
  engine->cancel(12345);  // unknown: nothing happens
  const auto out = run(*engine);
  EXPECT_EQ(out.at(a).finish, Finish::cancelled);
  EXPECT_EQ(out.at(b).finish, Finish::length);
  EXPECT_EQ(out.at(b).usage.generated_tokens, 50);
}

TEST_F(EngineTest, AStepGivesABoundedNumberOfLogits) {
  EngineOptions options;
  options.scheme = "w8a8";
  const auto engine = open(options);
  std::map<int64_t, std::vector<int64_t>> positions;
  int64_t in_step = 0;
  for (int i = 0; i < 3; ++i) {
    Request r = request(200, i, 0);
    r.logits_from = 50 * i;
    r.on_logits = [&positions, &in_step, i](int64_t p, std::span<const float>) {
      positions[i].push_back(p);
      ++in_step;
    };
    engine->submit(r);
  }
  while (engine->busy()) {
    in_step = 0;
    engine->step();
    EXPECT_LE(in_step, 128);
  }
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(int64_t(positions[i].size()), 200 - 50 * i);
    for (size_t j = 0; j < positions[i].size(); ++j) EXPECT_EQ(positions[i][j], int64_t(j) + 50 * i);
  }
}

TEST_F(EngineTest, SamplingIsSeeded) {
  EngineOptions options;
  options.scheme = "f32";
  Request r = request(30, 7, 30);
  r.sampler.temperature = 1.0f;
  r.sampler.seed = 11;
  const Outcome a = alone(options, r), b = alone(options, r);
  EXPECT_EQ(a.tokens, b.tokens);
  r.sampler.seed = 12;
  EXPECT_NE(alone(options, r).tokens, a.tokens);
}

TEST_F(EngineTest, WhatCannotBeServedIsRefusedWithNumbers) {
  const auto engine = open();
  expect_error([&] { engine->submit({}); }, {"no tokens"});
  expect_error([&] { engine->submit(request(513, 1, 1)); }, {"513", "512", "--context"});
  Request bad = request(3, 1, 1);
  bad.prompt[1] = 300;
  expect_error([&] { engine->submit(bad); }, {"300", "vocabulary"});
  bad = request(3, 1, 1);
  bad.sampler.top_p = 0.0f;
  expect_error([&] { engine->submit(bad); }, {"top-p"});
  EXPECT_FALSE(engine->busy());
  engine->submit(request(512, 1, 1));  // the longest that fits
  EXPECT_EQ(run(*engine).begin()->second.tokens.size(), 1u);
}

TEST_F(EngineTest, MemoryIsPlannedAndRefused) {
  EngineOptions options;
  options.memory_limit = 1000;
  int reports = 0;
  options.progress = [&](const std::string&, int64_t, int64_t) { return ++reports > 0; };
  expect_error([&] { open(options); }, {"out of memory", "weights", "memory limit"});
  EXPECT_EQ(reports, 0);  // before anything was loaded
  options.progress = nullptr;
  const auto engine = open();
  const MemoryPlan plan = engine->memory();
  EXPECT_EQ(plan.cache_tokens, 16 * 512);
  EXPECT_EQ(plan.bytes_per_token, 2 * 2 * 2 * 32 * 2);  // layers, heads, K and V, channels, f16
  options.context = 512;
  options.memory_limit = plan.weights + plan.scratch + plan.graphs + 300 * plan.bytes_per_token;
  expect_error([&] { open(options); }, {"context of 512", "--context 256"});
  options.context = 0;  // not insisted on: what fits
  std::string said;
  options.log = [&](const std::string& m) { said += m; };
  EXPECT_EQ(open(options)->context(), 256);
  EXPECT_NE(said.find("256"), std::string::npos);
  EngineOptions long_context;
  long_context.context = 1024;
  expect_error([&] { open(long_context); }, {"1024", "512"});
}

TEST_F(EngineTest, ChatPromptUsesTheModelsTemplate) {
  const auto engine = open();
  EXPECT_EQ(engine->chat_prompt({{"user", "Hi"}}), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(EngineTest, LoadingReportsProgressAndCanBeCancelled) {
  EngineOptions options;
  int64_t last = -1, total = 0;
  options.progress = [&](const std::string&, int64_t done, int64_t of) {
    EXPECT_GE(done, last);
    last = done;
    total = of;
    return true;
  };
  open(options);
  EXPECT_EQ(last, total);
  options.progress = [](const std::string&, int64_t, int64_t) { return false; };
  expect_error([&] { open(options); }, {"cancelled"});
}

}  // namespace
}  // namespace quire
