// Where the time of a step goes, op by op, beside what memory could deliver.
#pragma once
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/bench.h"
#include "kernels/profile.h"

namespace quire {

// What the machine could do at most, measured just before.
struct Peaks {
  double bytes_per_second = 0.0;
  int64_t buffer = 0;  // how that was measured: bytes, and threads that read them (0: a GPU)
  int threads = 0;
  double f16 = 0.0, int8 = 0.0, e4m3 = 0.0;  // operations a second of a GPU's tensor cores; 0: not known
  double of(OpUnit unit) const {
    return unit == OpUnit::f16 ? f16 : unit == OpUnit::int8 ? int8 : unit == OpUnit::e4m3 ? e4m3 : 0.0;
  }
};

struct BenchProfile {
  double seconds = 0.0;  // of all steps; on a GPU as they ran when nobody observed
  int64_t steps = 0;
  std::vector<OpTotal> ops;  // of all steps that were observed
  int64_t observed = 0;      // on a GPU one more than `steps` may have been enqueued
  Peaks peaks;
};

// Everything for one step: `ops` in the order they run, then "other" (scheduling, text, gaps: time that no op took),
// whose times add up to `step_ms`. On a GPU ops are timed one by one: "other" is below zero where a step's graph is
// faster than that. `peak_share`: the least time that bytes and operations need, over the time it took.
nlohmann::ordered_json profile_json(const BenchProfile& profile);
std::string profile_md(const BenchProfile& profile, const std::string& title);

}  // namespace quire
