// How fast a model runs, measured through the Engine as any program uses it: prompts of random tokens, generation as
// real greedy steps, at a depth of context that is computed once and not timed.
#pragma once
#include <string>
#include <vector>

#include "engine/engine.h"

namespace quire {

struct BenchTest {
  int64_t prompt = 0, generated = 0;  // tokens a sequence; both: a prompt and then its answer
  int64_t depth = 0;                  // tokens before them, not timed
  int64_t sequences = 1;              // at once, each with a context of its own

  std::string name() const;                   // "pp512", "tg128 @ d2048", "pp512+tg128"
  int64_t context(int64_t chunk) const;       // tokens the longest sequence holds
  int64_t cache_tokens(int64_t chunk) const;  // of all sequences, in whole pages
};

struct BenchSample {
  double seconds = 0.0;
  int64_t tokens = 0;  // computed in that time, all sequences together
  int64_t steps = 0;
  double rate() const { return double(tokens) / seconds; }
};

double mean(const std::vector<double>& values);
double deviation(const std::vector<double>& values);  // of a sample: n - 1; 0 for one value
double median(std::vector<double> values);

class Bench {
 public:
  // The engine was opened for at least the tests' context, cache_tokens and sequences, with `chunk` prompt tokens a
  // step.
  explicit Bench(Engine& engine) : engine_(engine) {}
  void warm_up(BenchTest test);                                        // the prompt, or one step of generation
  BenchSample run(const BenchTest& test, Profile* profile = nullptr);  // profile: of the timed steps

 private:
  std::vector<int32_t> tokens(uint64_t stream, int64_t sequence, int64_t count) const;
  std::vector<int32_t> beginning(const BenchTest& test, int64_t sequence) const;  // its context
  std::vector<Event> step();
  void prepare_depth(const BenchTest& test);
  BenchSample run_prompts(const BenchTest& test, Profile* profile);
  BenchSample run_generation(const BenchTest& test, Profile* profile);

  Engine& engine_;
  uint64_t prompts_ = 0;  // every prompt is new, or the cache would answer
};

}  // namespace quire
