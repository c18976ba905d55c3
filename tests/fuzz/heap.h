// Counts what this program takes from `new`: hostile inputs must not make it allocate without measure.
#pragma once
#include <cstddef>

namespace quire::fuzz {

void start_heap_count();  // from here on
size_t heap_peak();       // most bytes held at once since then, beyond what was held at the start
constexpr size_t kMostAtOnce = size_t{1} << 30;  // a single larger allocation fails (std::bad_alloc)

}  // namespace quire::fuzz
