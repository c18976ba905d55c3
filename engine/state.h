// What an engine holds, for the files that implement it.
#pragma once
#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>

#include "engine/chat_template.h"
#include "engine/decode_steps.h"
#include "engine/device.h"
#include "engine/scheduler.h"
#include "models/checkpoint.h"
#include "models/decoder.h"

namespace quire {

using Clock = std::chrono::steady_clock;

// Of one step, one for each request.
class Events {
 public:
  // Up to so many can be told without memory: that something failed, say.
  explicit Events(size_t most) { list_.reserve(most); }
  Event& of(const Sequence& sequence) {
    for (Event& e : list_) {
      if (e.request == sequence.id) return e;
    }
    list_.push_back({});
    list_.back().request = sequence.id;
    return list_.back();
  }
  std::vector<Event> told() && {  // those that say something
    std::erase_if(list_, [](const Event& e) { return e.finish == Finish::none && e.tokens.empty() && e.text.empty(); });
    return std::move(list_);
  }

 private:
  std::vector<Event> list_;
};

// What engines on the same weights share; only read once the weights are loaded.
struct Engine::Model {
  explicit Model(Checkpoint c) : checkpoint(std::move(c)), tokenizer(checkpoint.tokenizer()) {
    if (!checkpoint.tokenizer().chat_template.empty()) chat_template.emplace(checkpoint.tokenizer().chat_template);
  }
  Checkpoint checkpoint;
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;
  Scheme scheme;
  int64_t positions = 0;  // that rope is prepared for
  std::optional<Decoder> decoder;
};

struct Engine::State {
  State(EngineOptions o, std::shared_ptr<Model> m)
      : options(std::move(o)),
        model(std::move(m)),
        scheme(choose_scheme(options.scheme, options.kv, model->checkpoint.stored_scheme())),
        pool(options.threads > 0 ? options.threads : hardware_threads()),
        device(options.device),
        scratch(device.kind()) {
    ctx.pool = &pool;
    ctx.scratch = &scratch;
    ctx.device = device.kind();
    ctx.stream = device.stream();
    ctx.uploads = device.uploads();
  }

  EngineOptions options;
  std::shared_ptr<Model> model;
  Scheme scheme;
  ThreadPool pool;
  EngineDevice device;
  Scratch scratch;
  bool uses_blas = false;  // many tokens go through cuBLAS
  Context ctx;
  std::optional<KvCache> cache;
  std::optional<Scheduler> scheduler;
  MemoryPlan plan;
  DecoderPlan decoder_plan;
  int64_t context = 0;
  bool fill = false;  // prompts: fill_at_random
  // What other threads hand over; the next step takes it.
  struct Inbox {
    std::mutex mutex;
    int64_t next_id = 1;
    Scheduler::List submitted;
    std::vector<int64_t> cancelled;
  } inbox;
  std::atomic<int64_t> unfinished = 0;
  OwnedTensor logits, host_logits;  // grown to the most rows a step has wanted; host_logits: with a GPU

  // With a GPU: sequences that decode, and the steps of them that were enqueued and not read yet, oldest first. A
  // sequence that ended meanwhile is null in them.
  std::optional<DecodeSteps> decode;
  std::deque<Step> flying;

  KvCacheConfig make_plan();
  void load();
  void take_inbox();
  void remove(Sequence* sequence);
  Tensor logits_for(int64_t rows);
  // What a step leaves for its sequences: logits (on the host), or the tokens sampled where the logits are.
  struct Results {
    Tensor logits;
    std::vector<int32_t> tokens;  // empty: sample from the logits
  };
  Results results_of(const Step& step, const Tensor& logits);  // waits for the step
  void advance(Events& events);                                // the body of Engine::step
  void compute(Step& step, Events& events);                    // a step of any kind, read at once
  bool launch(Step step, Events& events);                      // a step of decode; false: it failed
  void land(Events& events);                                   // reads the oldest that was launched
  bool lengthens(const Sequence& s, int64_t tokens) const;     // it has room for a token after `tokens` more
  void deliver(const Step::LogitsRow& row, const Results& results, int64_t i, Event& event);
  void deliver_all(const Step& step, const Results& results, Events& events);
  void finish(Sequence& s, Finish why, Event& event);
  void fail_request(Sequence& s, const std::exception& why, Events& events);
  std::optional<Finish> finished_by(Sequence& s, int32_t token, Event& event);
};

}  // namespace quire
