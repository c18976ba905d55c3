#include "engine/decode_steps.h"

#include <algorithm>

namespace quire {

namespace {

// Launches of a decode step's layer, and what a graph keeps for each; bounds, which a test compares with what is taken.
constexpr int64_t kLaunchesALayer = 20, kBytesALaunch = 2 << 10, kBytesAGraph = 1 << 20;

Batch padded(const Batch& step, int64_t rows) {
  Batch batch = step;
  for (int32_t& token : batch.tokens) token = std::max(token, 0);  // the GPU knows them
  while (batch.size() < rows) {
    batch.sequences.push_back({-1, batch.size(), 1, 0});
    batch.logits_rows.push_back(int32_t(batch.size()));
    batch.tokens.push_back(0);
    batch.positions.push_back(0);
  }
  return batch;
}

}  // namespace

DecodeSteps::DecodeSteps(const Context& ctx, int64_t slots, bool graphs)
    : slots_(slots),
      use_graphs_(graphs),
      stream_(ctx.stream),
      state_(make_step_state(ctx.device, slots)),
      known_(size_t(slots)) {
  if constexpr (kCuda) {
    for (int i = 0; i < kStepTurns; ++i) done_.push_back(std::make_shared<cuda::Event>());
  }
}

DecodeSteps::~DecodeSteps() {
  if constexpr (kCuda) {
    try {
      cuda::synchronize(stream_);
    } catch (const std::exception&) {  // whoever waited for a result has been told
    }
  }
}

int64_t DecodeSteps::bucket(int64_t n, int64_t slots) {
  int64_t step = 8;
  while (n > 4 * step) step *= 2;
  int64_t rows = n <= 1 ? 1 : n <= 2 ? 2 : n <= 4 ? 4 : (n + step - 1) / step * step;
  return std::min(rows, slots);
}

int64_t DecodeSteps::graph_bytes(int64_t slots, int64_t layers) {
  int64_t count = 0;
  for (int64_t n = 1; n <= slots; n = bucket(n, slots) + 1) ++count;
  return count * (kBytesAGraph + kBytesALaunch * nodes_at_most(layers));
}

int64_t DecodeSteps::nodes_at_most(int64_t layers) { return kLaunchesALayer * (layers + 1); }

int64_t DecodeSteps::graphs() const {
  return std::count_if(graphs_.begin(), graphs_.end(), [](const auto& g) { return g.second.graph != nullptr; });
}

int64_t DecodeSteps::graph_nodes() const {
  int64_t most = 0;
  if constexpr (kCuda) {
    for (const auto& [rows, captured] : graphs_) most = std::max(most, captured.graph ? captured.graph->nodes() : 0);
  }
  return most;
}

bool DecodeSteps::takes(const Step& step) const {
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const Sequence& s = *step.sequences[i];
    const BatchSequence& in_batch = step.batch.sequences[i];
    const bool watched = s.request.on_logits && in_batch.position < int64_t(s.request.prompt.size());
    if (in_batch.count != 1 || watched || !sampled_on_device(s)) return false;
  }
  return step.logits.size() == step.sequences.size();
}

// Slots whose state the GPU does not have, and the rows if they are others.
void DecodeSteps::join(const Context& ctx, const Step& step, int64_t rows) {
  StepJoins joins;
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const Sequence& s = *step.sequences[i];
    const BatchSequence& in_batch = step.batch.sequences[i];
    joins.rows.push_back(in_batch.slot);
    const Known& known = known_[size_t(in_batch.slot)];
    if (known.sequence == s.id && known.position == in_batch.position) continue;
    check(step.batch.tokens[size_t(in_batch.first)] >= 0 && in_batch.position == int64_t(s.tokens.size()) - 1,
          "decode: request {} goes on at {}, but {} of its tokens are known", s.id, in_batch.position, s.tokens.size());
    add_join(s, in_batch.slot, joins);
  }
  joins.rows.resize(size_t(rows), -1);
  const bool same =
      joins.rows.size() <= rows_.size() && std::equal(joins.rows.begin(), joins.rows.end(), rows_.begin());
  if (same && joins.slots.empty()) return;
  rows_ = joins.rows;
  step_join(ctx, state_.state, joins);
}

