// Cached codes as the operands of mma.m16n8k16: which bytes of a row a lane reads, and how they become pairs of f16.
//
// The k and m indices of a matrix product may be permuted freely if q (keys) or the output (values) follows, so codes
// go from the bytes of a page straight to fragments, without packing across tokens. A 32-bit word holds two 16-bit
// halves; register i of an unpacked word is (field i of the low half, field i of the high half).
//   keys:    the word as it lies: both halves are dims of one token
//   values:  the same 16-bit unit of two tokens, paired with one byte permutation: both halves are tokens of one dim
// Integer codes become *subnormal* f16 numbers, code * 2^shift * 2^-24, exactly: no bias and no correction term; tensor
// cores take them as they are. 2^24 goes into the f32 scale, 2^-shift into q or the output.
#pragma once
#include "quant/kv_layout.h"

namespace quire::cuda {

QUIRE_HD inline uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, selector);
#else
  const uint64_t bytes = uint64_t(b) << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= uint32_t(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return out;
#endif
}

// kData, kHigh: bits of a code in its two planes. value of a code = f16 * 2^kExponent * 2^-shift(i).
template <class Codec>
struct Fields;

template <>
struct Fields<F16> {
  static constexpr int kData = 16, kHigh = 0, kPer = 1, kExponent = 0;
  QUIRE_HD static constexpr int shift(int) { return 0; }
  QUIRE_HD static void unpack(uint32_t w, uint32_t, uint32_t* out) { out[0] = w; }
};

// e4m3 and f16 differ in the exponent's bias only, subnormals included.
template <>
struct Fields<E4M3> {
  static constexpr int kData = 8, kHigh = 0, kPer = 2, kExponent = 8;
  QUIRE_HD static constexpr int shift(int) { return 0; }
  QUIRE_HD static void unpack(uint32_t w, uint32_t, uint32_t* out) {
    const uint32_t low = w << 8;
    out[0] = (low & 0x80008000u) | ((low & 0x7f007f00u) >> 1);
    out[1] = (w & 0x80008000u) | ((w & 0x7f007f00u) >> 1);
  }
};

template <>
struct Fields<UInt8O> {
  static constexpr int kData = 8, kHigh = 0, kPer = 2, kExponent = 24;
  QUIRE_HD static constexpr int shift(int) { return 0; }
  QUIRE_HD static void unpack(uint32_t w, uint32_t, uint32_t* out) {
    out[0] = w & 0x00ff00ffu;
    out[1] = (w >> 8) & 0x00ff00ffu;
  }
};

template <>
struct Fields<UInt4O> {
  static constexpr int kData = 4, kHigh = 0, kPer = 4, kExponent = 24;
  QUIRE_HD static constexpr int shift(int i) { return i % 2 * 4; }
  QUIRE_HD static void unpack(uint32_t w, uint32_t, uint32_t* out) {
    const uint32_t upper = w >> 8;
    out[0] = w & 0x000f000fu;
    out[1] = w & 0x00f000f0u;
    out[2] = upper & 0x000f000fu;
    out[3] = upper & 0x00f000f0u;
  }
};

template <>
struct Fields<UInt2O> {
  static constexpr int kData = 2, kHigh = 0, kPer = 8, kExponent = 24;
  QUIRE_HD static constexpr int shift(int i) { return i % 5 * 2; }
  QUIRE_HD static void unpack(uint32_t w, uint32_t, uint32_t* out) {
    const uint32_t upper = w >> 10;  // five fields fit the mantissa
    out[0] = w & 0x00030003u;
    out[1] = w & 0x000c000cu;
    out[2] = w & 0x00300030u;
    out[3] = w & 0x00c000c0u;
    out[4] = w & 0x03000300u;
    out[5] = upper & 0x00030003u;
    out[6] = upper & 0x000c000cu;
    out[7] = upper & 0x00300030u;
  }
};

// `high` holds the third bits: bit i of each half belongs to field i.
template <>
struct Fields<UInt3O> {
  static constexpr int kData = 2, kHigh = 1, kPer = 8, kExponent = 24;
  QUIRE_HD static constexpr int shift(int i) { return i % 4 * 2; }
  QUIRE_HD static void unpack(uint32_t w, uint32_t high, uint32_t* out) {
    const uint32_t upper = w >> 8;
    out[0] = (w & 0x00030003u) | (high << 2 & 0x00040004u);
    out[1] = (w & 0x000c000cu) | (high << 3 & 0x00100010u);
    out[2] = (w & 0x00300030u) | (high << 4 & 0x00400040u);
    out[3] = (w & 0x00c000c0u) | (high << 5 & 0x01000100u);
    out[4] = (upper & 0x00030003u) | (high >> 2 & 0x00040004u);
    out[5] = (upper & 0x000c000cu) | (high >> 1 & 0x00100010u);
    out[6] = (upper & 0x00300030u) | (high & 0x00400040u);
    out[7] = (upper & 0x00c000c0u) | (high << 1 & 0x01000100u);
  }
};

// One lane's part of a row of C codes that `lanes` lanes read together: pieces of up to 16 bytes a lane, side by side,
// so that every load of a warp is contiguous.
template <class F, int C, int Lanes>
struct LaneBytes {
  static constexpr int kRow = C * F::kData / 8, kHighRow = C * F::kHigh / 8;  // bytes of a row of each plane
  static constexpr int kBytes = kRow / Lanes, kHighBytes = kHighRow / Lanes;
  static constexpr int kPiece = kBytes < 16 ? kBytes : 16, kPieces = kBytes / kPiece;
  static constexpr int kRegisters = C / 8;  // pairs of f16 that a lane's part (two of them for values) becomes
  static_assert(kBytes * Lanes == kRow && kPiece * kPieces == kBytes && (F::kHigh == 0 || kPieces == 1),
                "a row that the lanes cannot share evenly");
  // Where in the row the byte `at` of this lane's part lies.
  QUIRE_HD static constexpr int row_byte(int at, int lane) {
    return at / kPiece * (Lanes * kPiece) + lane * kPiece + at % kPiece;
  }
};

