// What attention needs of 16 lanes beyond lanes_avx2.inl, after which it is included.
QUIRE_INLINE Ints word(uint32_t x) { return all(int32_t(x)); }
QUIRE_INLINE Ints words(uint32_t a, uint32_t b) {  // on lanes 0-7 and 8-15
  return {_mm256_set1_epi32(int(a)), _mm256_set1_epi32(int(b))};
}
QUIRE_INLINE Ints lane_multiples(int step, int period) {  // (lane mod period) * step
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), by = _mm256_set1_epi32(step);
  const __m256i mask = _mm256_set1_epi32(period - 1), upper = _mm256_add_epi32(lane, _mm256_set1_epi32(8));
  return {_mm256_mullo_epi32(_mm256_and_si256(lane, mask), by), _mm256_mullo_epi32(_mm256_and_si256(upper, mask), by)};
}
QUIRE_INLINE Ints shift_right(Ints x, int by) { return {_mm256_srli_epi32(x.a, by), _mm256_srli_epi32(x.b, by)}; }
QUIRE_INLINE Ints shift_right(Ints x, Ints by) { return {_mm256_srlv_epi32(x.a, by.a), _mm256_srlv_epi32(x.b, by.b)}; }
QUIRE_INLINE Ints shift_left(Ints x, int by) { return {_mm256_slli_epi32(x.a, by), _mm256_slli_epi32(x.b, by)}; }
QUIRE_INLINE Ints choose(int mask, Ints one, Ints zero) {  // bits of `one` where the mask has ones, else of `zero`
  const __m256i m = _mm256_set1_epi32(mask);
  return {_mm256_or_si256(_mm256_and_si256(m, one.a), _mm256_andnot_si256(m, zero.a)),
          _mm256_or_si256(_mm256_and_si256(m, one.b), _mm256_andnot_si256(m, zero.b))};
}

// The lowest Bits of each lane as a float.
template <int Bits>
QUIRE_INLINE Floats low_field(Ints x) {
  if constexpr (Bits == 0) return e4m3_to_floats(x);
  const __m256i mask = _mm256_set1_epi32((1 << Bits) - 1);
  return to_floats(Ints{_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)});
}

QUIRE_INLINE __m256i two_rows(const uint8_t* first, const uint8_t* second) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(first, 0)), load_half(second, 0), 1);
}
// 8 rows of 16 bytes as 4 columns of words.
QUIRE_INLINE void word_columns_8(const uint8_t* in, int64_t pitch, __m256i column[4]) {
  __m256i row[4];
  QUIRE_UNROLL
  for (int i = 0; i < 4; ++i) row[i] = two_rows(in + i * pitch, in + (i + 4) * pitch);
  const __m256i a = _mm256_unpacklo_epi32(row[0], row[1]), b = _mm256_unpackhi_epi32(row[0], row[1]);
  const __m256i c = _mm256_unpacklo_epi32(row[2], row[3]), d = _mm256_unpackhi_epi32(row[2], row[3]);
  column[0] = _mm256_unpacklo_epi64(a, c);
  column[1] = _mm256_unpackhi_epi64(a, c);
  column[2] = _mm256_unpacklo_epi64(b, d);
  column[3] = _mm256_unpackhi_epi64(b, d);
}
// 16 rows of 16 bytes as 4 columns of words: lane i of column[w] is word w of row i.
QUIRE_INLINE void word_columns(const uint8_t* in, int64_t pitch, Ints column[4]) {
  __m256i a[4], b[4];
  word_columns_8(in, pitch, a);
  word_columns_8(in + 8 * pitch, pitch, b);
  QUIRE_UNROLL
  for (int i = 0; i < 4; ++i) column[i] = {a[i], b[i]};
}

// Halfs of 32 rows, from words of the even and of the odd ones: the low halfs and the high halfs, in row order.
QUIRE_INLINE void store_halfs(Ints even, Ints odd, uint16_t* low, uint16_t* high) {
  __m256i* l = (__m256i*)low;
  __m256i* h = (__m256i*)high;
  _mm256_storeu_si256(l, _mm256_blend_epi16(even.a, _mm256_slli_epi32(odd.a, 16), 0xaa));
  _mm256_storeu_si256(l + 1, _mm256_blend_epi16(even.b, _mm256_slli_epi32(odd.b, 16), 0xaa));
  _mm256_storeu_si256(h, _mm256_blend_epi16(_mm256_srli_epi32(even.a, 16), odd.a, 0xaa));
  _mm256_storeu_si256(h + 1, _mm256_blend_epi16(_mm256_srli_epi32(even.b, 16), odd.b, 0xaa));
}

// Lane l: half l / 2 of 16 bytes; word l / 2 of 32 bytes.
QUIRE_INLINE Ints twice_words(const uint8_t* in) {
  const __m256i x = _mm256_loadu_si256((const __m256i*)in);
  return {_mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
          _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
}
QUIRE_INLINE Ints twice_halfs(const uint8_t* in) {
  const __m256i x = _mm256_cvtepu16_epi32(load_half(in, 0));
  return {_mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
          _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
}

// f16 pairs on 16 words -> their two halfs as floats.
QUIRE_INLINE __m256 halfs_to_floats(__m256i words) {  // of the low halfs; the high ones are 0
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
QUIRE_INLINE void split_pairs(Ints pairs, Floats& first, Floats& second) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  first = {halfs_to_floats(_mm256_and_si256(pairs.a, mask)), halfs_to_floats(_mm256_and_si256(pairs.b, mask))};
  second = {halfs_to_floats(_mm256_srli_epi32(pairs.a, 16)), halfs_to_floats(_mm256_srli_epi32(pairs.b, 16))};
}
QUIRE_INLINE __m256i every_second_8(const uint32_t* p) {
  const __m256 x = _mm256_loadu_ps((const float*)p), y = _mm256_loadu_ps((const float*)p + 7);  // it may end at 14
  return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xd8)), 0xd8);
}
QUIRE_INLINE Ints every_second(const uint32_t* p) { return {every_second_8(p), every_second_8(p + 16)}; }

QUIRE_INLINE Floats larger(Floats x, Floats y) {  // y if either is NaN
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
QUIRE_INLINE float largest(Floats x) {
  const __m256 a = _mm256_max_ps(x.a, x.b);
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
QUIRE_INLINE float lane_sum(Floats x) {
  const __m256 a = _mm256_add_ps(x.a, x.b);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
QUIRE_INLINE __m256 power_of_two_8(__m256 shifted) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127)), 23));
}
QUIRE_INLINE Floats power_of_two(Floats shifted) {  // 2^n for 1.5 * 2^23 + n
  return {power_of_two_8(shifted.a), power_of_two_8(shifted.b)};
}
QUIRE_INLINE Floats zero_below(Floats x, float limit, Floats value) {  // value, or 0 where x < limit
  const __m256 least = _mm256_set1_ps(limit);
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, least, _CMP_NLT_UQ), value.a),
          _mm256_and_ps(_mm256_cmp_ps(x.b, least, _CMP_NLT_UQ), value.b)};
}
