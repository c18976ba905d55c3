// What attention needs of 16 lanes beyond lanes_avx512.inl, after which it is included.
QUIRE_INLINE Ints word(uint32_t x) { return {_mm512_set1_epi32(int(x))}; }
QUIRE_INLINE Ints words(uint32_t a, uint32_t b) {  // on lanes 0-7 and 8-15
  return {_mm512_mask_set1_epi32(_mm512_set1_epi32(int(a)), 0xff00, int(b))};
}
QUIRE_INLINE Ints lane_multiples(int step, int period) {  // (lane mod period) * step
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_mullo_epi32(_mm512_and_si512(lane, _mm512_set1_epi32(period - 1)), _mm512_set1_epi32(step))};
}
QUIRE_INLINE Ints shift_right(Ints x, int by) { return {_mm512_srli_epi32(x.v, unsigned(by))}; }
QUIRE_INLINE Ints shift_right(Ints x, Ints by) { return {_mm512_srlv_epi32(x.v, by.v)}; }
QUIRE_INLINE Ints shift_left(Ints x, int by) { return {_mm512_slli_epi32(x.v, unsigned(by))}; }
QUIRE_INLINE Ints choose(int mask, Ints one, Ints zero) {  // bits of `one` where the mask has ones, else of `zero`
  return {_mm512_ternarylogic_epi32(_mm512_set1_epi32(mask), one.v, zero.v, 0xca)};
}

// The lowest Bits of each lane as a float. The table look-up sees 4 bits, so fewer need a table that repeats.
template <int Bits>
QUIRE_INLINE Floats low_field(Ints x) {
  if constexpr (Bits == 0) return e4m3_to_floats(x);
  if constexpr (Bits == 8) return {_mm512_cvtepi32_ps(_mm512_and_si512(x.v, _mm512_set1_epi32(255)))};
  constexpr int kMask = (1 << Bits) - 1;
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 table = _mm512_cvtepi32_ps(_mm512_and_si512(lane, _mm512_set1_epi32(kMask)));
  return {_mm512_permutexvar_ps(x.v, table)};
}

// 16 rows of 16 bytes as 4 columns of words: lane i of column[w] is word w of row i.
QUIRE_INLINE void word_columns(const uint8_t* in, int64_t pitch, Ints column[4]) {
  __m512i row[4];
  QUIRE_UNROLL
  for (int i = 0; i < 4; ++i) {  // rows i, i + 4, i + 8, i + 12
    const uint8_t* p = in + i * pitch;
    row[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)p));
    row[i] = _mm512_inserti32x4(row[i], _mm_loadu_si128((const __m128i*)(p + 4 * pitch)), 1);
    row[i] = _mm512_inserti32x4(row[i], _mm_loadu_si128((const __m128i*)(p + 8 * pitch)), 2);
    row[i] = _mm512_inserti32x4(row[i], _mm_loadu_si128((const __m128i*)(p + 12 * pitch)), 3);
  }
  const __m512i a = _mm512_unpacklo_epi32(row[0], row[1]), b = _mm512_unpackhi_epi32(row[0], row[1]);
  const __m512i c = _mm512_unpacklo_epi32(row[2], row[3]), d = _mm512_unpackhi_epi32(row[2], row[3]);
  column[0] = {_mm512_unpacklo_epi64(a, c)};
  column[1] = {_mm512_unpackhi_epi64(a, c)};
  column[2] = {_mm512_unpacklo_epi64(b, d)};
  column[3] = {_mm512_unpackhi_epi64(b, d)};
}

// Halfs of 32 rows, from words of the even and of the odd ones: the low halfs and the high halfs, in row order.
QUIRE_INLINE void store_halfs(Ints even, Ints odd, uint16_t* low, uint16_t* high) {
  constexpr __mmask32 kOdd = 0xaaaaaaaa;
  _mm512_storeu_si512(low, _mm512_mask_blend_epi16(kOdd, even.v, _mm512_slli_epi32(odd.v, 16)));
  _mm512_storeu_si512(high, _mm512_mask_blend_epi16(kOdd, _mm512_srli_epi32(even.v, 16), odd.v));
}

// Lane l: half l / 2 of 16 bytes; word l / 2 of 32 bytes.
QUIRE_INLINE Ints twice_halfs(const uint8_t* in) {
  const __m512i x = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)in));
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i bytes = _mm512_mullo_epi32(_mm512_srli_epi32(lane, 1), _mm512_set1_epi32(0x0202));
  const __m512i place = _mm512_add_epi32(bytes, _mm512_set1_epi32(int(0x80800100)));  // 0x80: a zero
  return {_mm512_shuffle_epi8(x, place)};
}
QUIRE_INLINE Ints twice_words(const uint8_t* in) {
  const __m512i x = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)in));
  return {_mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), x)};
}

// f16 pairs on 16 words -> their two halfs as floats.
QUIRE_INLINE void split_pairs(Ints pairs, Floats& first, Floats& second) {
  first = {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs.v))};
  second = {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs.v, 16)))};
}
QUIRE_INLINE Ints every_second(const uint32_t* p) {  // words 0, 2, .. 30; the memory may end there
  const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
  return {_mm512_permutex2var_epi32(_mm512_loadu_si512(p), index, _mm512_loadu_si512(p + 15))};
}

QUIRE_INLINE Floats larger(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }  // b if either is NaN
QUIRE_INLINE float largest(Floats x) { return _mm512_reduce_max_ps(x.v); }
QUIRE_INLINE float lane_sum(Floats x) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
QUIRE_INLINE Floats power_of_two(Floats shifted) {  // 2^n for 1.5 * 2^23 + n
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(shifted.v), _mm512_set1_epi32(127)), 23))};
}
QUIRE_INLINE Floats zero_below(Floats x, float limit, Floats value) {  // value, or 0 where x < limit
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), value.v)};
}
