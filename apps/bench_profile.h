// Where the time of a step goes, op by op, beside what memory could deliver.
#pragma once
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/bench.h"
#include "kernels/profile.h"

namespace quire {

struct Bandwidth {
  double bytes_per_second = 0.0;
  int64_t buffer = 0;  // how it was measured: bytes, and threads that read them
  int threads = 0;
};

struct BenchProfile {
  double seconds = 0.0;  // of all steps
  int64_t steps = 0;
  std::vector<OpTotal> ops;  // of all steps
  Bandwidth bandwidth;
};

// Everything for one step: `ops` in the order they run, then "other" (scheduling, text: time that no op took), whose
// times add up to `step_ms`.
nlohmann::ordered_json profile_json(const BenchProfile& profile);
std::string profile_md(const BenchProfile& profile, const std::string& title);

}  // namespace quire
