// How fast this machine reads memory: what a step of generation, which reads every weight once, cannot beat.
#pragma once
#include <cstdint>

#include "base/parallel.h"

namespace quire {

// Bytes a second at which the pool's threads read a buffer of `bytes` from its beginning to its end, each a part of its
// own: the median of `passes`, the better of two prefetch distances. Error if there is no memory for the buffer.
double read_bandwidth(ThreadPool& pool, int64_t bytes, int passes = 7);

// A buffer that the caches cannot hold, where memory allows: twice the largest cache, at least 256 MiB, at most a
// quarter of what is available.
int64_t uncached_bytes();

}  // namespace quire
