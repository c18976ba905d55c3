#include "engine/engine.h"

#include "base/machine.h"
#include "engine/memory.h"
#include "engine/state.h"

namespace quire {

const char* to_string(Finish finish) {
  constexpr const char* kNames[] = {"none", "stop", "length", "cancelled", "error"};
  return kNames[size_t(finish)];
}

Engine::Engine() = default;
Engine::~Engine() {
  if (!state_) return;
  const CallersDevice callers(state_->device);
  state_.reset();
}

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
  const CallersDevice callers;
  std::unique_ptr<Engine> engine(new Engine);
  engine->state_ = std::make_unique<State>(std::move(options), std::move(model));
  State& s = *engine->state_;
  s.plan.before = process_memory().resident;
  const ModelConfig& c = s.model->checkpoint.config();
  check(s.options.context <= c.context, "a context of {} was asked for; {} was made for at most {}", s.options.context,
        c.name, c.context);
  s.ctx.deterministic = s.options.deterministic;
  if (wants_blas(s.options, c)) s.ctx.blas = s.device.blas();
  const KvCacheConfig cache = plan_cache(s.options, c, s.scheme, s.ctx, s.plan);
  s.context = cache.max_tokens;
  s.load();
  finish_plan(s.model->decoder->weight_bytes(), s.plan);
  s.cache.emplace(fit_cache(s.options, cache, s.plan));
  s.context = s.cache->config().max_tokens;
  s.scheduler.emplace(*s.cache, s.options.chunk);
  if (s.ctx.device == Device::cuda) s.decode.emplace(s.ctx, s.options.max_batch, !s.options.eager);
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
  if (!sequence || sequence->slot < 0) return 0;
  // A step that is not read yet has counted a token already.
  return std::min(state_->cache->length(sequence->slot), std::max<int64_t>(0, int64_t(sequence->tokens.size()) - 1));
}
int64_t Engine::cached_tokens() const {
  const Pages& pages = state_->cache->pages();
  return (pages.count() - pages.available() + pages.kept()) * kPageTokens;
}
std::vector<std::string> Engine::description() const { return state_->model->decoder->description(); }

}  // namespace quire