void DecodeSteps::run(const Context& ctx, const Decoder& decoder, KvCache& cache, const Step& step,
                      const Tensor& logits) {
  Batch batch = padded(step.batch, logits.rows);
  batch.device = state_.state.batch;
  step_begin(ctx, state_.state, batch.size());
  decoder.run(ctx, batch, cache, logits);
  step_sample(ctx, state_.state, logits);
}

// Whether there is a graph of these rows now. Without one (no memory for it) every op is launched as before.
bool DecodeSteps::capture([[maybe_unused]] const Context& ctx, [[maybe_unused]] const Decoder& decoder,
                          [[maybe_unused]] KvCache& cache, [[maybe_unused]] const Step& step,
                          [[maybe_unused]] const Tensor& logits) {
  Captured& captured = graphs_[logits.rows];
  if constexpr (kCuda) {
    if (captured.graph || captured.refused) return captured.graph != nullptr;
    cuda::Graph::begin(ctx.stream);
    try {
      run(ctx, decoder, cache, step, logits);
      captured.graph = std::make_shared<cuda::Graph>(ctx.stream);
    } catch (const std::exception&) {
      cuda::Graph::abandon(ctx.stream);
      captured.refused = true;
      ctx.scratch->reset();
    }
  }
  return captured.graph != nullptr;
}

void DecodeSteps::launch([[maybe_unused]] const Context& ctx, [[maybe_unused]] const Decoder& decoder,
                         [[maybe_unused]] KvCache& cache, [[maybe_unused]] const Step& step,
                         [[maybe_unused]] const Tensor& logits) {
  if constexpr (kCuda) {
    try {
      join(ctx, step, logits.rows);
      cache.begin_step(step.batch);
      ctx.scratch->reset();
      if (growths_ != ctx.scratch->growths() || logits_ != logits.data.ptr) graphs_.clear();
      growths_ = ctx.scratch->growths();
      logits_ = logits.data.ptr;
      const bool graphs = use_graphs_ && !ctx.profile, ran = graphs_.count(logits.rows) > 0;
      if (graphs && ran && capture(ctx, decoder, cache, step, logits)) {
        graphs_[logits.rows].graph->launch(ctx.stream);
      } else {
        run(ctx, decoder, cache, step, logits);
        // The first time also loads kernels and lets the scratch grow, which a capture must not.
        if (graphs && growths_ == ctx.scratch->growths()) graphs_.try_emplace(logits.rows);
      }
      ++turn_;
      done_[size_t(turn_ % kStepTurns)]->record(ctx.stream);
    } catch (const std::exception&) {
      recount(ctx);
      throw;
    }
    cache.end_step(step.batch);
    unread_.push_back({turn_, step.batch.size()});
    for (size_t i = 0; i < step.sequences.size(); ++i) {
      const BatchSequence& s = step.batch.sequences[i];
      known_[size_t(s.slot)] = {step.sequences[i]->id, s.position + 1};
    }
  }
}

// After a failure nothing is sure but what the GPU says.
void DecodeSteps::recount([[maybe_unused]] const Context& ctx) {
  graphs_.clear();
  known_.assign(known_.size(), {});
  rows_.clear();
  if constexpr (kCuda) {
    try {
      cuda::copy_async(&turn_, state_.state.turn, sizeof(turn_), ctx.stream);
      cuda::synchronize(ctx.stream);
    } catch (const std::exception&) {  // the device itself failed: the next step will say so
    }
  }
}

std::vector<int32_t> DecodeSteps::ids() {
  check(!unread_.empty(), "decode: no step was launched");
  const Unread step = unread_.front();
  unread_.pop_front();
  if constexpr (kCuda) done_[size_t(step.turn % kStepTurns)]->synchronize();
  const int32_t* ids = state_.state.ids + step.turn % kStepTurns * slots_;
  return {ids, ids + step.rows};
}

}  // namespace quire
