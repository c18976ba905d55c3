#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "base/machine.h"
#include "engine/chat_template.h"
#include "engine/device.h"
#include "engine/memory.h"
#include "engine/scheduler.h"
#include "models/checkpoint.h"
#include "models/decoder.h"

namespace quire {

using Clock = std::chrono::steady_clock;

const char* to_string(Finish finish) {
  constexpr const char* kNames[] = {"none", "stop", "length", "cancelled", "error"};
  return kNames[size_t(finish)];
}

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
  }

  EngineOptions options;
  std::shared_ptr<Model> model;
  Scheme scheme;
  ThreadPool pool;
  EngineDevice device;
  Scratch scratch;
  Context ctx;
  std::optional<KvCache> cache;
  std::optional<Scheduler> scheduler;
  MemoryPlan plan;
  int64_t context = 0;
  // What other threads hand over; the next step takes it.
  struct Inbox {
    std::mutex mutex;
    int64_t next_id = 1;
    std::vector<std::unique_ptr<Sequence>> submitted;
    std::vector<int64_t> cancelled;
  } inbox;
  std::atomic<int64_t> unfinished = 0;
  OwnedTensor logits, host_logits;  // grown to the most rows a step has wanted; host_logits: with a GPU

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
  void deliver(const Step::LogitsRow& row, const Results& results, int64_t i, Event& event);
  void finish(Sequence& s, Finish why, Event& event);
  std::optional<Finish> finished_by(Sequence& s, int32_t token, Event& event);
};

Engine::Engine() = default;
Engine::~Engine() = default;

std::unique_ptr<Engine> Engine::open(EngineOptions options) {
  check(!options.model.empty(), "no model given: a .gguf file or a HuggingFace directory is needed");
  auto model = std::make_shared<Model>(Checkpoint::open(options.model));
  return start(std::move(options), std::move(model));
}

std::unique_ptr<Engine> Engine::open_beside(EngineOptions options) const {
  check(options.device == state_->options.device, "engine: device '{}' cannot use the weights on '{}'", options.device,
        state_->options.device);
  check(options.model == state_->options.model, "engine: '{}' cannot run on the weights of '{}'", options.model,
        state_->options.model);
  return start(std::move(options), state_->model);
}

// The weights, once for all engines on them.
void Engine::State::load() {
  const Scheme& loaded = model->scheme;
  // What is free does not count weights that are there already.
  if (model->decoder && options.memory_limit == 0 && plan.limit > 0) plan.limit += model->decoder->weight_bytes();
  // Rope tables for what can fit at all: a file may announce any context.
  const int64_t most = plan.limit > 0 ? plan.limit / plan.bytes_per_token + 1 : context;
  const int64_t positions = std::min(context, most);
  if (model->decoder) {
    check(scheme.native == loaded.native && scheme.native_activation == loaded.native_activation &&
              scheme.weight == loaded.weight && scheme.activation == loaded.activation &&
              scheme.embedding == loaded.embedding,
          "engine: scheme '{}' cannot run on weights that were loaded for '{}'", scheme.name, loaded.name);
    check(positions <= model->positions, "engine: a context of {} was asked for; the weights were loaded for {}",
          positions, model->positions);
    return;
  }
  const std::optional<Scheme>& stored = model->checkpoint.stored_scheme();
  const bool as_stored = stored && stored->weight == scheme.weight && stored->embedding == scheme.embedding;
  if (!as_stored && !scheme.native && info(scheme.weight.codec).linear && scheme.weight.codec != id<F32> &&
      options.log) {
    options.log(fmt::format("quantizing at load by round-to-nearest: weights {}, embedding and head {}",
                            to_string(scheme.weight), to_string(scheme.embedding)));
  }
  model->scheme = scheme;
  model->positions = positions;
  model->decoder.emplace(Decoder::load(ctx, model->checkpoint, scheme, positions, options.progress));
}

