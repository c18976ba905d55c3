#include "kernels/step_state.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/carver.h"
#include "kernels/cuda/ops.h"

namespace quire {

namespace {

using Arrays = Carver<256>;

StepState carve(Arrays& carver, int64_t slots) {
  StepState s;
  s.slots = slots;
  s.states = carver.take<SlotState>(slots);
  s.changes = carver.take<TokenChange>(slots * kMaxTokenChanges);
  s.history = carver.take<int32_t>(slots * kMaxPenaltyWindow);
  s.row_slots = carver.take<int32_t>(slots);
  s.turn = carver.take<uint32_t>(1);
  s.batch.tokens = carver.take<int32_t>(slots);
  s.batch.positions = carver.take<int32_t>(slots);
  s.batch.slots = s.row_slots;
  s.batch.sequences = carver.take<BatchSequence>(slots);
  s.batch.sequence_count = carver.take<int32_t>(1);
  s.batch.counters = carver.take<uint32_t>(slots * kCountersASequence);
  return s;
}

int64_t ids_bytes(int64_t slots) { return kStepTurns * slots * int64_t(sizeof(int32_t)); }

void join_here(const StepState& s, const StepJoins& joins) {
  std::copy(joins.rows.begin(), joins.rows.end(), s.row_slots);
  for (const SlotJoin& j : joins.slots) {
    s.states[j.slot] = j.state;
    std::copy_n(joins.changes.begin() + j.first_change, j.state.changes, s.changes + j.slot * kMaxTokenChanges);
    std::copy_n(joins.history.begin() + j.first_history, j.state.window, s.history + j.slot * kMaxPenaltyWindow);
  }
}

int32_t sample_here(const StepState& state, int32_t slot, std::span<float> logits) {
  SlotState& s = state.states[slot];
  TokenChange* changes = state.changes + slot * kMaxTokenChanges;
  int32_t* history = state.history + slot * kMaxPenaltyWindow;
  for (int32_t i = 0; i < s.changes; ++i) {
    if (!changes[i].used()) continue;
    const LogitChange c = logit_change(s, changes[i]);
    logits[size_t(c.token)] = changed(logits[size_t(c.token)], c, s.repetition);
  }
  const bool finite = std::isfinite(*std::max_element(logits.begin(), logits.end()));
  const int32_t id = finite ? sample(logits, s.params, uniform_at(s.seed, s.drawn)) : -1;
  const int32_t next = std::max(id, 0), leaves = leaving(s, history);
  ChangePlaces at;
  for (int32_t i = 0; i < s.changes; ++i) at.see(changes[i], i, next, leaves);
  advance(s, changes, history, next, at);
  return id;
}

}  // namespace

int64_t step_state_bytes(int64_t slots) {
  Arrays count;
  carve(count, slots);
  return count.used;
}

OwnedStepState make_step_state(Device device, int64_t slots) {
  OwnedStepState out;
  const int64_t bytes = step_state_bytes(slots);
  const bool gpu = device == Device::cuda;
  out.memory = Buffer(size_t(bytes + (gpu ? 0 : ids_bytes(slots))), device);
  Arrays carver{out.memory.data()};
  out.state = carve(carver, slots);
  std::byte* ids = out.memory.data() + bytes;
  if constexpr (kCuda) {
    if (gpu) {
      out.host = std::make_shared<cuda::PinnedBuffer>(size_t(ids_bytes(slots)));
      ids = out.host->data();
    }
  }
  out.state.ids = reinterpret_cast<int32_t*>(ids);
  return out;
}

void step_join(const Context& ctx, const StepState& s, const StepJoins& joins) {
  check(int64_t(joins.rows.size()) <= s.slots, "step state: {} rows for {} slots", joins.rows.size(), s.slots);
  for (const SlotJoin& j : joins.slots) {
    check(j.slot >= 0 && j.slot < s.slots && j.state.changes <= kMaxTokenChanges && j.state.window <= kMaxPenaltyWindow,
          "step state: slot {} of {} with {} changes and a window of {}; at most {} and {} fit", j.slot, s.slots,
          j.state.changes, j.state.window, kMaxTokenChanges, kMaxPenaltyWindow);
  }
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      check(ctx.uploads, "step state: the context has no pinned memory");
      // One block of pinned memory, which the kernel reads: what joins is little.
      Arrays carver;
      const auto lay = [&] {
        cuda::StepJoin j;
        j.joins = carver.take<SlotJoin>(int64_t(joins.slots.size()));
        j.changes = carver.take<TokenChange>(int64_t(joins.changes.size()));
        j.history = carver.take<int32_t>(int64_t(joins.history.size()));
        j.rows = carver.take<int32_t>(int64_t(joins.rows.size()));
        return j;
      };
      lay();
      carver = {ctx.uploads->take(size_t(carver.used))};
      const cuda::StepJoin there = lay();
      std::copy(joins.slots.begin(), joins.slots.end(), there.joins);
      std::copy(joins.changes.begin(), joins.changes.end(), there.changes);
      std::copy(joins.history.begin(), joins.history.end(), there.history);
      std::copy(joins.rows.begin(), joins.rows.end(), there.rows);
      return cuda::step_join(ctx, s, there, int64_t(joins.slots.size()), int64_t(joins.rows.size()));
    }
  }
  join_here(s, joins);
}

void step_begin(const Context& ctx, const StepState& s, int64_t rows) {
  check(rows <= s.slots, "step state: {} rows for {} slots", rows, s.slots);
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::step_begin(ctx, s, rows);
  }
  ++*s.turn;
  for (int64_t r = 0; r < rows; ++r) begin_row(s, r);
}

void step_sample(const Context& ctx, const StepState& s, const Tensor& logits) {
  check(logits.codec == id<F32> && logits.rows <= s.slots && logits.cols > 0 && logits.device == ctx.device,
        "step state: logits {} for {} slots", describe(logits), s.slots);
  const ProfileScope scope(ctx.profile, "sample", [&] {
    return OpCost{tensor_bytes(logits), logits.rows * logits.cols};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::step_sample(ctx, s, logits);
  }
  for (int64_t r = 0; r < logits.rows; ++r) {
    const int32_t slot = s.row_slots[r];
    if (slot < 0) continue;
    s.ids[*s.turn % kStepTurns * s.slots + r] = sample_here(s, slot, {logits.data.row<float>(r), size_t(logits.cols)});
  }
}

}  // namespace quire
