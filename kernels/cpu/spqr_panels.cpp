#include <cstring>

#include "kernels/cpu/panels.h"

namespace quire::cpu {

namespace {

constexpr int64_t kSide = Spqr3::kSpan;

int64_t tiles(const MatmulProblem& p) { return (p.k + kSide - 1) / kSide; }

bool supports(const MatmulProblem& p) { return p.w.codec == id<Spqr3> && p.k > 0; }

int64_t bytes(const MatmulProblem& p) { return (p.n + kPanel - 1) / kPanel * tiles(p) * kSpqrTile; }

// Codes of a row of a tile, column c in bits 3c to 3c + 2: the lower 32 bits lie in one run of 16 rows, the upper 16 in
// the next.
constexpr int64_t kLow = Spqr3::kTileBytes, kHigh = kLow + 4 * kPanel;
static_assert(kSide == kPanel && kHigh + 2 * kPanel == kSpqrTile);

void pack(const Tensor& src, const MatmulProblem& p, int64_t row0, std::byte* dst) {
  for (int64_t r = 0; r < src.rows; ++r) {
    const int64_t n = row0 + r, lane = n % kPanel;
    std::byte* tile = dst + n / kPanel * tiles(p) * kSpqrTile;
    for (int64_t g = 0; g < src.groups(); ++g, tile += kSpqrTile) {
      if (lane == 0) std::memcpy(tile, Spqr3::tile_at(src, r, g), size_t(Spqr3::kTileBytes));
      uint8_t codes[kSide] = {};
      Spqr3::Planes::read(src, r, src.group_begin(g), src.group_end(g) - src.group_begin(g), codes);
      uint64_t word = 0;
      for (int64_t c = 0; c < kSide; ++c) word |= uint64_t(codes[c]) << (3 * c);
      const uint32_t low = uint32_t(word);
      const uint16_t high = uint16_t(word >> 32);
      std::memcpy(tile + kLow + 4 * lane, &low, 4);
      std::memcpy(tile + kHigh + 2 * lane, &high, 2);
    }
  }
}

void unpack(const std::byte* src, const MatmulProblem& p, int64_t n, float* out) {
  const int64_t lane = n % kPanel;
  const std::byte* tile = src + n / kPanel * tiles(p) * kSpqrTile;
  for (int64_t k = 0; k < p.k; k += kSide, tile += kSpqrTile) {
    const Spqr3::Level level = Spqr3::level_at(reinterpret_cast<const uint8_t*>(tile), int(lane));
    uint32_t low;
    uint16_t high;
    std::memcpy(&low, tile + kLow + 4 * lane, 4);
    std::memcpy(&high, tile + kHigh + 2 * lane, 2);
    const uint64_t word = uint64_t(high) << 32 | low;
    for (int64_t c = 0; c < kSide && k + c < p.k; ++c) out[k + c] = Spqr3::value(level, int(word >> (3 * c) & 7));
  }
}

}  // namespace

const WeightLayout kSpqrPanels = {"spqr_panels", supports, bytes, pack, unpack};

}  // namespace quire::cpu
