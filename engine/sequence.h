// One request on its way through the engine.
#pragma once
#include <chrono>
#include <map>

#include "engine/engine.h"
#include "engine/text_stream.h"
#include "kernels/step_state.h"

namespace quire {

struct Sequence {
  int64_t id = 0;
  Request request;
  std::vector<int32_t> tokens;        // prompt, then what was generated; the last one may not be in the cache yet
  int32_t slot = -1;                  // in the cache; -1 while waiting
  int64_t logits_done = 0;            // prompt positions below this were reported through on_logits
  std::map<int32_t, int32_t> counts;  // of generated tokens
  TextStream stream;
  Usage usage;
  bool cancelled = false;
  std::chrono::steady_clock::time_point started, first_token;

  int64_t generated() const { return int64_t(tokens.size() - request.prompt.size()); }
};

// How the next token is sampled, with its changes appended to `changes`: what choose_token does with the logits.
SampleRow sample_row(const Sequence& sequence, std::vector<LogitChange>& changes);

// Whether a GPU can go on with it alone, for this token and the next.
bool sampled_on_device(const Sequence& sequence);
// What a GPU needs for that, from its last token on.
void add_join(const Sequence& sequence, int32_t slot, StepJoins& joins);

// Error names the option that is out of range, or a biased token outside the vocabulary.
void check_sampler(const SamplerOptions& options, int64_t vocab);

// The next token from raw logits (V): forced, or sampled after bias and penalties. Fills `out`, logprobs included if
// asked for.
void choose_token(const Sequence& sequence, std::span<const float> logits, GeneratedToken& out);

}  // namespace quire
