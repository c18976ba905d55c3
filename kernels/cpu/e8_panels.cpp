#include <algorithm>
#include <cstring>

#include "kernels/cpu/panels.h"

namespace quire::cpu {

E8Panels e8_panels(const MatmulProblem& p) {
  const Codec codec = p.w.codec;
  E8Panels s{};
  s.first_book = e8_book<false>().words;
  s.second_book = codec == id<E8pRvq3> ? e8_book<true>().words : s.first_book;
  s.second = codec == id<E8pRvq4> ? 2 : codec == id<E8pRvq3> ? 1 : 0;
  s.block_bytes = kPanel * (2 + s.second);
  s.factor_at = (p.k + 7) / 8 * s.block_bytes;
  s.panel_bytes = s.factor_at + (s.second > 0 ? kPanel : 0);
  return s;
}

namespace {

bool supports(const MatmulProblem& p) {
  const Codec codec = p.w.codec;
  return codec == id<E8p> || codec == id<E8pRvq3> || codec == id<E8pRvq4>;
}

int64_t bytes(const MatmulProblem& p) { return (p.n + kPanel - 1) / kPanel * e8_panels(p).panel_bytes; }

void pack(const Tensor& src, const MatmulProblem& p, int64_t row0, std::byte* dst) {
  const E8Panels s = e8_panels(p);
  for (int64_t r = 0; r < src.rows; ++r) {
    const int64_t lane = (row0 + r) % kPanel;
    std::byte* panel = dst + (row0 + r) / kPanel * s.panel_bytes;
    for (int64_t j = 0; 8 * j < p.k; ++j) {
      std::byte* block = panel + j * s.block_bytes;
      std::memcpy(block + 2 * lane, src.data.row<const std::byte>(r) + 2 * j, 2);
      if (s.second == 0) continue;
      std::memcpy(block + 2 * kPanel + s.second * lane, src.high.row<const std::byte>(r) + s.second * j,
                  size_t(s.second));
    }
    if (s.second > 0) std::memcpy(panel + s.factor_at, src.table.ptr, sizeof(float));
  }
}

void unpack(const std::byte* src, const MatmulProblem& p, int64_t n, float* out) {
  const E8Panels s = e8_panels(p);
  const std::byte* panel = src + n / kPanel * s.panel_bytes;
  Tensor one;  // 8 columns of the row, for the codec to decode
  one.codec = p.w.codec;
  one.rows = 1;
  one.cols = 8;
  one.table.ptr = const_cast<std::byte*>(panel) + s.factor_at;
  for (int64_t j = 0; 8 * j < p.k; ++j) {
    std::byte* block = const_cast<std::byte*>(panel) + j * s.block_bytes;
    one.data.ptr = block + 2 * (n % kPanel);
    one.high.ptr = block + 2 * kPanel + s.second * (n % kPanel);
    info(p.w.codec).decode(one, 0, 0, std::min<int64_t>(8, p.k - 8 * j), out + 8 * j);
  }
}

}  // namespace

const WeightLayout kE8Panels = {"e8_panels", supports, bytes, pack, unpack};

}  // namespace quire::cpu