std::unique_ptr<Engine> Engine::start(EngineOptions options, std::shared_ptr<Model> model) {
  check(options.max_batch >= 1 && options.chunk >= 1 && options.context >= 0 && options.threads >= 0 &&
            options.threads <= 1024,
        "engine: max_batch {}, chunk {}, context {} or threads {} is out of range", options.max_batch, options.chunk,
        options.context, options.threads);
  std::unique_ptr<Engine> engine(new Engine);
  engine->state_ = std::make_unique<State>(std::move(options), std::move(model));
  State& s = *engine->state_;
  s.plan.before = process_memory().resident;
  const ModelConfig& c = s.model->checkpoint.config();
  check(s.options.context <= c.context, "a context of {} was asked for; {} was made for at most {}", s.options.context,
        c.name, c.context);
  const KvCacheConfig cache = plan_cache(s.options, c, s.scheme, s.ctx, s.plan);
  s.context = cache.max_tokens;
  s.load();
  finish_plan(s.model->decoder->weight_bytes(), s.plan);
  s.cache.emplace(fit_cache(s.options, cache, s.plan));
  s.context = s.cache->config().max_tokens;
  s.scheduler.emplace(*s.cache, s.options.chunk);
  return engine;
}

int64_t Engine::submit(Request request) {
  State& s = *state_;
  const int64_t prompt = int64_t(request.prompt.size());
  check(prompt > 0, "the prompt has no tokens");
  for (const std::vector<int32_t>* ids : {&request.prompt, &request.forced}) {
    for (const int32_t id : *ids) {
      check(id >= 0 && id < config().vocab, "token {} is not in the vocabulary of {}", id, config().vocab);
    }
  }
  check_sampler(request.sampler, config().vocab);
  const int64_t needed =
      prompt + std::max<int64_t>(int64_t(request.forced.size()), request.max_tokens == 0 ? 0 : 1) - 1;
  check(needed <= s.context,
        "the prompt of {} tokens does not fit the context of {}; shorten it or raise --context (the model allows {})",
        prompt, s.context, config().context);
  const int64_t room = s.cache->pages().count() * kPageTokens;
  check(needed <= room,
        "the prompt of {} tokens does not fit the cache of {} tokens; raise the memory limit or use a smaller cache "
        "format",
        prompt, room);
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = request.prompt;
  sequence->stream = TextStream(request.stop);
  sequence->usage.prompt_tokens = prompt;
  sequence->started = Clock::now();
  sequence->request = std::move(request);
  const std::lock_guard lock(s.inbox.mutex);
  sequence->id = s.inbox.next_id;
  s.inbox.submitted.push_back(std::move(sequence));
  ++s.unfinished;
  return s.inbox.next_id++;
}

void Engine::cancel(int64_t request) {
  State::Inbox& inbox = state_->inbox;
  const std::lock_guard lock(inbox.mutex);
  inbox.cancelled.push_back(request);
}

void Engine::profile(Profile* profile) {
  state_->ctx.profile = profile;
  if (profile) profile->wait_for(state_->ctx.stream);
}

bool Engine::busy() const { return state_->unfinished > 0; }

void Engine::State::take_inbox() {
  const std::lock_guard lock(inbox.mutex);
  for (auto& sequence : inbox.submitted) scheduler->add(std::move(sequence));
  inbox.submitted.clear();
  for (const int64_t id : inbox.cancelled) {
    if (Sequence* sequence = scheduler->find(id)) sequence->cancelled = true;
  }
  inbox.cancelled.clear();
}

void Engine::State::remove(Sequence* sequence) {
  scheduler->remove(sequence);
  --unfinished;
}

Tensor Engine::State::logits_for(int64_t rows) {
  const int64_t vocab = model->checkpoint.config().vocab;
  if (logits.tensor.rows < rows) logits = make_tensor({id<F32>, 0}, rows, vocab, {.device = ctx.device});
  return rows_of(logits, 0, rows);
}