// Keys: lane t of 4 reads its part of a token's row. Register r is (dim(r, 0, t), dim(r, 1, t)).
template <class F, int C>
struct KeyLane : LaneBytes<F, C, 4> {
  using Base = LaneBytes<F, C, 4>;
  static constexpr int kWords = Base::kBytes / 4;
  static_assert(kWords * 4 == Base::kBytes, "a lane reads whole words of a key");
  QUIRE_HD static constexpr int dim(int r, int half, int t) {
    return Base::row_byte(r / F::kPer * 4, t) * 8 / F::kData + half * F::kPer + r % F::kPer;
  }
  // words (kWords), high (1 or 2 words with the third bits) -> out (kRegisters)
  QUIRE_HD static void unpack(const uint32_t* words, const uint32_t* high, uint32_t* out) {
    for (int w = 0; w < kWords; ++w) {
      uint32_t h = 0;
      if constexpr (F::kHigh > 0) h = byte_permute(high[w / 2], 0, w % 2 == 0 ? 0x4140u : 0x4342u);
      F::unpack(words[w], h, out + w * F::kPer);
    }
  }
};

// Values: lane g of 8 reads its part of each of its tokens. Register r of a pair of tokens is (first, second) at dim(r,
// g).
template <class F, int C, Order O>
struct ValueLane : LaneBytes<F, C, 8> {
  using Base = LaneBytes<F, C, 8>;
  static constexpr int kUnits = Base::kBytes / 2, kWords = (Base::kBytes + 3) / 4;  // units of 16 bits
  static_assert(kUnits * 2 == Base::kBytes, "a lane reads whole 16-bit units of a value");
  static_assert(O == Order::natural || (O == Order::value_tiles && Base::kPieces == 1), "an order without a reader");
  QUIRE_HD static constexpr int dim(int r, int g) {
    if (O == Order::value_tiles) return r / 2 * 16 + 2 * g + r % 2;
    return Base::row_byte(r / F::kPer * 2, g) * 8 / F::kData + r % F::kPer;
  }
  // The parts of two tokens -> out (kRegisters). high: the third bits of each.
  QUIRE_HD static void unpack(const uint32_t* first, const uint32_t* second, uint32_t first_high, uint32_t second_high,
                              uint32_t* out) {
    for (int u = 0; u < kUnits; ++u) {
      const uint32_t w = byte_permute(first[u / 2], second[u / 2], u % 2 == 0 ? 0x5410u : 0x7632u);
      uint32_t h = 0;
      if constexpr (F::kHigh > 0) {
        static_assert(kUnits <= 4, "the third bits of a lane's values fill one word");
        h = byte_permute(first_high, second_high, 0x0400u + 0x1111u * uint32_t(u)) & 0x00ff00ffu;
      }
      F::unpack(w, h, out + u * F::kPer);
    }
  }
};

// One side of the cache as the kernels are compiled for it; `is` tells whether a KvFormat is this one.
template <class C, int Group = 0, int Span = 1, Order O = Order::natural>
struct KvSide {
  using Codec = C;
  using F = Fields<C>;
  static constexpr int kBits = F::kData + F::kHigh, kGroup = Group, kSpan = Span;
  static constexpr Order kOrder = O;
  static constexpr bool kSealed = Span > 1;
  static constexpr bool kMeta = C::kOffset;                 // f16 {scale, min} pairs in the page
  static constexpr bool kPerChannel = kMeta && Group == 1;  // of a channel and Span tokens
  static constexpr bool kPerToken = kMeta && !kPerChannel;  // of a token and Group channels (0: the head)
  static bool is(const KvFormat& f) { return f.codec == id<C> && f.group == Group && f.span == Span && f.order == O; }
};

// THE list of cache formats with tensor-core kernels (scheme.cpp names them); every other pair is served by the generic
// kernel. A pair costs one instantiation of each kernel and head dimension.
template <class K, class V>
struct KvPair {
  using Key = K;
  using Value = V;
  static constexpr bool kSealed = K::kSealed || V::kSealed;
  static bool is(const KvLayout& layout) { return K::is(layout.k_format) && V::is(layout.v_format); }
};
template <class... Ts>
struct KvPairList {};
using PlainPair = KvPair<KvSide<F16>, KvSide<F16>>;                        // also the open pages of sealed formats
using KvPairs = KvPairList<PlainPair,                                      // kvf16
                           KvPair<KvSide<UInt8O>, KvSide<UInt8O>>,         // kv8
                           KvPair<KvSide<E4M3>, KvSide<E4M3>>,             // kvfp8
                           KvPair<KvSide<UInt8O>, KvSide<UInt4O>>,         // k8v4
                           KvPair<KvSide<UInt4O, 1, 64>, KvSide<UInt4O>>,  // kv4
                           KvPair<KvSide<UInt2O, 1, 32>, KvSide<UInt2O, 32, 1, Order::value_tiles>>,  // kv2
                           KvPair<KvSide<UInt4O>, KvSide<UInt4O>>,                                    // kv4row
                           KvPair<KvSide<UInt3O>, KvSide<UInt3O>>,                                    // kv3row
                           KvPair<KvSide<UInt2O>, KvSide<UInt2O>>>;                                   // kv2row

}  // namespace quire::cuda
