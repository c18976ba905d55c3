#include "engine/scheduler.h"

#include <algorithm>

namespace quire {

Scheduler::Scheduler(KvCache& cache, int64_t chunk) : cache_(cache), chunk_(chunk) {}

void Scheduler::add(List&& sequences) { waiting_.splice(waiting_.end(), sequences); }

std::vector<Sequence*> Scheduler::all() {
  std::vector<Sequence*> list;
  for (auto& s : running_) list.push_back(s.get());
  for (auto& s : waiting_) list.push_back(s.get());
  return list;
}

Sequence* Scheduler::find(int64_t id) {
  for (Sequence* s : all()) {
    if (s->id == id) return s;
  }
  return nullptr;
}

void Scheduler::remove(Sequence* sequence) {
  if (sequence->slot >= 0) cache_.close(sequence->slot);
  blocked_ = false;
  const auto is_it = [&](const std::unique_ptr<Sequence>& s) { return s.get() == sequence; };
  std::erase_if(waiting_, is_it);
  std::erase_if(running_, is_it);
}

int64_t Scheduler::pages_to_come(const Sequence& s) const {
  return cache_.pages_needed(s.slot, int64_t(s.tokens.size()) - cache_.length(s.slot));
}

void Scheduler::admit() {
  while (!waiting_.empty()) {
    Sequence& s = *waiting_.front();
    running_.reserve(running_.size() + 1);  // before it holds anything
    // Logits that were asked for must be computed, so sharing stops before them.
    const bool wants_logits = s.request.on_logits != nullptr;
    const int64_t shareable =
        wants_logits ? std::max(s.logits_done, s.request.logits_from) + 1 : int64_t(s.tokens.size());
    const int32_t slot =
        cache_.open(std::span(s.tokens).first(size_t(std::min<int64_t>(shareable, int64_t(s.tokens.size())))));
    blocked_ = slot < 0;
    if (blocked_) return;
    s.slot = slot;
    // Room for its whole prompt beside those of the others, or they would push each other out; alone it may always try.
    int64_t needed = pages_to_come(s);
    for (const auto& other : running_) needed += pages_to_come(*other);
    if (!running_.empty() && needed > cache_.pages().available()) {
      cache_.close(slot);
      s.slot = -1;
      blocked_ = true;
      return;
    }
    if (s.generated() == 0) s.usage.cached_tokens = cache_.length(slot);
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

bool Scheduler::preempt_after(const Sequence& s) {
  if (running_.empty() || running_.back().get() == &s) return false;
  std::unique_ptr<Sequence>& youngest = waiting_.emplace_front();
  youngest = std::move(running_.back());
  running_.pop_back();
  cache_.close(youngest->slot);
  youngest->slot = -1;
  blocked_ = false;
  return true;
}

bool Scheduler::plan(Sequence& s, int64_t budget, Step& step) {
  const int64_t length = cache_.length(s.slot), total = int64_t(s.tokens.size()),
                prompt = int64_t(s.request.prompt.size());
  int64_t count = std::min(budget, total - length);
  const int64_t asked_from = std::max(s.request.logits_from, s.logits_done);
  if (s.request.on_logits && length < prompt) {
    const int64_t rows_left = std::max<int64_t>(0, kMaxLogitsRows - int64_t(step.logits.size()));
    count = std::min(count, std::max<int64_t>(0, asked_from - length) + rows_left);
    if (count == 0) return true;  // in a later step
  }
  if (!cache_.reserve(s.slot, count)) return false;
  Batch& b = step.batch;
  b.sequences.push_back({s.slot, b.size(), count, length});
  step.sequences.push_back(&s);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = length + i;
    const bool asked = s.request.on_logits && position >= asked_from && position < prompt;
    if (asked || position == total - 1) {
      b.logits_rows.push_back(int32_t(b.size()));
      step.logits.push_back({&s, position});
    }
    b.tokens.push_back(s.tokens[size_t(position)]);
    b.positions.push_back(int32_t(position));
  }
  return true;
}

Step Scheduler::next() {
  admit();
  Step step;
  const auto pending = [&](const Sequence& s) { return int64_t(s.tokens.size()) - cache_.length(s.slot); };
  for (const bool decoding : {true, false}) {
    for (size_t i = 0; i < running_.size(); ++i) {  // preemption shortens the list from its end
      Sequence& s = *running_[i];
      if ((pending(s) == 1) != decoding) continue;
      const int64_t budget = decoding ? 1 : chunk_ - step.batch.size();
      if (budget <= 0) break;
      // A sequence already in this step is older than s or decodes with it; only ones not in it can be preempted.
      bool planned = plan(s, budget, step);
      while (!planned &&
             std::find(step.sequences.begin(), step.sequences.end(), running_.back().get()) == step.sequences.end() &&
             preempt_after(s)) {
        planned = plan(s, budget, step);
      }
      if (!planned && step.sequences.empty() && running_.size() == 1) {
        step.failed.emplace_back(
            &s, fmt::format("the cache of {} tokens is full: this sequence has {} and needs more; raise the "
                            "memory limit, shorten the prompt or use a smaller cache format (--kv kv4)",
                            cache_.pages().count() * kPageTokens, s.tokens.size()));
      }
    }
  }
  return step;
}

Step Scheduler::ahead(const Step& flying, const std::function<bool(const Sequence&)>& goes_on) {
  if (!waiting_.empty() && !blocked_) return {};
  const auto flies = [&](const std::unique_ptr<Sequence>& s) {
    return std::find(flying.sequences.begin(), flying.sequences.end(), s.get()) != flying.sequences.end();
  };
  if (!std::all_of(running_.begin(), running_.end(), flies)) return {};
  Step step;
  Batch& b = step.batch;
  for (Sequence* const s : flying.sequences) {
    if (!s || !goes_on(*s)) continue;
    if (!cache_.reserve(s->slot, 1)) return {};
    const int64_t position = cache_.length(s->slot);
    b.sequences.push_back({s->slot, b.size(), 1, position});
    b.logits_rows.push_back(int32_t(b.size()));
    b.tokens.push_back(-1);
    b.positions.push_back(int32_t(position));
    step.sequences.push_back(s);
    step.logits.push_back({s, position});
  }
  return step;
}

}  // namespace quire
