#include "kernels/batch.h"

#include <cstring>

#include "kernels/context.h"

namespace quire {

void upload_batch(const Context& ctx, Batch& batch) {
  batch.device = {};
  if (ctx.device == Device::cpu) return;
  const int64_t sequences = int64_t(batch.sequences.size()), words = sequences * int64_t(sizeof(BatchSequence) / 4);
  std::vector<int32_t> all = batch.tokens;
  all.insert(all.end(), batch.positions.begin(), batch.positions.end());
  for (const BatchSequence& s : batch.sequences) all.insert(all.end(), size_t(s.count), s.slot);
  all.insert(all.end(), batch.logits_rows.begin(), batch.logits_rows.end());
  const int64_t rows = batch.size();
  check(int64_t(batch.positions.size()) == rows && int64_t(all.size() - batch.logits_rows.size()) == 3 * rows,
        "batch: {} tokens, {} positions and the sequences' counts differ", rows, batch.positions.size());
  // The sequences first: they need the alignment.
  all.insert(all.begin(), size_t(words), 0);
  if (words > 0) std::memcpy(all.data(), batch.sequences.data(), size_t(words) * 4);
  all.push_back(int32_t(sequences));
  int32_t* start = ctx.scratch->take<int32_t>(int64_t(all.size()));
  uint32_t* counters = ctx.scratch->take<uint32_t>(sequences * kCountersASequence);
  if constexpr (kCuda) {
    ctx.upload(start, all.data(), all.size() * sizeof(int32_t));
    cuda::clear_async(counters, 0, size_t(sequences * kCountersASequence) * sizeof(uint32_t), ctx.stream);
  }
  const int32_t* there = start + words;
  batch.device = {there, there + rows, there + 2 * rows, there + 3 * rows};
  batch.device.sequences = reinterpret_cast<const BatchSequence*>(start);
  batch.device.sequence_count = start + int64_t(all.size()) - 1;
  batch.device.counters = counters;
}

}  // namespace quire
