// quire.h over engine.h. No exception crosses it: each function that can fail turns one into its error value.
#include <algorithm>
#include <cstring>
#include <deque>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/quire.h"

struct quire_engine {
  std::unique_ptr<quire::Engine> engine;
  std::deque<quire::Event> events;  // of the last step, not handed out yet
  quire::Event current;             // what the last quire_event points into
  std::vector<int32_t> tokens;
};

namespace quire {

namespace {

thread_local std::string last_error;

// Runs fn; if it throws, the text is kept for quire_last_error and `failed` is the result.
template <class Fn, class Result>
Result guarded(Result failed, Fn fn) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    last_error = "out of memory";
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an unknown error";
  }
  return failed;
}

// The caller's struct, which may be of an older and shorter kind, as ours.
template <class T>
T taken(const T* given, const char* name) {
  T all{};
  if (!given) return all;
  check(given->size >= sizeof(size_t) && given->size <= (size_t{1} << 16),
        "{0}: its size is {1}; set it to sizeof({0})", name, given->size);
  std::memcpy(&all, given, std::min(given->size, sizeof(T)));
  return all;
}

std::string text_or_empty(const char* text) { return text ? text : ""; }

EngineOptions engine_options(const quire_options& o) {
  EngineOptions options;
  options.model = text_or_empty(o.model);
  options.scheme = text_or_empty(o.scheme);
  options.kv = text_or_empty(o.kv);
  if (o.device) options.device = o.device;
  options.deterministic = o.deterministic != 0;
  options.threads = o.threads;
  if (o.max_batch != 0) options.max_batch = o.max_batch;
  options.context = o.context;
  options.memory_limit = o.memory_limit;
  if (o.progress)
    options.progress = [o](const std::string& what, int64_t done, int64_t total) {
      return o.progress(o.user, what.c_str(), done, total) != 0;
    };
  if (o.log) options.log = [o](const std::string& line) { o.log(o.user, line.c_str()); };
  return options;
}

Request engine_request(const quire_request* given, std::vector<int32_t> prompt) {
  const quire_request r = taken(given, "quire_request");
  Request request;
  request.prompt = std::move(prompt);
  check(r.max_tokens >= 0, "quire_request: max_tokens is {}; 0 is no limit", r.max_tokens);
  request.max_tokens = r.max_tokens > 0 ? r.max_tokens : -1;
  request.ignore_eos = r.ignore_eos != 0;
  SamplerOptions& sampler = request.sampler;
  sampler.temperature = r.temperature;
  sampler.top_k = r.top_k;
  if (r.top_p != 0.0f) sampler.top_p = r.top_p;
  sampler.min_p = r.min_p;
  if (r.repetition_penalty != 0.0f) sampler.repetition_penalty = r.repetition_penalty;
  sampler.presence_penalty = r.presence_penalty;
  sampler.frequency_penalty = r.frequency_penalty;
  sampler.seed = r.seed;
  check(r.stop_count == 0 || r.stop, "quire_request: stop_count is {}, but stop is NULL", r.stop_count);
  for (size_t i = 0; i < r.stop_count; ++i) {
    check(r.stop[i] != nullptr, "quire_request: stop[{}] is NULL", i);
    request.stop.emplace_back(r.stop[i]);
  }
  return request;
}

quire_event c_event(quire_engine& e) {
  const Event& from = e.current;
  e.tokens.clear();
  for (const GeneratedToken& token : from.tokens) e.tokens.push_back(token.token);
  quire_event event{};
  event.request = from.request;
  event.text = from.text.c_str();
  event.text_size = from.text.size();
  event.tokens = e.tokens.data();
  event.token_count = e.tokens.size();
  event.finish = static_cast<quire_finish>(from.finish);
  event.error = from.error.c_str();
  event.prompt_tokens = from.usage.prompt_tokens;
  event.cached_tokens = from.usage.cached_tokens;
  event.generated_tokens = from.usage.generated_tokens;
  event.prompt_seconds = from.usage.prompt_seconds;
  event.generation_seconds = from.usage.generation_seconds;
  return event;
}
static_assert(int(Finish::none) == QUIRE_RUNNING && int(Finish::stop) == QUIRE_STOP &&
              int(Finish::length) == QUIRE_LENGTH && int(Finish::cancelled) == QUIRE_CANCELLED &&
              int(Finish::error) == QUIRE_ERROR);

}  // namespace

}  // namespace quire

uint32_t quire_abi_version(void) { return QUIRE_ABI_VERSION; }
const char* quire_last_error(void) { return quire::last_error.c_str(); }

quire_engine* quire_open(const quire_options* options) {
  return quire::guarded(static_cast<quire_engine*>(nullptr), [&] {
    quire::check(options != nullptr, "quire_open: options is NULL");
    auto opened = std::make_unique<quire_engine>();
    opened->engine = quire::Engine::open(quire::engine_options(quire::taken(options, "quire_options")));
    return opened.release();
  });
}

void quire_close(quire_engine* engine) { delete engine; }

int64_t quire_submit(quire_engine* engine, const char* text, const quire_request* request) {
  return quire::guarded(int64_t{0}, [&] {
    quire::check(engine && text, "quire_submit: the {} is NULL", engine ? "text" : "engine");
    return engine->engine->submit(quire::engine_request(request, engine->engine->tokenizer().encode(text)));
  });
}

int64_t quire_submit_tokens(quire_engine* engine, const int32_t* tokens, size_t count, const quire_request* request) {
  return quire::guarded(int64_t{0}, [&] {
    quire::check(engine && (tokens || count == 0), "quire_submit_tokens: a NULL was given");
    return engine->engine->submit(quire::engine_request(request, {tokens, tokens + count}));
  });
}

int64_t quire_submit_chat(quire_engine* engine, const quire_message* messages, size_t count,
                          const quire_request* request) {
  return quire::guarded(int64_t{0}, [&] {
    quire::check(engine && (messages || count == 0), "quire_submit_chat: a NULL was given");
    std::vector<quire::Message> list;
    for (size_t i = 0; i < count; ++i) {
      quire::check(messages[i].role && messages[i].content, "quire_submit_chat: message {} has a NULL", i);
      list.push_back({messages[i].role, messages[i].content});
    }
    return engine->engine->submit(quire::engine_request(request, engine->engine->encode_chat(list)));
  });
}

void quire_cancel(quire_engine* engine, int64_t request) {
  quire::guarded(0, [&] {
    if (engine) engine->engine->cancel(request);
    return 0;
  });
}

int quire_next(quire_engine* engine, quire_event* event) {
  return quire::guarded(-1, [&] {
    quire::check(engine && event, "quire_next: the {} is NULL", engine ? "event" : "engine");
    const size_t size = quire::taken(event, "quire_event").size;
    while (engine->events.empty() && engine->engine->busy()) {
      for (quire::Event& e : engine->engine->step()) engine->events.push_back(std::move(e));
    }
    if (engine->events.empty()) return 0;
    engine->current = std::move(engine->events.front());
    engine->events.pop_front();
    quire_event filled = quire::c_event(*engine);
    filled.size = size;
    std::memcpy(event, &filled, std::min(size, sizeof filled));
    return 1;
  });
}
