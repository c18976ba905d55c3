// Where time goes, op by op: an observer that a context may carry (Context::profile). Without one an op pays a
// comparison.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/cuda/runtime.h"
#include "quant/formats.h"

namespace quire {

// What an op must move and compute, from its shapes: bytes read and written once, multiplications and additions.
struct OpCost {
  int64_t bytes = 0, operations = 0;
};

struct OpTotal {
  std::string name;
  int64_t calls = 0;
  double seconds = 0.0;  // in the op itself, without the ops it called
  OpCost cost;
};

class Profile {
 public:
  const std::vector<OpTotal>& totals() const { return totals_; }  // in the order of first calls
  double seconds() const {
    double sum = 0.0;
    for (const OpTotal& t : totals_) sum += t.seconds;
    return sum;
  }
  void wait_for(cuda::StreamHandle stream) { stream_ = stream; }  // every op is timed until it has run there

 private:
  friend class ProfileScope;
  void add(std::string_view name, double seconds, OpCost cost);
  std::vector<OpTotal> totals_;
  cuda::StreamHandle stream_ = nullptr;  // that ops enqueue on, with a GPU
  double inner_ = 0.0;                   // seconds of finished ops inside the one that runs
};

// One call of an op, from here to the end of the scope. `cost` gives an OpCost and is asked only if somebody observes;
// `name` must live as long as the scope.
class ProfileScope {
 public:
  template <class Cost>
  ProfileScope(Profile* profile, std::string_view name, Cost&& cost) : profile_(profile) {
    if (!profile) return;
    name_ = name;
    cost_ = cost();
    outer_ = profile->inner_;
    profile->inner_ = 0.0;
    start_ = Clock::now();
  }
  ~ProfileScope() {
    if (profile_) finish();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  void finish();
  Profile* profile_;
  std::string_view name_;
  OpCost cost_;
  double outer_ = 0.0;
  Clock::time_point start_;
};

inline int64_t tensor_bytes(const Tensor& t) { return tensor_bytes(format_of(t), t.rows, t.cols); }

}  // namespace quire
