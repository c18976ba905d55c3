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
  // Each thread begins with a stretch of its own, so that neighbouring ranges stay with one core (its caches, its
  // stream from memory), then helps the others with theirs.
  struct alignas(64) Stretch {
    std::atomic<int64_t> next{0};  // range
    int64_t end = 0;
  };
  std::vector<Stretch> stretches;
  // Workers enter a job only while its gate is open; the caller closes it when no range is left and waits for those
  // inside. So a worker that the system has not scheduled yet holds nobody up.
  static constexpr uint32_t kOpen = 1u << 31;
  std::atomic<uint32_t> gate{0};  // kOpen + how many have entered
  std::atomic<uint32_t> finished{0};
  std::atomic<uint32_t> epoch{0};  // raised with every job: what workers wait for
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void divide() {
    const int64_t ranges = (n + grain - 1) / grain, threads = int64_t(stretches.size());
    for (int64_t i = 0; i < threads; ++i) {
      stretches[size_t(i)].next.store(ranges * i / threads, std::memory_order_relaxed);
      stretches[size_t(i)].end = ranges * (i + 1) / threads;
    }
  }

  void work(size_t self) {
    for (size_t i = 0; i < stretches.size(); ++i) {
      Stretch& s = stretches[(self + i) % stretches.size()];
      for (;;) {
        if (s.next.load(std::memory_order_relaxed) >= s.end) break;
        const int64_t range = s.next.fetch_add(1, std::memory_order_relaxed);
        if (range >= s.end) break;
        try {
          call(fn, range * grain, std::min((range + 1) * grain, n));
        } catch (...) {
          std::lock_guard lock(error_mutex);
          if (!error) error = std::current_exception();
          for (Stretch& rest : stretches) rest.next.store(rest.end, std::memory_order_relaxed);
        }
      }
    }
  }

  void join() {
    stop = true;
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    for (std::thread& w : workers) w.join();
  }

  void loop(size_t self) {
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
      work(self);
      finished.fetch_add(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  check(threads >= 1, "thread pool: {} threads asked for; at least 1 is needed", threads);
  state_->stretches = std::vector<State::Stretch>(size_t(threads));
  state_->workers.reserve(size_t(threads) - 1);
  try {
    for (int i = 1; i < threads; ++i) state_->workers.emplace_back([s = state_.get(), i] { s->loop(size_t(i)); });
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
  s.divide();
  s.finished.store(0, std::memory_order_relaxed);
  s.gate.store(State::kOpen, std::memory_order_release);
  s.epoch.fetch_add(1, std::memory_order_release);
  s.epoch.notify_all();
  inside_pool = true;
  s.work(0);
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
