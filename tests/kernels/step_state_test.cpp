// Sequences that are sampled where their state lies, step after step, against the host's sampler.
#include "kernels/step_state.h"

#include <gtest/gtest.h>

#include <set>

#include "engine/decode_steps.h"
#include "engine/sequence.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

constexpr int64_t kVocab = 61;  // so few that tokens come again and leave the window again

Sequence sequence(int64_t id, Rng& rng) {
  Sequence s;
  s.id = id;
  for (int64_t i = between(rng, 1, 30); i > 0; --i) s.request.prompt.push_back(int32_t(rng() % kVocab));
  s.tokens = s.request.prompt;
  SamplerOptions& o = s.request.sampler;
  o.seed = rng();
  o.temperature = id % 3 == 0 ? 0.0f : 0.9f;
  if (id % 2 == 1) o.top_k = 20;
  if (id % 4 >= 2) o.repetition_penalty = 1.3f;
  o.penalty_window = id % 8 == 2 ? 5 : id % 8 == 3 ? 0 : 64;
  if (id % 5 == 1) o.presence_penalty = 0.25f;
  if (id % 5 == 2) o.frequency_penalty = 0.125f;
  if (id % 3 == 1) o.logit_bias = {{3, 1.5f}, {8, -INFINITY}};
  return s;
}

class StepStates : public testing::Test {
 protected:
  // Steps of sequences that come, go, change rows, and sometimes take a token of the host's instead.
  void run(const Context& ctx) {
    const bool gpu = ctx.device == Device::cuda;
    const OwnedStepState owned = make_step_state(ctx.device, kSlots);
    const StepState& state = owned.state;
    std::vector<Sequence> running;  // sequence i in slot (3 i) % kSlots
    std::vector<bool> known;
    int64_t id = 0;
    for (int step = 0; step < 120; ++step) {
      if (step % 7 == 0 && running.size() < size_t(kSlots)) {
        running.push_back(sequence(id++, rng_));
        known.push_back(false);
      }
      if (step % 31 == 30) {  // another sequence in the first one's slot
        running[0] = sequence(id++, rng_);
        known[0] = false;
      }
      StepJoins joins;
      const size_t first = rng_() % running.size();
      for (size_t i = 0; i < running.size(); ++i) {
        const size_t r = (first + i) % running.size();
        joins.rows.push_back(slot(r));
        if (!known[r]) add_join(running[r], slot(r), joins);
        known[r] = true;
      }
      const int64_t rows = DecodeSteps::bucket(int64_t(running.size()), kSlots);
      joins.rows.resize(size_t(rows), -1);
      step_join(ctx, state, joins);
      step_begin(ctx, state, rows);
      std::vector<float> values = normal(rng_, rows * kVocab, 2.0f);
      if (step == 50) std::fill_n(values.begin(), kVocab, NAN);
      OnGpu there(ctx);
      const Tensor host = f32_view(values, rows, kVocab), logits = gpu ? there.in(host) : host;
      const std::vector<float> raw = values;  // they are changed in place
      step_sample(ctx, state, logits);
      if constexpr (kCuda) {
        if (gpu) cuda::synchronize(ctx.stream);
      }
      if (!gpu) {
        for (size_t r = 0; r < running.size(); ++r) expect_distinct(state, slot(r));
      }
      const int32_t* ids = state.ids + (step + 1) % kStepTurns * kSlots;
      for (size_t i = 0; i < running.size(); ++i) {
        const size_t r = (first + i) % running.size();
        Sequence& s = running[r];
        const std::span<const float> row(raw.data() + i * size_t(kVocab), size_t(kVocab));
        if (step == 50 && i == 0) {
          ASSERT_EQ(ids[i], -1);
          s = sequence(id++, rng_);
          known[r] = false;
          continue;
        }
        GeneratedToken token;
        choose_token(s, row, token);
        ASSERT_EQ(ids[i], token.token) << "step " << step << ", sequence " << s.id;
        known[r] = step % 13 != 12;
        s.tokens.push_back(known[r] ? token.token : int32_t(rng_() % kVocab));
        ++s.counts[s.tokens.back()];
      }
    }
  }
  static void expect_distinct(const StepState& state, int32_t slot) {
    std::set<int32_t> tokens;
    for (int32_t i = 0; i < state.states[slot].changes; ++i) {
      const TokenChange& c = state.changes[slot * kMaxTokenChanges + i];
      if (!c.used()) continue;
      EXPECT_TRUE(tokens.insert(c.token).second) << "token " << c.token << " has two places";
    }
  }
  // A token has left the window, and come back in another place than the one that still names it.
  void expect_free_places_to_change_nothing(const Context& ctx) {
    const OwnedStepState owned = make_step_state(ctx.device, 1);
    StepJoins joins;
    joins.rows = {0};
    joins.slots.resize(1);
    joins.slots[0].state.repetition = 4.0f;
    joins.slots[0].state.window = 5;
    joins.changes.assign(300, TokenChange{3, 0.0f, 0, 0});
    joins.changes[7].recent = 1;
    joins.slots[0].state.changes = int32_t(joins.changes.size());
    joins.history.assign(5, 3);
    step_join(ctx, owned.state, joins);
    step_begin(ctx, owned.state, 1);
    std::vector<float> values(size_t(kVocab), 0.0f);
    values[3] = 2.0f;  // the largest, but for the penalty
    values[9] = 1.0f;
    OnGpu there(ctx);
    const Tensor host = f32_view(values, 1, kVocab);
    step_sample(ctx, owned.state, ctx.device == Device::cuda ? there.in(host) : host);
    if constexpr (kCuda) {
      if (ctx.device == Device::cuda) cuda::synchronize(ctx.stream);
    }
    EXPECT_EQ(owned.state.ids[1 % kStepTurns], 9);
  }
  static int32_t slot(size_t sequence) { return int32_t(3 * sequence % kSlots); }

