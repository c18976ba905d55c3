#include "engine/engine.h"

#include "base/machine.h"
#include "engine/memory.h"
#include "engine/state.h"
#include "models/dummy.h"
#include "models/rope_scaling.h"

namespace quire {

const char* to_string(Finish finish) {
  constexpr const char* kNames[] = {"none", "stop", "length", "cancelled", "error"};
  return kNames[size_t(finish)];
}

Engine::Engine() = default;
Engine::~Engine() {
  if (!state_) return;
  std::optional<CallersDevice> callers;
  try {
    callers.emplace(state_->device);
  } catch (const std::exception&) {  // the device failed, which its requests have been told
  }
  state_.reset();
}

namespace {
Checkpoint open_checkpoint(const EngineOptions& options) {
  return options.dummy ? open_dummy(options.model, options.context) : Checkpoint::open(options.model);
}
}  // namespace

std::unique_ptr<Engine> Engine::open(EngineOptions options) {
  check(!options.model.empty(), "no model given: a .gguf file or a HuggingFace directory is needed");
  auto model = std::make_shared<Model>(open_checkpoint(options));
  return start(std::move(options), std::move(model));
}

void Engine::check_same_weights(const EngineOptions& options) const {
  const EngineOptions& own = state_->options;
  check(options.device == own.device, "engine: device '{}' cannot use the weights on '{}'", options.device, own.device);
  check(options.model == own.model && options.dummy == own.dummy, "engine: '{}' cannot run on the weights of '{}'",
        options.model, own.model);
}

std::unique_ptr<Engine> Engine::open_beside(EngineOptions options) const {
  check_same_weights(options);
  return start(std::move(options), state_->model);
}

std::unique_ptr<Engine> Engine::open_after(std::unique_ptr<Engine> before, EngineOptions options) {
  before->check_same_weights(options);
  std::shared_ptr<Model> model = before->state_->model;
  before.reset();
  return start(std::move(options), std::move(model));
}

// Everything that is decided before anything is loaded. Error if it cannot fit.
KvCacheConfig Engine::State::make_plan() {
  plan.before = process_memory().resident;
  const ModelConfig& c = model->checkpoint.config();
  check(options.context <= c.context, "a context of {} was asked for; {} was made for at most {}", options.context,
        c.name, c.context);
  if (has_longer_rope(c) && options.log) {
    const int64_t original = c.rope_scaling.original_context;
    const bool longer = options.context > original;
    options.log(
        fmt::format("LongRoPE: the {} factors are used; contexts above {} tokens (--context, at most {}) use the "
                    "long ones, others the short ones",
                    longer ? "long" : "short", original, c.context));
  }
  uses_blas = wants_blas(options, c) && device.has_blas();
  const KvCacheConfig cache = plan_cache(options, c, scheme, ctx, uses_blas, plan);
  context = cache.max_tokens;
  decoder_plan = Decoder::plan(ctx, model->checkpoint, scheme);
  plan.weights = decoder_plan.weight_bytes;
  // What is free does not count weights that are there already.
  if (model->decoder && options.memory_limit == 0 && plan.limit > 0) plan.limit += plan.weights;
  return fit_cache(options, cache, plan);
}

// The weights, once for all engines on them.
void Engine::State::load() {
  const Scheme& loaded = model->scheme;
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
  if (!as_stored && !scheme.native && !options.dummy && info(scheme.weight.codec).linear &&
      scheme.weight.codec != id<F32> && options.log) {
    options.log(fmt::format("quantizing at load by round-to-nearest: weights {}, embedding and head {}",
                            to_string(scheme.weight), to_string(scheme.embedding)));
  }
  if (options.log && ctx.device == Device::cuda) {
    const auto mib = [](int64_t bytes) { return double(bytes) / (1 << 20); };
    options.log(fmt::format(
        "memory on {}: weights {:.0f} MiB, scratch {:.0f}, graphs {:.0f}, cache {:.0f} of {} tokens; at most {:.0f}",
        device.name(), mib(plan.weights), mib(plan.scratch), mib(plan.graphs), mib(plan.cache), plan.cache_tokens,
        mib(plan.limit)));
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
  const CallersDevice callers(options.device);
  std::unique_ptr<Engine> engine(new Engine);
  engine->state_ = std::make_unique<State>(std::move(options), std::move(model));
  State& s = *engine->state_;
  s.ctx.deterministic = s.options.deterministic;
  check(s.ctx.device == Device::cpu || s.options.max_batch <= kMaxSequencesOnGpu,
        "engine: max_batch {}: a step on a GPU has at most {} sequences", s.options.max_batch, kMaxSequencesOnGpu);
  KvCacheConfig cache = s.make_plan();
  cache.scales = s.model->checkpoint.cache_scales();
  if (!s.options.plan_only && s.uses_blas) s.ctx.blas = s.device.blas();
  if (!s.options.plan_only) {
    s.load();
    s.cache.emplace(cache);
  }
  s.context = cache.max_tokens;
  if (s.options.plan_only) return engine;
  s.scheduler.emplace(*s.cache, s.options.chunk);
  if (s.ctx.device == Device::cuda) s.decode.emplace(s.ctx, s.options.max_batch, !s.options.eager);
  return engine;
}

int64_t Engine::submit(Request request) {
  State& s = *state_;
  check(s.cache.has_value(), "this engine was opened to plan only: it takes no requests");
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
  if (profile) profile->observe(state_->ctx.stream);
}

void Engine::fill_at_random(bool fill) { state_->fill = fill; }

bool Engine::busy() const { return state_->unfinished > 0; }

std::string Engine::chat_prompt(const std::vector<Message>& messages, bool add_generation_prompt) const {
  const Model& s = *state_->model;
  check(s.chat_template.has_value(), "{} has no chat template: use generate with a plain prompt", config().name);
  const TokenizerData& t = s.tokenizer.data();
  const auto spelled = [&](int32_t id) {
    return id >= 0 && size_t(id) < t.tokens.size() ? t.tokens[size_t(id)] : std::string();
  };
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
  const Sequence* sequence = state_->scheduler ? state_->scheduler->find(request) : nullptr;
  if (!sequence || sequence->slot < 0) return 0;
  // A step that is not read yet has counted a token already.
  return std::min(state_->cache->length(sequence->slot), std::max<int64_t>(0, int64_t(sequence->tokens.size()) - 1));
}
int64_t Engine::cached_tokens() const {
  if (!state_->cache) return 0;
  const Pages& pages = state_->cache->pages();
  return (pages.count() - pages.available() + pages.kept()) * kPageTokens;
}
std::vector<std::string> Engine::description() const {
  std::vector<std::string> lines = state_->decoder_plan.description;
  if (state_->decode) {
    lines.push_back(fmt::format("decode steps: {} graphs, of {} launches at most", state_->decode->graphs(),
                                state_->decode->graph_nodes()));
  }
  return lines;
}

}  // namespace quire