Engine::State::Results Engine::State::results_of(const Step& step, const Tensor& there) {
  if (ctx.device == Device::cpu || step.logits.empty()) return {there, {}};
  bool needs_logits = false;
  std::vector<SampleRow> rows;
  std::vector<LogitChange> changes;
  for (const Step::LogitsRow& row : step.logits) {
    const Request& request = row.sequence->request;
    const bool watched = request.on_logits && row.position < int64_t(request.prompt.size());
    needs_logits = needs_logits || watched || request.top_logprobs >= 0;
    rows.push_back(sample_row(*row.sequence, changes));
  }
  if (!needs_logits) return {there, sample_rows(ctx, there, rows, changes)};
  if (host_logits.tensor.rows < there.rows) host_logits = make_tensor({id<F32>, 0}, there.rows, there.cols);
  const Tensor here = rows_of(host_logits, 0, there.rows);
  copy_tensor(there, here, ctx.stream);
  device.wait();
  return {here, {}};
}

void Engine::State::finish(Sequence& s, Finish why, Event& event) {
  event.finish = why;
  event.text += s.stream.finish();
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  const Clock::time_point now = Clock::now();
  const bool began = s.generated() > 0;
  s.usage.generated_tokens = s.generated();
  s.usage.prompt_seconds = seconds((began ? s.first_token : now) - s.started);
  s.usage.generation_seconds = began ? seconds(now - s.first_token) : 0.0;
  event.usage = s.usage;
}

// Whether this token ends the sequence; text that became certain is added to the event.
std::optional<Finish> Engine::State::finished_by(Sequence& s, int32_t token, Event& event) {
  const bool forced = s.generated() <= int64_t(s.request.forced.size());
  if (!forced && !s.request.ignore_eos && model->tokenizer.is_eos(token)) return Finish::stop;
  // An embedding may have more rows than the tokenizer has tokens; those have no text.
  if (token < model->tokenizer.vocab_size()) event.text += s.stream.push(model->tokenizer.bytes(token));
  if (s.stream.stopped()) return Finish::stop;
  const int64_t room = std::min(context, cache->pages().count() * kPageTokens);
  const int64_t most = s.request.max_tokens >= 0 ? s.request.max_tokens : room;
  if (s.generated() >= most || int64_t(s.tokens.size()) > room) return Finish::length;
  return std::nullopt;
}

void Engine::State::deliver(const Step::LogitsRow& row, const Results& results, int64_t i, Event& event) {
  Sequence& s = *row.sequence;
  const bool sampled = !results.tokens.empty();
  std::span<const float> row_logits;
  if (!sampled) row_logits = {results.logits.data.row<const float>(i), size_t(results.logits.cols)};
  const int64_t prompt = int64_t(s.request.prompt.size());
  if (s.request.on_logits && row.position >= std::max(s.request.logits_from, s.logits_done) && row.position < prompt) {
    s.request.on_logits(row.position, row_logits);
    s.logits_done = row.position + 1;
  }
  if (row.position != int64_t(s.tokens.size()) - 1) return;
  if (s.request.max_tokens == 0) return finish(s, Finish::length, event);
  if (s.generated() == 0) s.first_token = Clock::now();
  GeneratedToken token;
  if (!sampled) {
    const ProfileScope scope(ctx.profile, "sample", [&] {
      return OpCost{int64_t(row_logits.size_bytes()), int64_t(row_logits.size())};
    });
    choose_token(s, row_logits, token);
  } else {
    const size_t n = size_t(s.generated());
    token.token = n < s.request.forced.size() ? s.request.forced[n] : results.tokens[size_t(i)];
    check(token.token >= 0, "sample: the largest logit is not finite");
  }
  s.tokens.push_back(token.token);
  ++s.counts[token.token];
  event.tokens.push_back(token);
  if (const std::optional<Finish> why = finished_by(s, token.token, event)) finish(s, *why, event);
}

