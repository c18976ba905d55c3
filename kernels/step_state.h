// What sequences that decode carry from step to step where they are computed, so that a step needs nothing of the host:
// the next token, its position, the sampler and what its penalties look back at. Fixed capacity; a slot is the cache's.
//
// A step over `rows` rows is: step_begin, the network, step_sample. Rows beyond the sequences are padding (slot -1):
// they are computed and nothing of them is kept. Ops run on the device of the context, where all of it lies.
#pragma once
#include "kernels/batch.h"
#include "kernels/sample.h"

namespace quire {

constexpr int32_t kMaxTokenChanges = 1024;  // of a slot: biased, recent and generated tokens
constexpr int32_t kMaxPenaltyWindow = 256;  // tokens that the repetition penalty looks back at
constexpr int32_t kStepTurns = 4;           // steps whose ids are kept

struct SlotState {
  int32_t token = 0, position = 0;  // the next to be computed
  uint64_t seed = 0, drawn = 0;     // what is sampled next takes number `drawn` of the seed
  SampleParams params;
  float repetition = 1.0f, presence = 0.0f, frequency = 0.0f;
  int32_t window = 0;   // tokens that repetition looks back at; 0: none
  int32_t seen = 0;     // tokens of the sequence so far
  int32_t changes = 0;  // places used
};

// A token whose logit is changed before sampling. One that changes nothing is a free place, whatever token it names: a
// token may come back in another place, so only used ones are distinct.
struct TokenChange {
  int32_t token = 0;
  float bias = 0.0f;
  int32_t recent = 0, generated = 0;  // times in the window; times generated, where that is penalised
  QUIRE_HD bool used() const { return bias != 0.0f || recent > 0 || generated > 0; }
};

struct StepState {
  int64_t slots = 0;
  SlotState* states = nullptr;     // (slots)
  TokenChange* changes = nullptr;  // (slots, kMaxTokenChanges)
  int32_t* history = nullptr;      // (slots, kMaxPenaltyWindow): token i of a sequence at i % window
  int32_t* row_slots = nullptr;    // (slots): of a step's rows, in order
  uint32_t* turn = nullptr;        // steps begun, modulo 2^32
  int32_t* ids = nullptr;          // (kStepTurns, slots): what step n sampled for its rows, at n % kStepTurns; readable
                                   // by the host. -1: the largest logit is not finite
  BatchOnDevice batch;             // what step_begin makes for the rows
};

struct OwnedStepState {
  StepState state;
  Buffer memory;                             // of the device
  std::shared_ptr<cuda::PinnedBuffer> host;  // ids, with a GPU
};
OwnedStepState make_step_state(Device device, int64_t slots);
int64_t step_state_bytes(int64_t slots);

// Slots that begin, or go on differently than the device knows, and the slots of rows from the next step on.
struct SlotJoin {
  SlotState state;
  int32_t slot = 0, first_change = 0, first_history = 0;  // its changes; its `window` tokens
};
struct StepJoins {
  std::vector<SlotJoin> slots;
  std::vector<TokenChange> changes;
  std::vector<int32_t> history;
  std::vector<int32_t> rows;  // -1: padding
};
void step_join(const Context& ctx, const StepState& state, const StepJoins& joins);

// Tokens, positions and sequences of the rows.
void step_begin(const Context& ctx, const StepState& state, int64_t rows);
// logits (rows, V) f32, changed in place: biased and penalised as sample.h says, one token a row, which becomes the
// slot's next.
void step_sample(const Context& ctx, const StepState& state, const Tensor& logits);

// The parts of them, on either device.
QUIRE_HD inline void begin_row(const StepState& s, int64_t row) {
  const int32_t slot = s.row_slots[row];
  const SlotState next = slot < 0 ? SlotState{} : s.states[slot];
  const_cast<int32_t*>(s.batch.tokens)[row] = next.token;
  const_cast<int32_t*>(s.batch.positions)[row] = next.position;
  const_cast<BatchSequence*>(s.batch.sequences)[row] = {slot, row, 1, next.position};
}
QUIRE_HD inline bool penalises(const SlotState& s) { return s.presence != 0.0f || s.frequency != 0.0f; }
QUIRE_HD inline LogitChange logit_change(const SlotState& s, const TokenChange& c) {
  return {c.token, c.bias, c.recent > 0, c.generated > 0 ? s.presence + s.frequency * float(c.generated) : 0.0f};
}
// The token that leaves the window when one more comes; -1: none.
QUIRE_HD inline int32_t leaving(const SlotState& s, const int32_t* history) {
  return s.window > 0 && s.seen >= s.window ? history[s.seen % s.window] : -1;
}
// Places of a slot's changes; kMaxTokenChanges: none.
struct ChangePlaces {
  int32_t id = kMaxTokenChanges, left = kMaxTokenChanges, free = kMaxTokenChanges;
  QUIRE_HD void see(const TokenChange& c, int32_t place, int32_t token, int32_t leaves) {
    if (c.used() && c.token == token) id = place;
    if (c.used() && c.token == leaves) left = place;
    if (!c.used() && place < free) free = place;
  }
};
QUIRE_HD inline void advance(SlotState& s, TokenChange* changes, int32_t* history, int32_t token,
                             const ChangePlaces& at) {
  if (at.left < kMaxTokenChanges) --changes[at.left].recent;
  if (s.window > 0 || penalises(s)) {
    int32_t place = at.id < kMaxTokenChanges ? at.id : at.free;
    if (place == kMaxTokenChanges && s.changes < kMaxTokenChanges) place = s.changes++;
    if (place < kMaxTokenChanges) {
      if (place != at.id) changes[place] = {token, 0.0f, 0, 0};
      changes[place].recent += s.window > 0;
      changes[place].generated += penalises(s);
    }
  }
  if (s.window > 0) history[s.seen % s.window] = token;
  s.token = token;
  ++s.position;
  ++s.drawn;
  ++s.seen;
}

}  // namespace quire
