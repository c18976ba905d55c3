// What an embedder relies on: requests from several threads, progress, options that are refused, and text that comes
// whole however tokens cut it.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <thread>

#include "base/utf8.h"
#include "engine/engine.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

struct Result {
  std::string text;
  std::vector<int32_t> tokens;
  Finish finish = Finish::none;
};

class Serving : public testing::Test {
 protected:
  std::unique_ptr<Engine> open() {
    EngineOptions options;
    options.model = path_;
    options.threads = 1;
    options.chunk = 64;
    return Engine::open(std::move(options));
  }
  static Request request(int32_t seed, int64_t prompt, int64_t tokens) {
    Request r;
    for (int64_t i = 0; i < prompt; ++i) r.prompt.push_back(int32_t(3 + (seed * 7919 + i * i * 31) % 290));
    r.max_tokens = tokens;
    r.ignore_eos = true;
    return r;
  }
  static std::map<int64_t, Result> run(Engine& engine) {
    std::map<int64_t, Result> results;
    while (engine.busy()) take(engine.step(), results);
    return results;
  }
  static void take(const std::vector<Event>& events, std::map<int64_t, Result>& results) {
    for (const Event& e : events) {
      Result& r = results[e.request];
      r.text += e.text;
      for (const GeneratedToken& t : e.tokens) r.tokens.push_back(t.token);
      if (e.finish != Finish::none) r.finish = e.finish;
    }
  }
  TempDir dir_;
  std::string path_ = write_tiny_gguf(make_tiny_model(), dir_.file("tiny.gguf"));
};

TEST_F(Serving, RequestsComeFromSeveralThreadsWhileOneSteps) {
  constexpr int kThreads = 3, kEach = 8;
  std::vector<std::vector<int32_t>> expected;
  {
    const auto engine = open();
    for (int i = 0; i < kThreads * kEach; ++i) engine->submit(request(i, 20, 6));
    for (const auto& [id, result] : run(*engine)) expected.push_back(result.tokens);
  }
  const auto engine = open();
  std::vector<std::array<int64_t, kEach>> ids(kThreads);
  std::atomic<int> left = kThreads;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        ids[size_t(t)][size_t(i)] = engine->submit(request(t * kEach + i, 20, 6));
        engine->cancel(engine->submit(request(99, 20, 1000)));
        EXPECT_EQ(engine->tokenizer().decode(engine->tokenizer().encode("the end")), "the end");
      }
      --left;
    });
  }
  std::map<int64_t, Result> results;
  while (left > 0 || engine->busy()) take(engine->step(), results);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(results.size(), size_t(2 * kThreads * kEach));
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kEach; ++i) {
      const Result& result = results.at(ids[size_t(t)][size_t(i)]);
      EXPECT_EQ(result.finish, Finish::length);
      EXPECT_EQ(result.tokens, expected[size_t(t * kEach + i)]);
    }
  }
}

TEST_F(Serving, ProgressOfAPrompt) {
  const auto engine = open();
  const int64_t id = engine->submit(request(1, 150, 3));
  EXPECT_EQ(engine->progress(id), 0);
  for (const int64_t read : {64, 128, 150, 151}) {  // a chunk a step, then a token a step
    engine->step();
    EXPECT_EQ(engine->progress(id), read);
  }
  engine->step();
  EXPECT_EQ(engine->progress(id), 0) << "it has ended";
  EXPECT_FALSE(engine->busy());
}

TEST_F(Serving, SamplerOptionsOutOfRangeAreRefused) {
  const auto engine = open();
  const auto refused = [&](const std::string& name, auto set) {
    Request r = request(1, 3, 1);
    set(r.sampler);
    expect_error([&] { engine->submit(r); }, {name});
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {-1.0f, kNan, kInf}) {
    refused("temperature", [&](SamplerOptions& s) { s.temperature = bad; });
    refused("top-p", [&](SamplerOptions& s) { s.top_p = bad; });
    refused("min-p", [&](SamplerOptions& s) { s.min_p = bad; });
    refused("repetition penalty", [&](SamplerOptions& s) { s.repetition_penalty = bad; });
  }
  refused("top-k", [](SamplerOptions& s) { s.top_k = -1; });
  refused("presence", [&](SamplerOptions& s) { s.presence_penalty = kNan; });
  refused("frequency", [&](SamplerOptions& s) { s.frequency_penalty = kInf; });
  refused("token 300", [](SamplerOptions& s) { s.logit_bias = {{300, 1.0f}}; });
  refused("token 4", [&](SamplerOptions& s) { s.logit_bias = {{4, kNan}}; });
  EXPECT_FALSE(engine->busy());
  Request ruled_out = request(1, 3, 4);
  for (int32_t id = 0; id < 299; ++id) ruled_out.sampler.logit_bias.emplace_back(id, -kInf);
  engine->submit(ruled_out);
  EXPECT_EQ(run(*engine).begin()->second.tokens, std::vector<int32_t>(4, 299));
}

// The same text as one token a byte, as the tokenizer cuts it, and with a control token between any two of them.
TEST_F(Serving, TextDoesNotDependOnHowTokensCutIt) {
  const auto engine = open();
  const std::string before = "the a\u00e9\u20ac\U0001F600 and", stop = "S\u00e9T\u20acOP", after = " the end";
  const auto bytes = [&](const std::string& text) {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(engine->tokenizer().encode(std::string(1, c), false).at(0));
    return ids;
  };
  const std::string text = before + stop + after;
  std::vector<std::vector<int32_t>> cuts = {bytes(text), engine->tokenizer().encode(text, false)};
  ASSERT_LT(cuts[1].size(), cuts[0].size()) << "some token holds several characters";
  for (size_t i = 0; i <= text.size(); ++i) {
    cuts.push_back(bytes(text));
    cuts.back().insert(cuts.back().begin() + int64_t(i), i % 3 == 0 ? 2 : 1);  // an end token that is forced has no say
  }
  const auto result = [&](std::vector<int32_t> forced, std::vector<std::string> stops) {
    Request r = request(1, 3, int64_t(forced.size()));
    r.forced = std::move(forced);
    r.stop = std::move(stops);
    engine->submit(std::move(r));
    return run(*engine).begin()->second;
  };
  for (const std::vector<int32_t>& cut : cuts) {
    const Result whole = result(cut, {});
    EXPECT_EQ(whole.text, text);
    EXPECT_EQ(whole.finish, Finish::length);
    const Result stopped = result(cut, {stop});
    EXPECT_EQ(stopped.text, before);
    EXPECT_EQ(stopped.finish, Finish::stop);
    EXPECT_LT(stopped.tokens.size(), whole.tokens.size());
  }
  // Every place where a stream can end inside a stop string: what was held back comes out, and no half character.
  for (size_t i = 0; i < stop.size(); ++i) {
    const std::string part = before + stop.substr(0, i);
    const Result ended = result(bytes(part), {stop});
    EXPECT_EQ(ended.finish, Finish::length);
    EXPECT_EQ(ended.text.compare(0, before.size(), before), 0);
    std::string replaced = part;  // an unfinished character is a replacement for each of its bytes
    while (utf8_valid_prefix(replaced) < replaced.size()) {
      const size_t bad = utf8_valid_prefix(replaced);
      replaced.replace(bad, 1, "\uFFFD");
    }
    EXPECT_EQ(ended.text, replaced);
  }
}

}  // namespace
}  // namespace quire
