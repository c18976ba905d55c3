// What one step computes: plain data, planned by the scheduler. Sequences that decode come first, then prompt chunks;
// ragged, never padded.
#pragma once
#include <cstdint>
#include <vector>

namespace quire {

struct BatchSequence {
  int32_t slot;   // its place in the cache
  int64_t first;  // its tokens are rows [first, first + count) of the batch
  int64_t count;
  int64_t position;  // of its first token here
};

// The same on the GPU, made by upload_batch: what kernels read.
struct BatchOnDevice {
  const int32_t *tokens = nullptr, *positions = nullptr, *slots = nullptr;  // (T) each
  const int32_t* logits_rows = nullptr;
  const BatchSequence* sequences = nullptr;  // (sequence_count)
  const int32_t* sequence_count = nullptr;   // one number
  uint32_t* counters = nullptr;              // (sequences, kCountersASequence) zeros; a kernel leaves them zero
};
constexpr int64_t kCountersASequence = 128;
constexpr int kMaxSequencesOnGpu = 1024;  // of a batch there

struct Batch {
  std::vector<int32_t> tokens;     // (T)
  std::vector<int32_t> positions;  // (T)
  std::vector<BatchSequence> sequences;
  std::vector<int32_t> logits_rows;  // rows whose logits are wanted, ascending
  BatchOnDevice device;              // null pointers on the CPU
  int64_t size() const { return int64_t(tokens.size()); }
};

struct Context;
// With a GPU's context: batch.device is made, in the context's scratch.
void upload_batch(const Context& ctx, Batch& batch);

}  // namespace quire
