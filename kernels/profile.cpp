#include "kernels/profile.h"

#include "base/cuda/build.h"

namespace quire {

void Profile::add(std::string_view name, double seconds, OpCost cost) {
  OpTotal* total = nullptr;
  for (OpTotal& t : totals_) {
    if (t.name == name) total = &t;
  }
  if (!total) {
    totals_.emplace_back();
    total = &totals_.back();
    total->name = name;
  }
  ++total->calls;
  total->seconds += seconds;
  total->cost.bytes += cost.bytes;
  total->cost.operations += cost.operations;
}

void ProfileScope::finish() {
  if constexpr (kCuda) {
    if (profile_->stream_) cuda::synchronize(profile_->stream_);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  profile_->add(name_, seconds - profile_->inner_, cost_);
  profile_->inner_ = outer_ + seconds;
}

}  // namespace quire