  static constexpr int64_t kSlots = 11;
  Machines machines_;
  Rng rng_{17};
};

TEST_F(StepStates, SampleAsTheHost) { run(machines_.context()); }
TEST_F(StepStates, FreePlacesChangeNothing) { expect_free_places_to_change_nothing(machines_.context()); }

TEST_F(StepStates, SampleAsTheHostOnAGpu) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  if constexpr (kCuda) {
    Context ctx = machines_.gpu();
    cuda::Uploads uploads(ctx.stream);
    ctx.uploads = &uploads;
    run(ctx);
    expect_free_places_to_change_nothing(ctx);
  }
}

TEST_F(StepStates, RowsAndPositionsAreMade) {
  const Context ctx = machines_.context();
  const OwnedStepState owned = make_step_state(Device::cpu, 4);
  const StepState& s = owned.state;
  StepJoins joins;
  joins.slots.resize(2);
  joins.slots[0].slot = 2;
  joins.slots[0].state.token = 7;
  joins.slots[0].state.position = 130;
  joins.rows = {2, 0, -1};
  step_join(ctx, s, joins);
  for (int32_t n = 0; n < 2; ++n) {
    step_begin(ctx, s, 3);
    EXPECT_EQ(int64_t(*s.turn), int64_t(n) + 1);
    EXPECT_EQ(s.batch.positions[0], 130 + n);
    EXPECT_EQ(s.batch.positions[1], n);
    EXPECT_EQ(s.batch.tokens[0], n == 0 ? 7 : 1);
    EXPECT_EQ(s.batch.slots[2], -1);
    EXPECT_EQ(s.batch.sequences[0].slot, 2);
    EXPECT_EQ(s.batch.sequences[0].position, 130 + n);
    EXPECT_EQ(s.batch.sequences[1].first, 1);
    EXPECT_EQ(s.batch.sequences[2].slot, -1);
    std::vector<float> logits = {0, 1, 0, 5, 0, 0, 0, 0, 0};
    step_sample(ctx, s, f32_view(logits, 3, 3));
    EXPECT_EQ(s.ids[(n + 1) * 4 + 0], 1);
    EXPECT_EQ(s.ids[(n + 1) * 4 + 1], 0);
  }
  joins.slots[0].state.window = kMaxPenaltyWindow + 1;
  expect_error([&] { step_join(ctx, s, joins); }, {"step state", "slot 2 of 4", "257"});
}

}  // namespace
}  // namespace quire
