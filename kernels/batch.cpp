#include "kernels/batch.h"

#include "kernels/context.h"

namespace quire {

void upload_batch(const Context& ctx, Batch& batch) {
  batch.device = {};
  if (ctx.device == Device::cpu) return;
  std::vector<int32_t> all = batch.tokens;
  all.insert(all.end(), batch.positions.begin(), batch.positions.end());
  for (const BatchSequence& s : batch.sequences) all.insert(all.end(), size_t(s.count), s.slot);
  all.insert(all.end(), batch.logits_rows.begin(), batch.logits_rows.end());
  const int64_t rows = batch.size();
  check(int64_t(batch.positions.size()) == rows && int64_t(all.size() - batch.logits_rows.size()) == 3 * rows,
        "batch: {} tokens, {} positions and the sequences' counts differ", rows, batch.positions.size());
  int32_t* there = ctx.scratch->take<int32_t>(int64_t(all.size()));
  if constexpr (kCuda) cuda::copy_async(there, all.data(), all.size() * sizeof(int32_t), ctx.stream);
  batch.device = {there, there + rows, there + 2 * rows, there + 3 * rows};
}

}  // namespace quire
