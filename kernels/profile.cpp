#include "kernels/profile.h"

#include <algorithm>

#include "base/cuda/build.h"
#include "kernels/cuda/ceilings.h"

namespace quire {

using Clock = std::chrono::steady_clock;

// Calls on a GPU that were enqueued and not read yet.
struct Profile::OnDevice {
  struct Call {
    size_t total;  // index
    OpCost cost;
    int outer;  // the call it is inside of, or -1
    double inner = 0.0;
  };
  cuda::StreamHandle stream = nullptr;
  std::vector<std::shared_ptr<cuda::Event>> events;  // two a call, used again and again
  std::vector<Call> calls;
  int open = -1;            // the innermost call that has not ended
  double empty = 0.0;       // what two events with nothing between them measure
  double enqueueing = 0.0;  // of the step so far, or of the last one
  Clock::time_point step_began = Clock::now();

  cuda::Event& event(size_t i) {
    if constexpr (kCuda) {
      while (events.size() <= i) events.push_back(std::make_shared<cuda::Event>(true));
    }
    return *events[i];
  }
};

Profile::~Profile() = default;

void Profile::observe(cuda::StreamHandle stream) {
  if constexpr (kCuda) {
    if (!stream) return;
    device_ = std::make_shared<OnDevice>();
    device_->stream = stream;
    constexpr size_t kPairs = 65;
    cuda::hold(1e-3, stream);
    for (size_t i = 0; i < 2 * kPairs; ++i) device_->event(i).record(stream);
    cuda::synchronize(stream);
    std::vector<double> seconds;
    for (size_t i = 0; i < kPairs; ++i)
      seconds.push_back(device_->event(2 * i + 1).seconds_since(device_->event(2 * i)));
    std::nth_element(seconds.begin(), seconds.begin() + kPairs / 2, seconds.end());
    device_->empty = seconds[kPairs / 2];
  }
}

void Profile::begin_step() {
  ++steps_;
  if constexpr (kCuda) {
    if (!device_) return;
    constexpr size_t kMostCalls = 8192;
    if (device_->calls.size() > kMostCalls) totals();
    OnDevice& d = *device_;
    constexpr double kMost = 0.03;
    cuda::hold(d.enqueueing > 0 ? std::min(kMost, 1.2 * d.enqueueing) : kMost, d.stream);
    d.step_began = Clock::now();
  }
}

const std::vector<OpTotal>& Profile::totals() {
  if constexpr (kCuda) {
    if (!device_ || device_->calls.empty()) return totals_;
    OnDevice& d = *device_;
    cuda::synchronize(d.stream);
    for (size_t i = d.calls.size(); i-- > 0;) {  // what is inside of a call comes after it
      OnDevice::Call& call = d.calls[i];
      const double seconds = std::max(0.0, d.event(2 * i + 1).seconds_since(d.event(2 * i)) - d.empty);
      if (call.outer >= 0) d.calls[size_t(call.outer)].inner += seconds;
      OpTotal& total = totals_[call.total];
      ++total.calls;
      total.seconds += std::max(0.0, seconds - call.inner);
      total.cost.bytes += call.cost.bytes;
      total.cost.operations += call.cost.operations;
      total.cost.unit = call.cost.unit;
    }
    d.calls.clear();
  }
  return totals_;
}

OpTotal& Profile::total_of(std::string_view name) {
  for (OpTotal& t : totals_) {
    if (t.name == name) return t;
  }
  totals_.emplace_back();
  totals_.back().name = name;
  return totals_.back();
}

void Profile::add(std::string_view name, double seconds, OpCost cost) {
  OpTotal& total = total_of(name);
  ++total.calls;
  total.seconds += seconds;
  total.cost.bytes += cost.bytes;
  total.cost.operations += cost.operations;
  total.cost.unit = cost.unit;
}

void ProfileScope::begin() {
  if constexpr (kCuda) {
    if (profile_->device_) {
      Profile::OnDevice& d = *profile_->device_;
      const size_t i = d.calls.size();
      d.calls.push_back({size_t(&profile_->total_of(name_) - profile_->totals_.data()), cost_, d.open});
      d.open = int(i);
      d.event(2 * i).record(d.stream);
      return;
    }
  }
  outer_ = profile_->inner_;
  profile_->inner_ = 0.0;
  start_ = Clock::now();
}

void ProfileScope::finish() {
  if constexpr (kCuda) {
    if (profile_->device_) {
      Profile::OnDevice& d = *profile_->device_;
      const size_t i = size_t(d.open);
      d.event(2 * i + 1).record(d.stream);
      d.open = d.calls[i].outer;
      d.enqueueing = std::chrono::duration<double>(Clock::now() - d.step_began).count();
      return;
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  profile_->add(name_, seconds - profile_->inner_, cost_);
  profile_->inner_ = outer_ + seconds;
}

}  // namespace quire
