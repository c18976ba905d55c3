// A step of the engine: what runs, and what comes of it.
#include "engine/state.h"

namespace quire {

void Engine::State::take_inbox() {
  const std::lock_guard lock(inbox.mutex);
  scheduler->add(std::move(inbox.submitted));
  for (const int64_t id : inbox.cancelled) {
    if (Sequence* sequence = scheduler->find(id)) sequence->cancelled = true;
  }
  inbox.cancelled.clear();
}

void Engine::State::remove(Sequence* sequence) {
  for (Step& step : flying) {
    for (Sequence*& s : step.sequences) s = s == sequence ? nullptr : s;
    for (Step::LogitsRow& row : step.logits) row.sequence = row.sequence == sequence ? nullptr : row.sequence;
  }
  scheduler->remove(sequence);
  --unfinished;
}

Tensor Engine::State::logits_for(int64_t rows) {
  const int64_t wanted = rows;
  const int64_t vocab = model->checkpoint.config().vocab;
  // On a GPU graphs know where they are: it should stay.
  if (ctx.device == Device::cuda && logits.tensor.rows < rows) rows = std::max(rows, options.max_batch);
  if (logits.tensor.rows < rows) logits = make_tensor({id<F32>, 0}, rows, vocab, {.device = ctx.device});
  return rows_of(logits, 0, wanted);
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
  event.text += s.stream.finish();  // first, as there may be no memory for it
  event.finish = why;
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
  if (!lengthens(s, 0)) return Finish::length;
  return std::nullopt;
}

bool Engine::State::lengthens(const Sequence& s, int64_t tokens) const {
  const int64_t room = std::min(context, cache->pages().count() * kPageTokens);
  const int64_t most = s.request.max_tokens >= 0 ? s.request.max_tokens : room;
  return s.generated() + tokens < most && int64_t(s.tokens.size()) + tokens <= room;
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

// Without memory too: nobody would hear of the request again.
void Engine::State::fail_request(Sequence& s, const std::exception& why, Events& events) {
  Event& event = events.of(s);
  try {
    const bool bare = dynamic_cast<const std::bad_alloc*>(&why) != nullptr;  // "std::bad_alloc" tells people nothing
    event.error = bare ? "out of memory" : why.what();
    finish(s, Finish::error, event);
  } catch (const std::bad_alloc&) {
    event.finish = Finish::error;
    event.error = "out of memory";  // short enough to lie in the string itself
  }
}

void Engine::State::deliver_all(const Step& step, const Results& results, Events& events) {
  for (size_t i = 0; i < step.logits.size(); ++i) {
    Sequence* const sequence = step.logits[i].sequence;
    if (!sequence || events.of(*sequence).finish != Finish::none) continue;
    try {
      deliver(step.logits[i], results, int64_t(i), events.of(*sequence));
    } catch (const std::exception& why) {  // on_logits, or logits that nothing can be sampled from
      fail_request(*sequence, why, events);
    }
  }
}

// What fails ends the requests it belongs to: a sequence left half done would never move again.
void Engine::State::compute(Step& step, Events& events) {
  try {
    if (fill) {
      model->decoder->fill_cache(ctx, step.batch, *cache);
      deliver_all(step, {{}, std::vector<int32_t>(step.logits.size(), 0)}, events);
    } else {
      const Tensor there = logits_for(int64_t(step.logits.size()));
      model->decoder->forward(ctx, step.batch, *cache, there);
      deliver_all(step, results_of(step, there), events);
    }
  } catch (const std::exception& why) {  // the pass itself: memory
    for (Sequence* sequence : step.sequences) fail_request(*sequence, why, events);
  }
  for (Sequence* sequence : step.sequences) {
    if (events.of(*sequence).finish != Finish::none) remove(sequence);
  }
}

bool Engine::State::launch(Step step, Events& events) {
  bool waits = false;  // in `flying`, before it is launched: what is launched must be landed
  try {
    flying.push_back(std::move(step));
    waits = true;
    const Tensor there = logits_for(decode->rows_for(flying.back().batch.size()));
    decode->launch(ctx, *model->decoder, *cache, flying.back(), there);
  } catch (const std::exception& why) {
    if (waits) {
      step = std::move(flying.back());
      flying.pop_back();
    }
    for (Sequence* sequence : step.sequences) {
      fail_request(*sequence, why, events);
      remove(sequence);
    }
    return false;
  }
  return true;
}

void Engine::State::land(Events& events) {
  Step step = std::move(flying.front());
  flying.pop_front();
  const Step* const next = flying.empty() ? nullptr : &flying.front();
  try {
    deliver_all(step, {{}, decode->ids()}, events);
  } catch (const std::exception& why) {
    for (Sequence* sequence : step.sequences) {
      if (sequence) fail_request(*sequence, why, events);
    }
  }
  for (Sequence*& sequence : step.sequences) {
    if (!sequence || events.of(*sequence).finish == Finish::none) continue;
    remove(sequence);
    sequence = nullptr;
  }
  for (Sequence* sequence : step.sequences) {
    if (!sequence || !next || std::count(next->sequences.begin(), next->sequences.end(), sequence) == 0) continue;
    try {
      cache->learn(sequence->slot, sequence->tokens.back());  // what it was given before it was known
    } catch (const std::exception& why) {                     // its pages no longer say what is in them
      fail_request(*sequence, why, events);
      remove(sequence);
    }
  }
}

std::vector<Event> Engine::step() {
  State& s = *state_;
  check(s.cache.has_value(), "this engine was opened to plan only: it takes no requests");
  std::optional<Events> events;
  bool no_memory = false;
  try {
    s.take_inbox();
    events.emplace(s.scheduler->all().size());
    s.advance(*events);
  } catch (const std::bad_alloc&) {  // of planning: nothing was computed, and what is told already must not be lost
    no_memory = true;
  }
  std::vector<Event> told;
  if (events) told = std::move(*events).told();
  check(!no_memory || !told.empty(), "out of memory; no request was lost, and the next step tries again");
  return told;
}

void Engine::State::advance(Events& events) {
  std::optional<CallersDevice> callers;
  try {
    callers.emplace(device);
  } catch (const std::exception& why) {  // the device failed: nothing can go on
    for (Sequence* sequence : scheduler->all()) {
      fail_request(*sequence, why, events);
      remove(sequence);
    }
    return;
  }
  for (Sequence* sequence : scheduler->all()) {
    if (!sequence->cancelled) continue;
    finish(*sequence, Finish::cancelled, events.of(*sequence));
    remove(sequence);
  }
  // Steps that nobody waits for any more.
  const auto lost = [](const Step& step) {
    return std::all_of(step.sequences.begin(), step.sequences.end(), [](const Sequence* q) { return q == nullptr; });
  };
  while (!flying.empty() && lost(flying.front())) {
    decode->skip();
    flying.pop_front();
  }
  if (flying.empty()) {
    Step step = scheduler->next();
    for (const auto& [sequence, why] : step.failed) {
      fail_request(*sequence, Error(why), events);
      remove(sequence);
    }
    if (step.batch.size() == 0) return;
    if (!decode || !decode->takes(step)) return compute(step, events);
    if (!launch(std::move(step), events)) return;
  }
  // While a step runs, the next one is planned and enqueued: what it computes for a sequence that turns out to have
  // stopped is dropped.
  if (!options.eager) {
    Step next = scheduler->ahead(flying.front(), [&](const Sequence& q) { return lengthens(q, 1); });
    if (next.batch.size() > 0 && decode->takes(next)) launch(std::move(next), events);
  }
  land(events);
}

}  // namespace quire
