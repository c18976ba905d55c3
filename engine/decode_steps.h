// Steps on a GPU in which every sequence decodes: what they need lies there (kernels/step_state.h), so that a step is
// one launch of a graph, and can be enqueued before the one before it was read.
#pragma once
#include <deque>
#include <map>
#include <memory>

#include "engine/scheduler.h"
#include "kernels/step_state.h"
#include "models/decoder.h"

namespace quire {

class DecodeSteps {
 public:
  // slots: sequences at once. graphs: of each number of rows, the second time it comes; else every op is launched.
  DecodeSteps(const Context& ctx, int64_t slots, bool graphs);
  ~DecodeSteps();  // waits for what was launched
  DecodeSteps(const DecodeSteps&) = delete;
  DecodeSteps& operator=(const DecodeSteps&) = delete;

  // At most: the state, and all graphs of a decoder of `layers` layers.
  static int64_t state_bytes(int64_t slots) { return step_state_bytes(slots); }
  static int64_t graph_bytes(int64_t slots, int64_t layers);

  // Rows that a step of n sequences computes: it is padded, so that there are few graphs.
  int64_t rows_for(int64_t n) const { return bucket(n, slots_); }
  static int64_t bucket(int64_t n, int64_t slots);

  // Whether every sequence of the step has one token in it and can be sampled on the GPU.
  bool takes(const Step& step) const;

  // Enqueues the step, between begin_step and end_step of the cache. Tokens of sequences whose last step was launched
  // here need not be known (-1). logits (rows_for, V) f32 on the GPU.
  void launch(const Context& ctx, const Decoder& decoder, KvCache& cache, const Step& step, const Tensor& logits);
  std::vector<int32_t> ids();  // of the oldest step that was not read, in order of its sequences; waits for it
  void skip() { unread_.pop_front(); }

  int64_t graphs() const;
  int64_t graph_nodes() const;                   // of the largest
  static int64_t nodes_at_most(int64_t layers);  // that graph_bytes counts

 private:
  struct Known {  // what the GPU has of a slot
    int64_t sequence = 0, position = -1;
  };
  struct Unread {
    uint32_t turn;
    int64_t rows;
  };
  void join(const Context& ctx, const Step& step, int64_t rows);
  void run(const Context& ctx, const Decoder& decoder, KvCache& cache, const Step& step, const Tensor& logits);
  bool capture(const Context& ctx, const Decoder& decoder, KvCache& cache, const Step& step, const Tensor& logits);
  void recount(const Context& ctx);

  int64_t slots_;
  bool use_graphs_;
  cuda::StreamHandle stream_;
  OwnedStepState state_;
  std::vector<Known> known_;
  std::vector<int32_t> rows_;  // slots of the rows, as the GPU has them
  uint32_t turn_ = 0;
  std::deque<Unread> unread_;
  std::vector<std::shared_ptr<cuda::Event>> done_;  // by turn
  // By rows; they hold places in the scratch and the logits.
  struct Captured {
    std::shared_ptr<cuda::Graph> graph;  // null: it ran once, or
    bool refused = false;                // it could not become a graph
  };
  std::map<int64_t, Captured> graphs_;
  int64_t growths_ = -1;
  const std::byte* logits_ = nullptr;
};

}  // namespace quire
