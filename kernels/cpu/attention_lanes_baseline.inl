// What attention needs of 16 lanes beyond lanes_baseline.inl, after which it is included.
QUIRE_INLINE Floats mul(Floats x, Floats y) {
  return each<Floats>([&](int l) { return x.v[l] * y.v[l]; });
}
QUIRE_INLINE Floats add(Floats x, Floats y) {
  return each<Floats>([&](int l) { return x.v[l] + y.v[l]; });
}
QUIRE_INLINE Ints load(const int32_t* p) {
  Ints r;
  memcpy(r.v, p, sizeof r.v);
  return r;
}
QUIRE_INLINE Ints word(uint32_t x) {
  return each<Ints>([&](int) { return int32_t(x); });
}
QUIRE_INLINE Ints words(uint32_t a, uint32_t b) {  // on lanes 0-7 and 8-15
  return each<Ints>([&](int l) { return int32_t(l < 8 ? a : b); });
}
QUIRE_INLINE Ints lane_multiples(int step, int period) {  // (lane mod period) * step
  return each<Ints>([&](int l) { return l % period * step; });
}
QUIRE_INLINE Ints shift_right(Ints x, int by) {
  return each<Ints>([&](int l) { return int32_t(uint32_t(x.v[l]) >> by); });
}
QUIRE_INLINE Ints shift_right(Ints x, Ints by) {
  return each<Ints>([&](int l) { return int32_t(uint32_t(x.v[l]) >> by.v[l]); });
}
QUIRE_INLINE Ints shift_left(Ints x, int by) {
  return each<Ints>([&](int l) { return int32_t(uint32_t(x.v[l]) << by); });
}
QUIRE_INLINE Ints choose(int mask, Ints one, Ints zero) {  // bits of `one` where the mask has ones, else of `zero`
  return each<Ints>([&](int l) { return (one.v[l] & mask) | (zero.v[l] & ~mask); });
}

// The lowest Bits of each lane as a float.
template <int Bits>
QUIRE_INLINE Floats low_field(Ints x) {
  if constexpr (Bits == 0) return e4m3_to_floats(x);
  return each<Floats>([&](int l) { return float(x.v[l] & ((1 << Bits) - 1)); });
}

// 16 rows of 16 bytes as 4 columns of words: lane i of column[w] is word w of row i.
QUIRE_INLINE void word_columns(const uint8_t* in, int64_t pitch, Ints column[4]) {
  for (int i = 0; i < 16; ++i) {
    for (int w = 0; w < 4; ++w) memcpy(&column[w].v[i], in + i * pitch + 4 * w, 4);
  }
}

// Halfs of 32 rows, from words of the even and of the odd ones: the low halfs and the high halfs, in row order.
QUIRE_INLINE void store_halfs(Ints even, Ints odd, uint16_t* low, uint16_t* high) {
  for (int l = 0; l < 16; ++l) {
    low[2 * l] = uint16_t(even.v[l]);
    low[2 * l + 1] = uint16_t(odd.v[l]);
    high[2 * l] = uint16_t(uint32_t(even.v[l]) >> 16);
    high[2 * l + 1] = uint16_t(uint32_t(odd.v[l]) >> 16);
  }
}

// Lane l: half l / 2 of 16 bytes; word l / 2 of 32 bytes.
QUIRE_INLINE Ints twice_halfs(const uint8_t* in) {
  return each<Ints>([&](int l) { return int32_t(in[l / 2 * 2] | in[l / 2 * 2 + 1] << 8); });
}
QUIRE_INLINE Ints twice_words(const uint8_t* in) {
  int32_t w[8];
  memcpy(w, in, sizeof w);
  return each<Ints>([&](int l) { return w[l / 2]; });
}

// f16 pairs on 16 words -> their two halfs as floats.
QUIRE_INLINE void split_pairs(Ints pairs, Floats& first, Floats& second) {
  first = each<Floats>([&](int l) { return f16_to_f32(uint16_t(pairs.v[l])); });
  second = each<Floats>([&](int l) { return f16_to_f32(uint16_t(uint32_t(pairs.v[l]) >> 16)); });
}
QUIRE_INLINE Ints every_second(const uint32_t* p) {  // words 0, 2, .. 30
  return each<Ints>([&](int l) { return int32_t(p[2 * l]); });
}

QUIRE_INLINE Floats larger(Floats x, Floats y) {  // y if either is NaN
  return each<Floats>([&](int l) { return x.v[l] > y.v[l] ? x.v[l] : y.v[l]; });
}
QUIRE_INLINE float largest(Floats x) {
  float peak = x.v[0];
  for (int l = 1; l < 16; ++l) peak = x.v[l] > peak ? x.v[l] : peak;
  return peak;
}
QUIRE_INLINE float lane_sum(Floats x) {
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) x.v[l] += x.v[l + width];
  }
  return x.v[0];
}
QUIRE_INLINE Floats power_of_two(Floats shifted) {  // 2^n for 1.5 * 2^23 + n
  return each<Floats>([&](int l) { return f32_from_bits((f32_bits(shifted.v[l]) + 127) << 23); });
}
QUIRE_INLINE Floats zero_below(Floats x, float limit, Floats value) {  // value, or 0 where x < limit
  return each<Floats>([&](int l) { return x.v[l] < limit ? 0.0f : value.v[l]; });
}
