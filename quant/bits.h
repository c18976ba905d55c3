// What codecs share: packed codes and walks over groups. Plain loops over short arrays, so that compilers vectorize
// them.
#pragma once
#include "quant/scalar.h"

namespace quire {

inline constexpr int kPiece = 256;  // columns a codec works on at a time, on the stack

// Walks columns [c0, c0 + n) in pieces of one group, at most kPiece long: for (Pieces p(t, c0, n); p.m > 0; p.next()).
struct Pieces {
  const Tensor& t;
  int64_t c, end;  // the piece starts at column c
  int64_t g;       // its group
  int64_t m = 0;   // its columns

  QUIRE_HD Pieces(const Tensor& tensor, int64_t c0, int64_t n) : t(tensor), c(c0), end(c0 + n), g(tensor.group_of(c0)) {
    measure();
  }
  QUIRE_HD void next() {
    c += m;
    if (c == t.group_end(g)) ++g;
    measure();
  }

 private:
  QUIRE_HD void measure() {
    const int64_t group_end = t.group_end(g), stop = group_end < end ? group_end : end;
    m = stop - c < kPiece ? stop - c : kPiece;
  }
};

// The codes of one byte, each in a byte of its own.
template <int Bits>
QUIRE_HD inline void spread_bits(uint8_t byte, uint8_t* out) {
  if constexpr (Bits == 4) {
    out[0] = byte & 15;
    out[1] = byte >> 4;
  } else if constexpr (Bits == 2) {
    uint32_t v = byte;
    v = (v | (v << 12)) & 0x000f000fu;
    v = (v | (v << 6)) & 0x03030303u;
    memcpy(out, &v, 4);
  } else {
    static_assert(Bits == 1);
    const uint64_t bits = (byte * 0x0101010101010101u) & 0x8040201008040201u;  // bit k in byte k
    const uint64_t v = ((bits + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
    memcpy(out, &v, 8);
  }
}

// Codes of Bits bits (1, 2, 4), lowest bits of a byte first: columns [c0, c0 + n) of a row.
template <int Bits>
QUIRE_HD inline void unpack_bits(const uint8_t* row, int64_t c0, int64_t n, uint8_t* out) {
  constexpr int kPerByte = 8 / Bits, kMask = (1 << Bits) - 1;
  int64_t i = 0;
  for (; i < n && (c0 + i) % kPerByte != 0; ++i) {
    out[i] = uint8_t((row[(c0 + i) / kPerByte] >> (Bits * ((c0 + i) % kPerByte))) & kMask);
  }
  const uint8_t* in = row + (c0 + i) / kPerByte;
  const int64_t whole = (n - i) / kPerByte;
  for (int64_t b = 0; b < whole; ++b) spread_bits<Bits>(in[b], out + i + b * kPerByte);
  for (int64_t k = 0, rest = i + whole * kPerByte; rest + k < n; ++k) {
    out[rest + k] = uint8_t((in[whole] >> (Bits * k)) & kMask);
  }
}

// The inverse: stores Bits bits of every code, from bit `shift` up. Partial bytes at both ends are or-ed, so the row
// must have been cleared.
template <int Bits>
QUIRE_HD inline void pack_bits(uint8_t* row, int64_t c0, int64_t n, const uint8_t* codes, int shift = 0) {
  constexpr int kPerByte = 8 / Bits, kMask = (1 << Bits) - 1;
  int64_t i = 0;
  for (; i < n && (c0 + i) % kPerByte != 0; ++i) {
    row[(c0 + i) / kPerByte] |= uint8_t(((codes[i] >> shift) & kMask) << (Bits * ((c0 + i) % kPerByte)));
  }
  uint8_t* out = row + (c0 + i) / kPerByte;
  const int64_t whole = (n - i) / kPerByte;
  for (int64_t b = 0; b < whole; ++b) {
    int byte = 0;
    for (int k = 0; k < kPerByte; ++k) byte |= ((codes[i + b * kPerByte + k] >> shift) & kMask) << (Bits * k);
    out[b] = uint8_t(byte);
  }
  for (int64_t k = 0, rest = i + whole * kPerByte; rest + k < n; ++k) {
    out[whole] |= uint8_t(((codes[rest + k] >> shift) & kMask) << (Bits * k));
  }
}

// Codes of Low bits in the data plane and High more in the high plane, in the order of the tensor.
template <int Low, int High>
struct CodePlanes {
  static constexpr int kLow = Low, kHigh = High;
  static constexpr int kPerByte = 8 / Low, kMask = (1 << Low) - 1;
  static constexpr int kAlign = High == 1 ? 8 : High == 2 ? 4 : kPerByte;  // columns in whole bytes of both

  QUIRE_HD static constexpr int64_t data_bytes(int64_t cols) { return (cols * Low + 7) / 8; }
  QUIRE_HD static constexpr int64_t high_bytes(int64_t cols) { return (cols * High + 7) / 8; }

  // One code, whatever the order.
  QUIRE_HD static int get(const Tensor& t, int64_t r, int64_t c) {
    const int64_t p = stored_column(t.order, t.cols, c);
    int v = (t.data.row<const uint8_t>(r)[p / kPerByte] >> (Low * (p % kPerByte))) & kMask;
    if constexpr (High > 0) {
      constexpr int kHighPerByte = 8 / High, kHighMask = (1 << High) - 1;
      const int high = t.high.row<const uint8_t>(r)[p / kHighPerByte] >> (High * (p % kHighPerByte));
      v |= (high & kHighMask) << Low;
    }
    return v;
  }
  // n <= kPiece codes from column c0.
  QUIRE_HD static void read(const Tensor& t, int64_t r, int64_t c0, int64_t n, uint8_t* out) {
    if (t.order == Order::natural) {
      read_stored(t, r, c0, n, out);
    } else if (t.cols <= kPiece) {  // a row of the cache: all of it, then its columns
      uint8_t row[kPiece];
      read_stored(t, r, 0, t.cols, row);
      if (t.order == Order::value_tiles && c0 % 16 == 0 && n % 16 == 0) return gather_tiles(row, t.cols, c0, n, out);
      for (int64_t i = 0; i < n; ++i) out[i] = row[stored_column(t.order, t.cols, c0 + i)];
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = uint8_t(get(t, r, c0 + i));
    }
  }
  // Before the codes of rows [r0, r0 + n) are written: codes smaller than a byte are or-ed into place.
  QUIRE_HD static void clear(const Tensor& t, int64_t r0, int64_t n) {
    if (Low == 8 || t.cols == 0) return;
    for (int64_t r = r0; r < r0 + n; ++r) {
      memset(t.data.row<uint8_t>(r), 0, size_t(data_bytes(t.cols)));
      if constexpr (High > 0) memset(t.high.row<uint8_t>(r), 0, size_t(high_bytes(t.cols)));
    }
  }
  QUIRE_HD static void write(const Tensor& t, int64_t r, int64_t c0, int64_t n, const uint8_t* codes) {
    uint8_t* data = t.data.row<uint8_t>(r);
    if (t.order != Order::natural) {
      for (int64_t i = 0; i < n; ++i) put(t, r, stored_column(t.order, t.cols, c0 + i), codes[i]);
    } else if constexpr (Low == 8) {
      memcpy(data + c0, codes, size_t(n));
    } else {
      pack_bits<Low>(data, c0, n, codes);
      if constexpr (High > 0) pack_bits<High>(t.high.row<uint8_t>(r), c0, n, codes, Low);
    }
  }

 private:
  QUIRE_HD static void gather_tiles(const uint8_t* row, int64_t cols, int64_t c0, int64_t n, uint8_t* out) {
    const int64_t step = cols / 8;
    for (int64_t i = 0; i < n; i += 16) {
      const uint8_t* pairs = row + (c0 + i) / 8;  // 2 * tile
      for (int g = 0; g < 8; ++g) memcpy(out + i + 2 * g, pairs + g * step, 2);
    }
  }
  // n <= kPiece codes from place p0, as they lie.
  QUIRE_HD static void read_stored(const Tensor& t, int64_t r, int64_t p0, int64_t n, uint8_t* out) {
    const uint8_t* data = t.data.row<const uint8_t>(r);
    if constexpr (Low == 8) {
      memcpy(out, data + p0, size_t(n));
    } else {
      unpack_bits<Low>(data, p0, n, out);
      if constexpr (High > 0) {
        uint8_t high[kPiece];
        unpack_bits<High>(t.high.row<const uint8_t>(r), p0, n, high);
        for (int64_t i = 0; i < n; ++i) out[i] = uint8_t(out[i] | high[i] << Low);
      }
    }
  }
  QUIRE_HD static void put(const Tensor& t, int64_t r, int64_t p, uint8_t v) {
    uint8_t* data = t.data.row<uint8_t>(r);
    if constexpr (Low == 8) {
      data[p] = v;
    } else {
      data[p / kPerByte] |= uint8_t((v & kMask) << (Low * (p % kPerByte)));
      if constexpr (High > 0) t.high.row<uint8_t>(r)[p * High / 8] |= uint8_t((v >> Low) << (p * High % 8));
    }
  }
};

// NaN becomes 0, larger magnitudes the limit: nothing non-finite is ever stored.
QUIRE_HD inline float finite(float x, float limit) {
  const float y = x == x ? x : 0.0f;
  return y > limit ? limit : y < -limit ? -limit : y;
}
// NaN becomes lo.
QUIRE_HD inline float clamp(float q, float lo, float hi) { return q > lo ? (q < hi ? q : hi) : lo; }

// What values are multiplied by for this scale; 0 if there is no finite inverse.
QUIRE_HD inline float inverse(float scale) {
  const float inv = 1.0f / scale;
  return inv > -3.4e38f && inv < 3.4e38f ? inv : 0.0f;
}

// A float as an integer of the same order, NaN as 0: integer minima and maxima vectorize, those of floats do not.
QUIRE_HD inline int32_t ordered(float x) {
  const int32_t u = int32_t(f32_bits(x)), magnitude = u & 0x7fffffff, key = u < 0 ? u ^ 0x7fffffff : u;
  return magnitude > 0x7f800000 ? 0 : key;
}
QUIRE_HD inline float from_ordered(int32_t key) { return f32_from_bits(uint32_t(key < 0 ? key ^ 0x7fffffff : key)); }

// Smallest and largest of the values seen, with limit and NaN as in finite(). Nothing seen: both 0.
struct Range {
  float limit;
  int32_t lo = 0x7fffffff, hi = -0x7fffffff - 1;

  QUIRE_HD explicit Range(float largest) : limit(largest) {}
  QUIRE_HD void see(const float* x, int64_t n) {
    int32_t low = lo, high = hi;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t key = ordered(x[i]);
      low = key < low ? key : low;
      high = key > high ? key : high;
    }
    lo = low;
    hi = high;
  }
  // + 0 so that a zero is never negative.
  QUIRE_HD float least() const { return lo > hi ? 0.0f : finite(from_ordered(lo), limit) + 0.0f; }
  QUIRE_HD float most() const { return lo > hi ? 0.0f : finite(from_ordered(hi), limit) + 0.0f; }
  QUIRE_HD float magnitude() const { return (most() > -least() ? most() : -least()) + 0.0f; }
};

}  // namespace quire
