// frag8 and frag16 on the host: what lies where.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/matmul_mma.h"
#include "tests/kernels/frag_cases.h"

namespace quire {
namespace {

TEST(FragLayout, EveryPlaceIsPackedOnce) {
  for (const FragCode code :
       {FragCode::int8, FragCode::nibble_signed, FragCode::half_nibble, FragCode::half_byte, FragCode::half_float}) {
    FragShape s;
    s.code = code;
    std::vector<int> seen(size_t(kFragRows * kFragCols), 0);
    for (int i = 0; i < s.code_bytes() / 4; ++i) {
      frag_word(s, i / 128 / s.vectors(), i / 128 % s.vectors(), i / 4 % 32, i % 4, [&](int at, int row, int col) {
        ++seen[size_t(row * kFragCols + col)];
        const FragPlace p = frag_place(s, row, col);
        EXPECT_EQ(p.byte * 8 + p.shift, i * 32 + at) << int(code) << " " << row << " " << col;
      });
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), kFragRows * kFragCols);
  }
}

// The A operand of m16n8k32 (bytes) and m16n8k16 (halfs) as the PTX manual gives it: element e of register i of a lane.
struct Element {
  int row, col;
};
Element a_bytes(int lane, int i, int e) { return {lane / 4 + 8 * (i % 2), lane % 4 * 4 + e + 16 * (i / 2)}; }
Element a_halfs(int lane, int i, int e) { return {lane / 4 + 8 * (i % 2), lane % 4 * 2 + e + 8 * (i / 2)}; }

// What mma_fields.cuh makes of a lane's words, on the host: element e of register i of MMA step `step` of a tile's
// block.
int field_of(const FragShape& s, const std::byte* block, int lane, int step, int i, int e) {
  const auto word = [&](int vector, int w) {
    uint32_t u;
    std::memcpy(&u, block + vector * 512 + lane * 16 + w * 4, 4);
    return u;
  };
  switch (s.code) {
    case FragCode::int8:
      return int(word(step, i) >> (8 * e) & 255);
    case FragCode::nibble_signed:
    case FragCode::nibble_offset: {
      const uint32_t u = word(step / 2, step % 2 * 2 + i / 2), a = (i % 2 ? u << 4 : u) & 0xf0f0f0f0u;
      return int(a >> (8 * e + 4) & 15);
    }
    case FragCode::half_nibble: {
      const uint32_t u = word(step / 4, step % 4) >> (i / 2 * 8);
      return int((i % 2 ? (u & 0x00f000f0u) >> 4 : u & 0x000f000fu) >> (16 * e) & 15);
    }
    case FragCode::half_byte:
      return int(word(step / 2, step % 2 * 2 + i / 2) >> (16 * (i % 2) + 8 * e) & 255);
    case FragCode::half_float:
      return int(word(step, i) >> (16 * e) & 0xffff);
    default:
      return -1;
  }
}

TEST(FragLayout, LanesHoldTheOperandOfTheManual) {
  Rng rng(1);
  const Pair cases[] = {{{id<Int8>}, {id<Int8>}}, {{id<Int4>}, {id<Int8>}}, {{id<UInt4O>, 64}, {id<Int8>}},
                        {{id<Int4>}, {id<F16>}},  {{id<Int8>}, {id<F16>}},  {{id<F16>}, {id<F16>}}};
  for (const Pair& p : cases) {
    const int64_t n = 130, k = 300;
    const OwnedTensor w = random_operand(rng, p.w, n, k);
    const FragShape s = *frag_shape(p.w, p.x, n, k);
    const std::vector<std::byte> bytes = packed(s, w);
    const int width = s.half() ? 16 : 32, elements = s.half() ? 2 : 4;
    for (int trial = 0; trial < 20000; ++trial) {
      const int64_t panel = between(rng, 0, s.panels() - 1), kt = between(rng, 0, s.k_tiles() - 1);
      const int block = int(rng() % 4), lane = int(rng() % 32), step = int(rng() % unsigned(128 / width)),
                i = int(rng() % 4), e = int(rng() % unsigned(elements));
      const Element at = s.half() ? a_halfs(lane, i, e) : a_bytes(lane, i, e);
      const int64_t row = panel * 64 + block * 16 + at.row, col = kt * 128 + step * width + at.col;
      const int field = field_of(s, bytes.data() + s.tile_at(panel, kt) + block * s.code_bytes() / 4, lane, step, i, e);
      int expected = 0;
      if (row < n && col < k) {
        if (p.w.codec == id<F16>) {
          expected = w.tensor.data.row<const uint16_t>(row)[col];
        } else {
          int16_t code;
          info(p.w.codec).codes(w, row, col, 1, &code);
          expected = s.code == FragCode::half_nibble ? code + 8 : code & (s.bits() == 4 ? 15 : 255);
        }
      }
      ASSERT_EQ(field, expected) << describe(w) << " row " << row << " column " << col;
    }
  }
}

TEST(FragLayout, UnpacksToWhatTheCodecDecodes) {
  Rng rng(2);
  for (const Pair& p : pairs()) {
    const int64_t n = between(rng, 1, 150), k = (between(rng, 1, 300) + 31) / 32 * 32;
    const OwnedTensor w = random_operand(rng, p.w, n, k);
    const std::optional<FragShape> s = frag_shape(p.w, p.x, n, k);
    ASSERT_TRUE(s) << to_string(p.w) << " " << to_string(p.x);
    const std::vector<std::byte> bytes = packed(*s, w);
    const std::vector<float> expected = decoded(w);
    std::vector<float> got(expected.size());
    for (int64_t i = 0; i < n * k; ++i) {
      got[size_t(i)] = frag_value(*s, bytes.data(), i / k, i % k, p.w.codec == id<BF16>);
    }
    EXPECT_EQ(first_difference(got, expected), "") << describe(w);
  }
}

}  // namespace
}  // namespace quire
