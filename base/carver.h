// Pieces of one block of memory, each for an array; without a block it only counts how large it must be.
#pragma once
#include <cstddef>
#include <cstdint>

namespace quire {

// Each piece begins on `Align` bytes, as the block must.
template <int64_t Align = 64>
struct Carver {
  std::byte* block = nullptr;
  int64_t used = 0;

  template <class T>
  T* take(int64_t count) {
    const int64_t at = used;
    used += (count * int64_t(sizeof(T)) + Align - 1) / Align * Align;
    return block ? reinterpret_cast<T*>(block + at) : nullptr;
  }
};

}  // namespace quire
