#include "base/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace quire {
namespace {

TEST(ThreadPool, EveryIndexIsVisitedOnceInRangesOfTheGrain) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t n : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        std::atomic<int> bad{0};
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          // cut by the grain alone, whatever the threads
          if (begin % grain != 0 || end != std::min(begin + grain, n) || begin >= end) ++bad;
          for (int64_t i = begin; i < end; ++i) ++visits[size_t(i)];
        });
        EXPECT_EQ(bad, 0);
        for (const auto& v : visits) ASSERT_EQ(v, 1) << threads << " threads, n " << n << ", grain " << grain;
      }
    }
  }
}

TEST(ThreadPool, AGrainBelowOneIsOne) {
  ThreadPool pool(2);
  std::atomic<int> calls{0};
  pool.parallel_for(5, 0, [&](int64_t begin, int64_t end) { calls += end - begin == 1; });
  EXPECT_EQ(calls, 5);
  pool.parallel_for(-3, 1, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 5);
}

TEST(ThreadPool, WritesOfAJobAreSeenAfterIt) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    std::vector<int64_t> data(257, 0);                 // plain memory: a race shows under the thread sanitizer
    for (int64_t round = 1; round <= 3000; ++round) {  // many small jobs one after the other
      pool.parallel_for(int64_t(data.size()), 16, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) data[size_t(i)] += i;
      });
      ASSERT_EQ(data[256], 256 * round);
    }
    for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], int64_t(i) * 3000);
  }
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> calls{0};
      try {
        pool.parallel_for(100, 1, [&](int64_t begin, int64_t) {
          ++calls;
          if (begin == round) fail("range " + std::to_string(begin));
        });
        FAIL() << "nothing was thrown";
      } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()), "range " + std::to_string(round));
      }
      EXPECT_LE(calls, 100);
      std::atomic<int64_t> sum{0};
      pool.parallel_for(100, 7, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) sum += i;
      });
      EXPECT_EQ(sum, 4950);
    }
    // all of them throw: one is rethrown, none is lost in a thread
    EXPECT_THROW(pool.parallel_for(64, 1, [](int64_t, int64_t) { throw std::runtime_error("all"); }),
                 std::runtime_error);
  }
}

TEST(ThreadPool, CallsFromInsideRunInline) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  pool.parallel_for(8, 1, [&](int64_t begin, int64_t) {
    pool.parallel_for(10, 3, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) sum += begin * 10 + i;
    });
  });
  EXPECT_EQ(sum, 79 * 80 / 2);
  EXPECT_THROW(pool.parallel_for(
                   8, 1, [&](int64_t, int64_t) { pool.parallel_for(4, 1, [](int64_t, int64_t) { fail("inner"); }); }),
               Error);
  pool.parallel_for(3, 1, [&](int64_t, int64_t) { ++sum; });
  EXPECT_EQ(sum, 79 * 80 / 2 + 3);
}

TEST(ThreadPool, SleepingThreadsWakeUp) {
  ThreadPool pool(4);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // past any spinning
    std::atomic<int> calls{0};
    pool.parallel_for(32, 1, [&](int64_t, int64_t) { ++calls; });
    EXPECT_EQ(calls, 32);
  }
}

TEST(ThreadPool, PoolsComeAndGo) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(1 + i % 4);
  for (int i = 0; i < 20; ++i) {
    ThreadPool pool(4);
    std::atomic<int> calls{0};
    pool.parallel_for(4, 1, [&](int64_t, int64_t) { ++calls; });
    EXPECT_EQ(calls, 4);
  }
  EXPECT_GE(hardware_threads(), 1);
}

TEST(ThreadPool, NoThreadsIsAnError) {
  EXPECT_THROW(ThreadPool(0), Error);
  EXPECT_THROW(ThreadPool(-1), Error);
}

}  // namespace
}  // namespace quire
