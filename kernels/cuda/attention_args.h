// What the tensor-core attention kernels are given: plain data, by value. Lengths, page tables and counts are read on
// the device, so grids do not depend on them and a launch can be part of a graph.
#pragma once
#include "base/cuda/runtime.h"
#include "kernels/kv_view.h"

namespace quire::cuda {

constexpr int kRowTile = 8;       // query heads that share loads: the n side of an mma
constexpr int kMaxMmaGroup = 64;  // query heads of a kv head: the rows of a prefill tile

struct AttentionArgs {
  const float* q = nullptr;  // (T, heads * C), rotated
  int64_t q_stride = 0;      // floats
  float* out = nullptr;      // (T, heads * C)
  int64_t out_stride = 0;
  KvView kv;                                 // every pointer of it on the device
  const BatchSequence* sequences = nullptr;  // on the device
  const int32_t* sequence_count = nullptr;   // on the device
  int32_t heads = 0;
  bool deterministic = false;    // cuts depend on a sequence's own length only
  bool prefill_alone = false;    // the prefill kernel takes sequences of one token, too
  float* partials = nullptr;     // AttentionPlan::partial_floats
  uint32_t* arrivals = nullptr;  // (sequences, head slots), zero; left zero
};

// Query heads of a kv head come in slots of up to kRowTile.
inline int64_t head_slots(int64_t heads, int64_t kv_heads) {
  return kv_heads * ((heads / kv_heads + kRowTile - 1) / kRowTile);
}

// Of the decode kernel.
struct AttentionPlan {
  int ctas = 0;
  int64_t partial_floats = 0;
};
AttentionPlan attention_plan(const AttentionArgs& a, int64_t max_sequences, int multiprocessors);

// The sequences of one token / of several tokens. False if the formats or head dim have no kernel.
bool attention_decode(const AttentionArgs& a, const AttentionPlan& plan, StreamHandle stream);
bool attention_prefill(const AttentionArgs& a, int multiprocessors, StreamHandle stream);

}  // namespace quire::cuda
