#include "apps/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "apps/interrupt.h"
#include "kvcache/kv_cache.h"
#include "models/checkpoint.h"

namespace quire {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

Request request_of(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

}  // namespace

std::string BenchTest::name() const {
  std::string text = prompt > 0 ? fmt::format("pp{}", prompt) : "";
  if (generated > 0) text += fmt::format("{}tg{}", text.empty() ? "" : "+", generated);
  return depth > 0 ? fmt::format("{} @ d{}", text, depth) : text;
}

int64_t BenchTest::context(int64_t chunk) const {
  const int64_t tokens = std::max<int64_t>(depth + prompt, 1) + generated;
  if (sequences == 1 || prompt > 0) return tokens;
  // Several do not reach their depth in the same step: the first ones generate until the last is there. What is left
  // of its prompt to compute is a page at most, in steps that hold a token of every sequence that is there.
  double steps = 0.0;
  for (int64_t i = 0; i < sequences; ++i) steps += double(kPageTokens) / double(std::max<int64_t>(1, chunk - i));
  return tokens + int64_t(steps) + 3;
}

int64_t BenchTest::cache_tokens(int64_t chunk) const {
  return (context(chunk) + kPageTokens - 1) / kPageTokens * kPageTokens * sequences;
}

double mean(const std::vector<double>& values) {
  return values.empty() ? 0.0 : std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0.0;
  const double middle = mean(values);
  double squares = 0.0;
  for (const double v : values) squares += (v - middle) * (v - middle);
  return std::sqrt(squares / double(values.size() - 1));
}

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::vector<int32_t> Bench::tokens(uint64_t stream, int64_t sequence, int64_t count) const {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  uint64_t state = mixed(stream) ^ mixed(uint64_t(sequence) << 32);
  for (int32_t& id : ids) id = int32_t((state = mixed(state)) % uint64_t(engine_.config().vocab));
  return ids;
}

std::vector<int32_t> Bench::beginning(const BenchTest& test, int64_t sequence) const {
  return tokens(0, sequence, test.depth);  // a deeper one begins with the tokens of a shallower one
}

std::vector<Event> Bench::step() {
  if (interrupted()) throw Interrupted();
  std::vector<Event> events = engine_.step();
  for (const Event& e : events) check(e.finish != Finish::error, "bench: {}", e.error);
  return events;
}

// Puts the tokens before the test into the cache, as far as they are not there from the repetition before. Asking for
// them again also makes their pages the last to be given up.
void Bench::prepare_depth(const BenchTest& test) {
  if (test.depth < kPageTokens) return;  // only whole pages are kept
  for (int64_t i = 0; i < test.sequences; ++i) engine_.submit(request_of(beginning(test, i), 0));
  // What the tokens of a dummy mean nobody asks, and long contexts take long.
  engine_.fill_at_random(engine_.checkpoint().dummy().has_value());
  while (engine_.busy()) step();
  engine_.fill_at_random(false);
}

BenchSample Bench::run_prompts(const BenchTest& test, Profile* profile) {
  const int64_t kept = test.depth / kPageTokens * kPageTokens;
  ++prompts_;
  std::vector<Request> requests;
  for (int64_t i = 0; i < test.sequences; ++i) {
    std::vector<int32_t> prompt = beginning(test, i);
    const std::vector<int32_t> rest = tokens(prompts_, i, test.prompt);
    prompt.insert(prompt.end(), rest.begin(), rest.end());
    // The pass over the prompt gives the first token already: one more, so that `generated` steps follow.
    requests.push_back(request_of(std::move(prompt), test.generated > 0 ? test.generated + 1 : 0));
  }
  BenchSample sample;
  engine_.profile(profile);
  const Clock::time_point start = Clock::now();
  for (Request& request : requests) engine_.submit(std::move(request));
  while (engine_.busy()) {
    ++sample.steps;
    for (const Event& e : step()) {
      if (e.finish == Finish::none) continue;
      check(e.usage.cached_tokens == kept, "bench: {} of {} tokens before '{}' were in the cache",
            e.usage.cached_tokens, kept, test.name());
      // What is left of a page before the prompt is computed, and counted, with it.
      sample.tokens += e.usage.prompt_tokens - e.usage.cached_tokens + test.generated;
    }
  }
  sample.seconds = seconds_since(start);
  engine_.profile(nullptr);
  return sample;
}

BenchSample Bench::run_generation(const BenchTest& test, Profile* profile) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < test.sequences; ++i) {
    std::vector<int32_t> prompt = test.depth > 0 ? beginning(test, i) : tokens(0, i, 1);
    ids.push_back(engine_.submit(request_of(std::move(prompt), -1)));
  }
  std::vector<int64_t> begun;
  while (test.depth > 0 && int64_t(begun.size()) < test.sequences) {
    for (const Event& e : step()) {
      if (!e.tokens.empty() && std::find(begun.begin(), begun.end(), e.request) == begun.end())
        begun.push_back(e.request);
    }
  }
  BenchSample sample;
  engine_.profile(profile);
  const Clock::time_point start = Clock::now();
  for (; sample.steps < test.generated; ++sample.steps) {
    for (const Event& e : step()) sample.tokens += int64_t(e.tokens.size());
  }
  sample.seconds = seconds_since(start);
  engine_.profile(nullptr);
  for (const int64_t id : ids) engine_.cancel(id);
  while (engine_.busy()) step();
  check(sample.tokens == test.generated * test.sequences, "bench: {} of {} tokens came in '{}'", sample.tokens,
        test.generated * test.sequences, test.name());
  return sample;
}

void Bench::warm_up(BenchTest test) {
  test.generated = std::min<int64_t>(test.generated, 4);  // on a GPU the second step becomes a graph
  run(test);
}

BenchSample Bench::run(const BenchTest& test, Profile* profile) {
  prepare_depth(test);
  return test.prompt > 0 ? run_prompts(test, profile) : run_generation(test, profile);
}

}  // namespace quire
