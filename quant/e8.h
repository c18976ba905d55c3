// QuIP#'s lattice codebooks (arXiv 2402.04396): one code stands for 8 values of a row, from column 8 j on.
//   e8p       codes of the E8P book, u16, in the data plane: 2 bits a value
//   e8p_rvq3  and codes of the E8 book, u8, in the high plane: value = first + t * second
//   e8p_rvq4  and codes of the E8P book, u16, there: the same
// t, the inverse of the scale of residuals, is the f32 in t.table. Values have no scale: what lies around the product
// has (checkpoint.h). Only read.
//   E8P  256 vectors of halves (all of squared norm <= 10 and 29 of 12) with any signs that leave the sum even, plus
//        1/4 or minus 1/4 everywhere: 2^16 vectors, of E8 + 1/4. A code is the vector's index, then a byte of signs
//        whose parity says which quarter.
//   E8   the 241 vectors of E8 of squared norm <= 2 and 15 of 4.
#pragma once
#include <type_traits>

#include "quant/bits.h"

namespace quire {

// The vectors of a book, one a word: coordinate i in the nibble of e8_shift(i), as twice its value + 8.
struct E8Book {
  uint32_t words[256] = {};
};
QUIRE_HD constexpr int e8_shift(int i) { return 4 * (i / 2) + 16 * (i % 2); }

namespace e8 {

QUIRE_HD constexpr uint32_t pack(const int (&doubled)[8]) {
  uint32_t word = 0;
  for (int i = 0; i < 8; ++i) word |= uint32_t(doubled[i] + 8) << e8_shift(i);
  return word;
}

// Vector n of those with 8 of `values`, first + step * 0..values - 1, in lexicographic order.
QUIRE_HD constexpr void nth(int n, int values, int first, int step, int (&doubled)[8]) {
  for (int i = 7; i >= 0; --i, n /= values) doubled[i] = first + step * (n % values);
}
QUIRE_HD constexpr int squared(const int (&doubled)[8]) {
  int sum = 0;
  for (const int v : doubled) sum += v * v;
  return sum;
}
QUIRE_HD constexpr bool odd_sum(const int (&doubled)[8]) {
  int sum = 0;
  for (const int v : doubled) sum += v;
  return sum % 4 != 0;
}

QUIRE_HD constexpr E8Book make_e8p() {
  // The writers' choice of 29 of the 56 vectors of five 3/2 and three 1/2.
  constexpr char kTwelve[] =
      "311133331311333311313333111333333331331133313131333113313331311333311313333111333313331133133131"
      "331313313313311333131313331311333133331131333131313313313133311331331313133311331333331113333131"
      "1333133113333113133313131133133333113331";
  E8Book book;
  int count = 0, v[8] = {};
  const auto add = [&] {
    if (odd_sum(v)) v[7] = -v[7];  // so that an even number of signs leaves every sum even
    book.words[count++] = pack(v);
  };
  for (int n = 0; n < 6561; ++n) {
    nth(n, 3, 1, 2, v);
    if (squared(v) <= 40) add();
  }
  for (int n = 0; n < 29; ++n) {
    for (int i = 0; i < 8; ++i) v[i] = kTwelve[8 * n + i] - '0';
    add();
  }
  return book;
}

QUIRE_HD constexpr E8Book make_e8() {
  E8Book book;
  int count = 0, v[8] = {};
  for (int n = 0; n < 6561; ++n) {
    nth(n, 3, -2, 2, v);
    if (squared(v) <= 8 && !odd_sum(v)) book.words[count++] = pack(v);
  }
  for (int n = 0; n < 256; ++n) {
    nth(n, 2, -1, 2, v);
    if (!odd_sum(v)) book.words[count++] = pack(v);
  }
  for (int n = 0; n < 15; ++n) {  // all 2 e_i, then all -2 e_i but the last
    for (int i = 0; i < 8; ++i) v[i] = i == n % 8 ? (n < 8 ? 4 : -4) : 0;
    book.words[count++] = pack(v);
  }
  return book;
}

// A vector as its codes' arithmetic has it: coordinate i is nibble / 2 + offset, exactly.
struct Vector {
  uint32_t word;
  float offset;
  QUIRE_HD float at(int i) const { return 0.5f * float(word >> e8_shift(i) & 15) + offset; }
};

}  // namespace e8

// Templates, so that only what uses a book makes it.
template <bool OneBit>
QUIRE_HD const E8Book& e8_book() {
  static constexpr E8Book kBook = OneBit ? e8::make_e8() : e8::make_e8p();
  return kBook;
}

template <class C>
struct E8pBook {
  using Code = C;
  QUIRE_HD static e8::Vector vector(uint32_t code) {
    uint32_t signs = code & 255, odd = signs ^ signs >> 4;
    odd ^= odd >> 2;
    odd = (odd ^ odd >> 1) & 1;
    signs ^= odd;
    signs = (signs | signs << 12) & 0x000f000fu;  // bit u to bit 4 u
    signs = (signs | signs << 6) & 0x03030303u;
    signs = (signs | signs << 3) & 0x11111111u;
    // Nibbles are odd: 14 turns n into 16 - n.
    return {e8_book<false>().words[code >> 8] ^ signs * 14, odd ? -4.25f : -3.75f};
  }
};
template <class C>
struct E8OneBitBook {
  using Code = C;
  QUIRE_HD static e8::Vector vector(uint32_t code) { return {e8_book<true>().words[code], -4.0f}; }
};
struct NoBook {
  using Code = uint8_t;
};

template <class Second>
struct E8Codes {
  using First = E8pBook<uint16_t>;
  static constexpr bool kResidual = !std::is_same_v<Second, NoBook>;
  static constexpr int kBits = kResidual ? 2 + int(sizeof(typename Second::Code)) : 2, kGroup = 0, kAlign = 8;
  static constexpr const char* kName = kBits == 2 ? "e8p" : kBits == 3 ? "e8p_rvq3" : "e8p_rvq4";
  static constexpr bool kLinear = false, kInteger = false, kOffset = false, kAnyOrder = false;
  static constexpr int64_t kTableBytes = kResidual ? 4 : 0;
  static constexpr bool kTableShared = true;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t) {
    const int64_t codes = (cols + 7) / 8;
    return {codes * int64_t(sizeof(First::Code)), kResidual ? codes * int64_t(sizeof(typename Second::Code)) : 0};
  }
  QUIRE_HD static e8::Vector first(const Tensor& t, int64_t r, int64_t j) {
    return First::vector(t.data.row<const First::Code>(r)[j]);
  }
  QUIRE_HD static e8::Vector second(const Tensor& t, int64_t r, int64_t j) {
    return Second::vector(t.high.row<const typename Second::Code>(r)[j]);
  }
  QUIRE_HD static float decode_at(const Tensor& t, int64_t r, int64_t c) {
    const float value = first(t, r, c / 8).at(int(c % 8));
    if constexpr (!kResidual) return value;
    if constexpr (kResidual) return value + *t.table.row<const float>(0) * second(t, r, c / 8).at(int(c % 8));
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t c = c0; c < c0 + n;) {
      const int64_t j = c / 8, end = 8 * j + 8 < c0 + n ? 8 * j + 8 : c0 + n;
      float v[8];
      const e8::Vector a = first(t, r, j);
      for (int i = 0; i < 8; ++i) v[i] = a.at(i);
      if constexpr (kResidual) {
        const e8::Vector b = second(t, r, j);
        const float scale = *t.table.row<const float>(0);
        for (int i = 0; i < 8; ++i) v[i] = v[i] + scale * b.at(i);
      }
      for (; c < end; ++c) out[c - c0] = v[c % 8];
    }
  }
};
using E8p = E8Codes<NoBook>;
using E8pRvq3 = E8Codes<E8OneBitBook<uint8_t>>;
using E8pRvq4 = E8Codes<E8pBook<uint16_t>>;

// The code of E8P's vector closest to x (8), found as the paper does.
uint16_t nearest_e8p(const float* x);

}  // namespace quire
