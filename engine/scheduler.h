// Which tokens run next. Sequences that decode come first, then prompt chunks, oldest request first. When the cache
// runs out, the youngest sequence gives its pages back and is computed again later; results do not depend on it.
#pragma once
#include <functional>
#include <list>
#include <memory>

#include "engine/sequence.h"
#include "kvcache/kv_cache.h"

namespace quire {

// Prompt rows whose logits a step gives at most: each is a vocabulary wide.
inline constexpr int64_t kMaxLogitsRows = 128;

struct Step {
  Batch batch;
  std::vector<Sequence*> sequences;  // of batch.sequences, in order
  // For each row of logits: the sequence, and the position in it.
  struct LogitsRow {
    Sequence* sequence;
    int64_t position;
  };
  std::vector<LogitsRow> logits;
  std::vector<std::pair<Sequence*, std::string>> failed;  // cannot go on even alone
};

class Scheduler {
 public:
  Scheduler(KvCache& cache, int64_t chunk);

  using List = std::list<std::unique_ptr<Sequence>>;
  void add(List&& sequences);  // takes no memory, so none is lost
  Sequence* find(int64_t id);
  void remove(Sequence* sequence);  // closes its slot
  bool idle() const { return waiting_.empty() && running_.empty(); }
  const std::vector<std::unique_ptr<Sequence>>& running() const { return running_; }
  std::vector<Sequence*> all();

  Step next();
  // The step after `flying`, in which every sequence had one token, before what it sampled is known: the same sequences
  // (tokens -1), without those that end with it as far as goes_on knows. Empty if a step needs a whole plan: somebody
  // may be admitted, has a prompt to compute or found no page.
  Step ahead(const Step& flying, const std::function<bool(const Sequence&)>& goes_on);

 private:
  void admit();
  int64_t pages_to_come(const Sequence& s) const;      // for what of it is known and not yet in the cache
  bool plan(Sequence& s, int64_t budget, Step& step);  // false: no pages
  bool preempt_after(const Sequence& s);
  KvCache& cache_;
  int64_t chunk_;
  bool blocked_ = false;  // the first that waits found no room, and nobody has left since
  List waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
};

}  // namespace quire
