// Threads. One pool, owned by the caller (the engine, a test) and borrowed by everything below it.
// Work is cut into ranges by the caller's grain only, never by the number of threads, so results do not depend on it.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace quire {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // >= 1; the calling thread is one of them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int threads() const;

  // Calls fn(begin, end) for consecutive ranges of at most `grain` that cover [0, n); returns when all are done.
  // The first exception is rethrown here. Calls from inside fn run inline.
  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, Fn&& fn) {
    using F = std::remove_reference_t<Fn>;
    run(
        n, grain, [](void* f, int64_t begin, int64_t end) { (*static_cast<F*>(f))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Call = void (*)(void* fn, int64_t begin, int64_t end);
  void run(int64_t n, int64_t grain, Call call, void* fn);
  struct State;
  std::unique_ptr<State> state_;
};

int hardware_threads();  // cores this process may use

}  // namespace quire
