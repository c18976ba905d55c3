#include "kernels/step_state.h"

#include "kernels/cuda/ops.h"
#include "kernels/cuda/sample_block.cuh"

namespace quire::cuda {

namespace {

__global__ void step_join_kernel(StepState s, StepJoin j, int64_t rows) {
  if (blockIdx.x == 0) {
    for (int64_t r = threadIdx.x; r < rows; r += blockDim.x) s.row_slots[r] = j.rows[r];
    return;
  }
  const SlotJoin& join = j.joins[blockIdx.x - 1];
  const int64_t slot = join.slot;
  if (threadIdx.x == 0) s.states[slot] = join.state;
  for (int i = threadIdx.x; i < join.state.changes; i += blockDim.x) {
    s.changes[slot * kMaxTokenChanges + i] = j.changes[join.first_change + i];
  }
  for (int i = threadIdx.x; i < join.state.window; i += blockDim.x) {
    s.history[slot * kMaxPenaltyWindow + i] = j.history[join.first_history + i];
  }
}

__global__ void step_begin_kernel(StepState s, int64_t rows) {
  if (threadIdx.x == 0) {
    ++*s.turn;
    *const_cast<int32_t*>(s.batch.sequence_count) = int32_t(rows);
  }
  for (int64_t r = threadIdx.x; r < rows; r += blockDim.x) begin_row(s, r);
}

struct Shared {
  SampleShared sample;
  int32_t at[3];
};

__global__ void __launch_bounds__(kSampleThreads) step_sample_kernel(StepState s, float* all, int64_t ld, int64_t n) {
  __shared__ Shared shared;
  const int32_t slot = s.row_slots[blockIdx.x];
  if (slot < 0) return;
  const SlotState state = s.states[slot];
  TokenChange* changes = s.changes + int64_t(slot) * kMaxTokenChanges;
  int32_t* history = s.history + int64_t(slot) * kMaxPenaltyWindow;
  float* logits = all + blockIdx.x * ld;
  for (int32_t i = threadIdx.x; i < state.changes; i += kSampleThreads) {
    if (!changes[i].used()) continue;  // another thread may have the same token
    const LogitChange c = logit_change(state, changes[i]);
    logits[c.token] = changed(logits[c.token], c, state.repetition);
  }
  if (threadIdx.x < 3) shared.at[threadIdx.x] = kMaxTokenChanges;
  __syncthreads();
  const int32_t id = sample_block(logits, n, state.params, uniform_at(state.seed, state.drawn), shared.sample);
  const int32_t next = id < 0 ? 0 : id, leaves = leaving(state, history);
  for (int32_t i = threadIdx.x; i < state.changes; i += kSampleThreads) {
    ChangePlaces at;
    at.see(changes[i], i, next, leaves);
    atomicMin(&shared.at[0], at.id);
    atomicMin(&shared.at[1], at.left);
    atomicMin(&shared.at[2], at.free);
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  s.ids[*s.turn % kStepTurns * s.slots + blockIdx.x] = id;
  ChangePlaces at;
  at.id = shared.at[0];
  at.left = shared.at[1];
  at.free = shared.at[2];
  SlotState after = state;
  advance(after, changes, history, next, at);
  s.states[slot] = after;
}

}  // namespace

void step_join(const Context& ctx, const StepState& s, const StepJoin& joins, int64_t count, int64_t rows) {
  step_join_kernel<<<unsigned(count + 1), 128, 0, ctx.stream>>>(s, joins, rows);
  check_launch("step_join_kernel");
}

void step_begin(const Context& ctx, const StepState& s, int64_t rows) {
  step_begin_kernel<<<1, 256, 0, ctx.stream>>>(s, rows);
  check_launch("step_begin_kernel");
}

void step_sample(const Context& ctx, const StepState& s, const Tensor& logits) {
  if (logits.rows == 0) return;
  step_sample_kernel<<<unsigned(logits.rows), kSampleThreads, 0, ctx.stream>>>(s, logits.data.row<float>(0),
                                                                               logits.data.pitch / 4, logits.cols);
  check_launch("step_sample_kernel");
}

}  // namespace quire::cuda
