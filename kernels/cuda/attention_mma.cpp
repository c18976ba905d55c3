// Attention on tensor cores: which problems it takes, and its two launches.
#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cuda/attention_args.h"
#include "kernels/cuda/kv_fields.h"
#include "kernels/cuda/ops.h"

namespace quire::cuda {

namespace {

template <class... Pairs>
bool named(KvPairList<Pairs...>, const KvLayout& layout) {
  return (Pairs::is(layout) || ...);
}

}  // namespace

bool attention_mma_supports(const KvView& kv, const Batch& batch, const AttentionShape& shape) {
  const int64_t heads = shape.heads;
  // By what the cache can hold, not by what this batch holds: a recorded step runs again on longer sequences.
  const bool sees_all = shape.window == 0 || shape.window >= kv.max_pages * kPageTokens;
  return sees_all && shape.scale == 0 && named(KvPairs{}, kv.layout) &&
         (kv.layout.head_dim == 64 || kv.layout.head_dim == 128) && heads / kv.kv_heads <= kMaxMmaGroup &&
         head_slots(heads, kv.kv_heads) <= kCountersASequence &&
         int64_t(batch.sequences.size()) <= kMaxSequencesOnGpu && device_info(current_device()).major >= 8;
}

void attention_mma(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, int64_t heads,
                   const Tensor& out, AttentionCuts cuts) {
  const int multiprocessors = device_info(current_device()).multiprocessors;
  AttentionArgs a;
  a.q = q.data.row<const float>(0);
  a.q_stride = q.data.pitch / 4;
  a.out = out.data.row<float>(0);
  a.out_stride = out.data.pitch / 4;
  a.kv = kv;
  a.sequences = batch.device.sequences;
  a.sequence_count = batch.device.sequence_count;
  a.heads = int32_t(heads);
  a.deterministic = cuts == AttentionCuts::fixed;
  a.prefill_alone = cuts == AttentionCuts::none;
  a.arrivals = batch.device.counters;
  const auto has = [&](auto&& test) {
    return std::any_of(batch.sequences.begin(), batch.sequences.end(), [&](const auto& s) { return test(s.count); });
  };
  if (a.prefill_alone) return void(attention_prefill(a, multiprocessors, ctx.stream));
  if (has([](int64_t count) { return count == 1; })) {
    const AttentionPlan plan = attention_plan(a, int64_t(batch.sequences.size()), multiprocessors);
    const Scratch::Scope scope(*ctx.scratch);
    a.partials = ctx.scratch->take<float>(plan.partial_floats);
    attention_decode(a, plan, ctx.stream);
  }
  if (has([](int64_t count) { return count > 1; })) attention_prefill(a, multiprocessors, ctx.stream);
}

}  // namespace quire::cuda
