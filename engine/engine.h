// Quire as a library: open a model, submit requests, step until they are done. examples/embed.cpp is a whole program;
// quire.h is the same for C and whatever calls C.
//
// Any number of requests may be submitted, at any time; max_batch of them run together and the others wait. Results are
// pulled: each step() returns what came of one forward pass, so the caller's loop is where text is passed on.
//
// Threads: one thread steps. submit, cancel, busy, encode_chat, chat_prompt and what tokenizer, config, scheme,
// context, memory and threads give may be used from any thread meanwhile. The rest (step, progress, cached_tokens) is
// the stepping thread's.
//
// Errors are quire::Error with a sentence for people. What submit throws is wrong with the request, and the engine is
// as before; what goes wrong with one request later ends that one, in an Event with Finish::error. Nothing is printed.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/sink.h"
#include "models/config.h"
#include "models/tokenizer.h"
#include "quant/scheme.h"

namespace quire {

class Checkpoint;
class Profile;

struct EngineOptions {
  std::string model;         // a .gguf file or a HuggingFace directory
  bool dummy = false;        // model is a configuration instead, or the name of one: random weights (models/dummy.h)
  std::string scheme;        // quant/scheme.h; empty: the model's own formats, or what `quantize` stored it for
  std::string kv;            // cache alone ("kv4"); overrides the scheme's
  std::string device;        // cpu, cuda or cuda:N; empty or auto: the GPU if there is one
  int threads = 0;           // 0: all cores this process may use
  int64_t context = 0;       // most tokens of one sequence; 0: the model's (LongRoPE: its original one)
  int64_t memory_limit = 0;  // bytes for weights, scratch and cache together; 0: 90 % of what is free
  int64_t cache_tokens = 0;  // tokens the cache holds; 0: what the context and the memory limit allow
  int64_t max_batch = 16;    // sequences at once
  int64_t chunk = 512;       // prompt tokens a step
  bool eager = false;        // on a GPU: no graphs, and no step before the one before it was read; for tests and bugs
  bool plan_only = false;    // nothing is loaded or allocated: tells what would be, and takes no requests
  // On a GPU too a request's results depend on nothing else: not on the batch, nor on how its prompt was cut. Costs
  // speed there, most for one long sequence (attention is not shared out). The CPU is always so.
  bool deterministic = false;
  Progress progress;
  Log log;
};

struct SamplerOptions {
  float temperature = 0.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;                          // over penalty_window last tokens, prompt included
  float presence_penalty = 0.0f, frequency_penalty = 0.0f;  // over generated tokens
  int32_t penalty_window = 64;
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;  // the same seed and inputs give the same tokens; on a GPU in the same batch, or if deterministic
};

struct TokenLogprob {
  int32_t token;
  float logprob;
};

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_tokens = -1;      // -1: until the context is full
  SamplerOptions sampler;
  std::vector<std::string> stop;  // held back from the stream until they cannot match
  bool ignore_eos = false;
  int32_t top_logprobs = -1;    // >= 0: logprob of each token and this many alternatives
  std::vector<int32_t> forced;  // take these tokens instead of sampling (scoring a given continuation)
  // If set: called with the raw logits (V) after prompt position p, for every p >= logits_from. What it throws ends
  // this request with Finish::error.
  std::function<void(int64_t position, std::span<const float> logits)> on_logits;
  int64_t logits_from = 0;
};

enum class Finish : uint8_t { none, stop, length, cancelled, error };
const char* to_string(Finish finish);

struct GeneratedToken {
  int32_t token;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;
};

struct Usage {
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double prompt_seconds = 0.0, generation_seconds = 0.0;
};

struct Event {
  int64_t request;
  std::string text;  // whole UTF-8 sequences; a possible stop string is held back
  std::vector<GeneratedToken> tokens;
  Finish finish = Finish::none;
  std::string error;  // with Finish::error: this request's, the others go on
  Usage usage;        // with finish
};

struct Message {
  std::string role, content;
};

struct MemoryPlan {
  int64_t weights = 0, scratch = 0, graphs = 0, cache = 0, cache_tokens = 0, bytes_per_token = 0, limit = 0;
  int64_t before = 0;  // resident in the process before the weights were loaded: program, tokenizer, metadata
  int64_t total() const { return weights + scratch + graphs + cache; }
};

class Engine {
 public:
  static std::unique_ptr<Engine> open(EngineOptions options);
  // Another engine on the weights of this one, which stay loaded once: threads, cache, batch and chunk are its own.
  // Error if it asks for another model, other weights or activations, or a longer context. Either may be destroyed
  // first.
  std::unique_ptr<Engine> open_beside(EngineOptions options) const;
  // The same, and `before` ends first, so that its cache makes room.
  static std::unique_ptr<Engine> open_after(std::unique_ptr<Engine> before, EngineOptions options);
  ~Engine();

  // The request's number, never 0, in the order of submission. Error if the prompt is empty, has an id outside the
  // vocabulary or does not fit the context or the cache (with the numbers), or a sampler option is out of range.
  int64_t submit(Request request);
  void cancel(int64_t request);  // ends it with Finish::cancelled in the next step; nothing if it has ended
  bool busy() const;             // a request has not had its last event yet
  // What a forward pass over what is waiting and running gave. A pass that fails ends the requests in it with
  // Finish::error. Error (std::bad_alloc without memory for its text) if there is none even to plan one: no request is
  // lost, and the next step tries again.
  std::vector<Event> step();
  // How many of the request's tokens (prompt, then answer) are in the cache; 0 while it waits or when it has ended.
  int64_t progress(int64_t request) const;
  // Steps from here on report each op to it (kernels/profile.h); null: no more. It must outlive its use.
  void profile(Profile* profile);

  // Steps from here on that compute prompts put random keys and values into the cache instead, and logits nowhere: a
  // context for measurements, of requests with max_tokens 0.
  void fill_at_random(bool fill);

  // The conversation in the model's own template as token ids. Control tokens that a person or a file spells out in a
  // message ("<|im_end|>") stay plain text: nobody can forge a turn. Error if the model has no template.
  std::vector<int32_t> encode_chat(const std::vector<Message>& messages, bool add_generation_prompt = true) const;
  // The same as text.
  std::string chat_prompt(const std::vector<Message>& messages, bool add_generation_prompt = true) const;

  const Tokenizer& tokenizer() const;
  const ModelConfig& config() const;
  const Scheme& scheme() const;
  const Checkpoint& checkpoint() const;
  MemoryPlan memory() const;
  int64_t context() const;
  int64_t cached_tokens() const;  // tokens in cache pages now (live and kept for reuse)
  int threads() const;
  std::string device() const;                    // "cpu", or the GPU's number and name
  std::vector<std::string> description() const;  // formats, fusions and kernels in use, a line each (for inspect)

 private:
  Engine();
  struct Model;
  struct State;
  void check_same_weights(const EngineOptions& options) const;
  static std::unique_ptr<Engine> start(EngineOptions options, std::shared_ptr<Model> model);
  std::unique_ptr<State> state_;
};

}  // namespace quire
