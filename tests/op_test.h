// What the tests of ops share: every instruction set and two thread counts, random rows, exact comparison.
#pragma once
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/context.h"

namespace quire {

using Rng = std::mt19937;

inline int64_t between(Rng& rng, int64_t lo, int64_t hi) { return lo + int64_t(rng() % uint64_t(hi - lo + 1)); }

// Not std::normal_distribution: its numbers differ between standard libraries.
inline std::vector<float> normal(Rng& rng, int64_t count, float spread = 1.0f, float middle = 0.0f) {
  std::vector<float> v(static_cast<size_t>(count));
  for (float& x : v) {
    float sum = 0.0f;
    for (int i = 0; i < 6; ++i) sum += float(rng() >> 8) * 0x1.0p-24f;
    x = middle + spread * (sum - 3.0f) * 1.41421356f;
  }
  return v;
}

// Contexts over shared pools.
class Machines {
 public:
  Context context(Isa isa = default_isa(), int threads = 3) {
    Context ctx;
    ctx.isa = isa;
    ctx.pool = threads == 1 ? &one_ : &three_;
    ctx.scratch = &scratch_;
    return ctx;
  }
  // Baseline and the best this machine has, with what lies between; each with one thread and three.
  std::vector<Context> all() {
    std::vector<Context> list;
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (isa > default_isa()) continue;
      list.push_back(context(isa, 1));
      list.push_back(context(isa, 3));
    }
    return list;
  }

 private:
  ThreadPool one_{1}, three_{3};
  Scratch scratch_;
};

// An f32 tensor over memory that is there; ld: floats from row to row (0: cols).
inline Tensor f32_view(float* data, int64_t rows, int64_t cols, int64_t ld = 0) {
  Tensor t;
  t.codec = id<F32>;
  t.rows = rows;
  t.cols = cols;
  t.data = {reinterpret_cast<std::byte*>(data), (ld > 0 ? ld : cols) * 4, 1};
  return t;
}
inline Tensor f32_view(std::vector<float>& data, int64_t rows, int64_t cols) {
  return f32_view(data.data(), rows, cols);
}

inline std::vector<float> decoded(const Tensor& t) {
  std::vector<float> values(size_t(t.rows * t.cols));
  for (int64_t r = 0; r < t.rows; ++r) info(t.codec).decode(t, r, 0, t.cols, values.data() + r * t.cols);
  return values;
}

// "" if the bits are equal, else where they first differ.
inline std::string first_difference(const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (std::memcmp(a + i, b + i, 4) != 0) return fmt::format("[{}]: {} and {}", i, a[i], b[i]);
  }
  return "";
}
inline std::string first_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return fmt::format("{} and {} values", a.size(), b.size());
  return first_difference(a.data(), b.data(), int64_t(a.size()));
}

// Every byte of a tensor's memory.
inline std::string memory_of(const OwnedTensor& t) {
  return {reinterpret_cast<const char*>(t.buffer.data()), t.buffer.size()};
}

// Every format ops can write: each codec, with its own group, per row and in groups that leave a short last one.
inline std::vector<Format> every_format(std::initializer_list<int32_t> groups = {0, 24}) {
  std::vector<Format> list;
  for (int c = 0; c < Codecs::kSize; ++c) {
    const CodecInfo& codec = info(Codec(c));
    if (codec.group > 0) {
      list.push_back({Codec(c), codec.group});
    } else {
      const bool scaled = codec.row_bytes(1, 1).scale > 0;
      for (const int32_t g : groups) {
        if (g == 0 || scaled) list.push_back({Codec(c), g});
      }
    }
  }
  return list;
}

}  // namespace quire