std::vector<Event> Engine::step() {
  State& s = *state_;
  s.take_inbox();
  std::vector<Event> events;
  const auto event_of = [&](const Sequence& sequence) -> Event& {
    for (Event& e : events) {
      if (e.request == sequence.id) return e;
    }
    events.push_back({});
    events.back().request = sequence.id;
    return events.back();
  };
  for (Sequence* sequence : s.scheduler->all()) {
    if (!sequence->cancelled) continue;
    s.finish(*sequence, Finish::cancelled, event_of(*sequence));
    s.remove(sequence);
  }
  Step step = s.scheduler->next();
  for (const auto& [sequence, why] : step.failed) {
    Event& event = event_of(*sequence);
    s.finish(*sequence, Finish::error, event);
    event.error = why;
    s.remove(sequence);
  }
  if (step.batch.size() == 0) return events;
  // What fails ends the requests it belongs to: a sequence left half done would never move again.
  const auto fail_request = [&](Sequence& sequence, const std::exception& why) {
    s.finish(sequence, Finish::error, event_of(sequence));
    event_of(sequence).error = why.what();
  };
  try {
    s.device.use();
    const Tensor there = s.logits_for(int64_t(step.logits.size()));
    s.model->decoder->forward(s.ctx, step.batch, *s.cache, there);
    const State::Results results = s.results_of(step, there);
    for (size_t i = 0; i < step.logits.size(); ++i) {
      Sequence& sequence = *step.logits[i].sequence;
      if (event_of(sequence).finish != Finish::none) continue;
      try {
        s.deliver(step.logits[i], results, int64_t(i), event_of(sequence));
      } catch (const std::exception& why) {  // on_logits, or logits that nothing can be sampled from
        fail_request(sequence, why);
      }
    }
  } catch (const std::exception& why) {  // the pass itself: memory
    for (Sequence* sequence : step.sequences) fail_request(*sequence, why);
  }
  for (Sequence* sequence : step.sequences) {
    if (event_of(*sequence).finish != Finish::none) s.remove(sequence);
  }
  std::erase_if(events, [](const Event& e) { return e.finish == Finish::none && e.tokens.empty() && e.text.empty(); });
  return events;
}

std::string Engine::chat_prompt(const std::vector<Message>& messages, bool add_generation_prompt) const {
  const Model& s = *state_->model;
  check(s.chat_template.has_value(), "{} has no chat template: use generate with a plain prompt", config().name);
  const TokenizerData& t = s.tokenizer.data();
  const auto spelled = [&](int32_t id) { return id >= 0 ? t.tokens[size_t(id)] : std::string(); };
  return s.chat_template->render(messages, spelled(t.bos), spelled(t.eos.empty() ? -1 : t.eos[0]),
                                 add_generation_prompt);
}

const Tokenizer& Engine::tokenizer() const { return state_->model->tokenizer; }
const ModelConfig& Engine::config() const { return state_->model->checkpoint.config(); }
const Scheme& Engine::scheme() const { return state_->scheme; }
const Checkpoint& Engine::checkpoint() const { return state_->model->checkpoint; }
MemoryPlan Engine::memory() const { return state_->plan; }
int64_t Engine::context() const { return state_->context; }
int Engine::threads() const { return state_->pool.threads(); }
std::string Engine::device() const { return state_->device.name(); }
int64_t Engine::progress(int64_t request) const {
  const Sequence* sequence = state_->scheduler->find(request);
  return sequence && sequence->slot >= 0 ? state_->cache->length(sequence->slot) : 0;
}
int64_t Engine::cached_tokens() const {
  const Pages& pages = state_->cache->pages();
  return (pages.count() - pages.available() + pages.kept()) * kPageTokens;
}
std::vector<std::string> Engine::description() const { return state_->model->decoder->description(); }

}  // namespace quire
