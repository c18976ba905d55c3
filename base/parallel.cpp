#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <initializer_list>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"

namespace quire {

namespace {
thread_local bool inside_pool = false;

inline void pause_cpu() { __builtin_ia32_pause(); }
}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> workers;
  // The job; written while the gate is closed and nobody is inside.
  Call call = nullptr;
  void* fn = nullptr;
  int64_t n = 0, grain = 1;
  std::atomic<int64_t> next{0};
  // Workers enter a job only while its gate is open; the caller closes it when no range is left and waits for those
  // inside. So a worker that the system has not scheduled yet holds nobody up.
  static constexpr uint32_t kOpen = 1u << 31;
  std::atomic<uint32_t> gate{0};  // kOpen + how many have entered
  std::atomic<uint32_t> finished{0};
  std::atomic<uint32_t> epoch{0};  // raised with every job: what workers wait for
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void work() {
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      try {
        call(fn, begin, std::min(begin + grain, n));
      } catch (...) {
        std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next.store(n, std::memory_order_relaxed);
      }
    }
  }

  void join() {
    stop = true;
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    for (std::thread& w : workers) w.join();
  }

  void loop() {
    inside_pool = true;
    // Signals are for the program's own threads, which may wait for them; faults still come to whoever makes them.
    sigset_t signals;
    sigfillset(&signals);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&signals, fault);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    uint32_t seen = 0;
    for (;;) {
      // A decode step is hundreds of jobs of tens of microseconds: spin a little before sleeping.
      for (int spin = 0; epoch.load(std::memory_order_acquire) == seen && spin < 4000; ++spin) pause_cpu();
      epoch.wait(seen, std::memory_order_acquire);
      seen = epoch.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      uint32_t g = gate.load(std::memory_order_relaxed);
      while ((g & kOpen) != 0 && !gate.compare_exchange_weak(g, g + 1, std::memory_order_acquire)) {
      }
      if ((g & kOpen) == 0) continue;  // too late
      work();
      finished.fetch_add(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  check(threads >= 1, "thread pool: {} threads asked for; at least 1 is needed", threads);
  state_->workers.reserve(size_t(threads) - 1);
  try {
    for (int i = 1; i < threads; ++i) state_->workers.emplace_back([s = state_.get()] { s->loop(); });
  } catch (const std::system_error& e) {
    const size_t started = state_->workers.size();
    state_->join();
    fail(fmt::format("thread pool: {} threads asked for, only {} could be started ({}); ask for fewer", threads,
                     started + 1, e.what()));
  }
}

ThreadPool::~ThreadPool() { state_->join(); }

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t n, int64_t grain, Call call, void* fn) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  State& s = *state_;
  if (inside_pool || s.workers.empty() || n <= grain) {
    for (int64_t begin = 0; begin < n; begin += grain) call(fn, begin, std::min(begin + grain, n));
    return;
  }
  s.call = call;
  s.fn = fn;
  s.n = n;
  s.grain = grain;
  s.error = nullptr;
  s.next.store(0, std::memory_order_relaxed);
  s.finished.store(0, std::memory_order_relaxed);
  s.gate.store(State::kOpen, std::memory_order_release);
  s.epoch.fetch_add(1, std::memory_order_release);
  s.epoch.notify_all();
  inside_pool = true;
  s.work();
  inside_pool = false;
  const uint32_t entered = s.gate.exchange(0, std::memory_order_relaxed) & ~State::kOpen;
  for (int spin = 0; s.finished.load(std::memory_order_acquire) != entered; ++spin) {
    if (spin < 20000) {
      pause_cpu();
    } else {
      std::this_thread::yield();
    }
  }
  if (s.error) std::rethrow_exception(s.error);
}

int hardware_threads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace quire
