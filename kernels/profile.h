// Where time goes, op by op: an observer that a context may carry (Context::profile). Without one an op pays a
// comparison.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/cuda/runtime.h"
#include "quant/formats.h"

namespace quire {

// What an op must move and compute, from its shapes: bytes read and written once, multiplications and additions, and
// what does them: a unit whose rate can be measured, or none in particular.
enum class OpUnit : uint8_t { none, f16, int8, e4m3 };
struct OpCost {
  int64_t bytes = 0, operations = 0;
  OpUnit unit = OpUnit::none;
};

struct OpTotal {
  std::string name;
  int64_t calls = 0;
  double seconds = 0.0;  // in the op itself, without the ops it called
  OpCost cost;
};

class Profile {
 public:
  Profile() = default;
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  // Ops are enqueued on this stream of a GPU: they are timed there, between two events each, less what two events with
  // nothing between them measure.
  void observe(cuda::StreamHandle stream);
  // A step of ops begins. On a GPU it is held until the host is probably through with enqueueing, so that no op waits
  // for the host inside its two events.
  void begin_step();
  int64_t steps() const { return steps_; }  // that began so far

  const std::vector<OpTotal>& totals();  // in the order of first calls; waits for what was enqueued
  double seconds() {
    double sum = 0.0;
    for (const OpTotal& t : totals()) sum += t.seconds;
    return sum;
  }

 private:
  friend class ProfileScope;
  struct OnDevice;
  OpTotal& total_of(std::string_view name);
  void add(std::string_view name, double seconds, OpCost cost);
  std::vector<OpTotal> totals_;
  int64_t steps_ = 0;
  double inner_ = 0.0;  // seconds of finished ops inside the one that runs
  std::shared_ptr<OnDevice> device_;
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
    begin();
  }
  ~ProfileScope() {
    if (profile_) finish();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  void begin();
  void finish();
  Profile* profile_;
  std::string_view name_;
  OpCost cost_;
  double outer_ = 0.0;
  Clock::time_point start_;
};

inline int64_t tensor_bytes(const Tensor& t) { return tensor_bytes(format_of(t), t.rows, t.cols); }

}  // namespace quire
