// What the two halves of the GGUF reader share: gguf_read.cpp checks the file, gguf.cpp gives its values.
#pragma once
#include <cstddef>
#include <cstring>

#include "models/gguf.h"

namespace quire::gguf {

constexpr const char* kTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};

// Bytes of a scalar, 0 for strings and arrays.
inline size_t scalar_bytes(GgufType type) {
  constexpr size_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[size_t(type)];
}

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

}  // namespace quire::gguf
