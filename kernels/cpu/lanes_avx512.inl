// 16 lanes in one register. Included inside a target region and a namespace.
struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};
struct Chunk {  // 64 bytes: 16 rows x 4 fields
  __m512i v;
};
struct Codes {  // 4 codes of x on every lane
  __m512i v;
};
constexpr int kTileM = 8;          // rows of x in a tile
constexpr int kAccumulators = 16;  // that leave registers for the operands

QUIRE_INLINE Floats zero_floats() { return {_mm512_setzero_ps()}; }
QUIRE_INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
QUIRE_INLINE void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
QUIRE_INLINE Floats all(float x) { return {_mm512_set1_ps(x)}; }
QUIRE_INLINE Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
QUIRE_INLINE Floats mul(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
QUIRE_INLINE Floats add(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
QUIRE_INLINE Floats sub(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
QUIRE_INLINE Floats load_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
QUIRE_INLINE Ints load_u16(const void* p) { return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))}; }
QUIRE_INLINE Ints load_u8(const void* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
QUIRE_INLINE Ints load_s8(const void* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }

QUIRE_INLINE Ints zero_ints() { return {_mm512_setzero_si512()}; }
QUIRE_INLINE Ints load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
QUIRE_INLINE void store(int32_t* p, Ints a) { _mm512_storeu_si512(p, a.v); }
QUIRE_INLINE Ints all(int32_t x) { return {_mm512_set1_epi32(x)}; }
QUIRE_INLINE Ints mul(Ints a, Ints b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
QUIRE_INLINE Ints add(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
QUIRE_INLINE Ints sub(Ints a, Ints b) { return {_mm512_sub_epi32(a.v, b.v)}; }
QUIRE_INLINE Ints bit_and(Ints a, Ints b) { return {_mm512_and_si512(a.v, b.v)}; }
QUIRE_INLINE Ints bit_xor(Ints a, Ints b) { return {_mm512_xor_si512(a.v, b.v)}; }
QUIRE_INLINE Ints gather(const uint32_t* table, Ints index) { return {_mm512_i32gather_epi32(index.v, table, 4)}; }
// 16 + the nibble from bit Shift up: it takes the place after the point of 1.n * 2^4.
template <int Shift>
QUIRE_INLINE Floats nibble_on_16(Ints a) {
  const __m512i moved = Shift < 19 ? _mm512_slli_epi32(a.v, Shift < 19 ? 19 - Shift : 0)
                                   : _mm512_srli_epi32(a.v, Shift < 19 ? 0 : Shift - 19);
  return {_mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(moved, _mm512_set1_epi32(15 << 19), _mm512_set1_epi32(0x41800000), 0xea))};
}
QUIRE_INLINE Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
QUIRE_INLINE Floats top_halves(Ints a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16))}; }  // bf16

QUIRE_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
QUIRE_INLINE Chunk load_chunk(const std::byte* p) { return {_mm512_loadu_si512(p)}; }
QUIRE_INLINE Chunk low_nibbles(Chunk c) { return {_mm512_and_si512(c.v, _mm512_set1_epi8(15))}; }
QUIRE_INLINE Chunk high_nibbles(Chunk c) { return {_mm512_and_si512(_mm512_srli_epi16(c.v, 4), _mm512_set1_epi8(15))}; }
// The byte of a table of 16 (once in every 16 bytes of it) that each byte of `index` names.
QUIRE_INLINE Chunk look_up(Chunk table, Chunk index) { return {_mm512_shuffle_epi8(table.v, index.v)}; }
// Bits 4 and 5 of the fields of quad q (0..3) of 16 columns.
QUIRE_INLINE Chunk add_upper(Chunk lower, Chunk upper, int q) {
  const __m512i bits = _mm512_and_si512(_mm512_srl_epi16(upper.v, _mm_cvtsi32_si128(2 * q)), _mm512_set1_epi8(3));
  return {_mm512_or_si512(lower.v, _mm512_slli_epi16(bits, 4))};
}
// Field J of every row.
template <int J>
QUIRE_INLINE Ints field(Chunk c) {
  if (J == 3) return {_mm512_srli_epi32(c.v, 24)};
  return {_mm512_and_si512(J == 0 ? c.v : _mm512_srli_epi32(c.v, 8 * J), _mm512_set1_epi32(255))};
}
// 2^23 + the unsigned field of every row in the bits of Mask from Shift up: (c >> Shift & Mask) | exponent of 2^23.
template <int Shift, int Mask>
QUIRE_INLINE Floats field_on_2_23(Chunk c) {
  const __m512i shifted = Shift == 0 ? c.v : _mm512_srli_epi32(c.v, Shift);
  return {_mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(shifted, _mm512_set1_epi32(Mask), _mm512_set1_epi32(0x4b000000), 0xea))};
}
QUIRE_INLINE Floats small_float(Ints code, const SmallFloat& f) {
  const __m512i sign = _mm512_set1_epi32(1 << (f.bits - 1));
  const __m512i magnitude = _mm512_sll_epi32(_mm512_andnot_si512(sign, code.v), _mm_cvtsi32_si128(23 - f.mantissa));
  const __m512i top = _mm512_sll_epi32(_mm512_and_si512(sign, code.v), _mm_cvtsi32_si128(32 - f.bits));
  const __m512 value = _mm512_mul_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(f.power));
  return {_mm512_or_ps(value, _mm512_castsi512_ps(top))};
}
// Entry `index` (0..15) of a table.
QUIRE_INLINE Floats look_up(Floats table, Ints index) { return {_mm512_permutexvar_ps(index.v, table.v)}; }
template <bool Small>
QUIRE_INLINE Codes load_codes(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return {_mm512_set1_epi32(four)};
}
// acc += the 4 products of every row, exactly. Small: fields of at most 4 bits.
template <bool Small>
QUIRE_INLINE Ints dot(Ints acc, Chunk w, Codes x) {
  return {_mm512_dpbusd_epi32(acc.v, w.v, x.v)};
}
template <int Shift>
QUIRE_INLINE Ints shift_left(Ints x) {
  return {_mm512_slli_epi32(x.v, Shift)};
}
template <int Shift>
QUIRE_INLINE Ints shift_right(Ints x) {
  return {_mm512_srli_epi32(x.v, Shift)};
}
QUIRE_INLINE Ints either(Ints a, Ints b) { return {_mm512_or_si512(a.v, b.v)}; }
// Bits 2i and 2i + 1 in lane i.
QUIRE_INLINE Ints bit_pairs(uint32_t word) {
  const __m512i by = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return bit_and({_mm512_srlv_epi32(_mm512_set1_epi32(int(word)), by)}, all(3));
}
QUIRE_INLINE Floats all_f16(uint16_t x) { return {_mm512_cvtph_ps(_mm256_set1_epi16(short(x)))}; }
QUIRE_INLINE Floats round_to_f16(Floats x) {
  return {_mm512_cvtph_ps(_mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))};
}
QUIRE_INLINE Ints bits(Ints x, int shift, int mask) {
  return {_mm512_and_si512(_mm512_srl_epi32(x.v, _mm_cvtsi32_si128(shift)), _mm512_set1_epi32(mask))};
}
// Magnitude bits moved under f32's exponent. Subnormals apart: the same bits of f32 would be subnormal too, slow to
// use.
QUIRE_INLINE Floats e4m3_to_floats(Ints x) {
  const __m512i magnitude = _mm512_and_si512(x.v, _mm512_set1_epi32(0x7f));
  const __m512i normal = _mm512_add_epi32(_mm512_slli_epi32(magnitude, 20), _mm512_set1_epi32(120 << 23));
  const __mmask16 tiny = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(8));
  const __m512 value =
      _mm512_mask_mul_ps(_mm512_castsi512_ps(normal), tiny, _mm512_cvtepi32_ps(magnitude), _mm512_set1_ps(0x1p-9f));
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32(0x7fffffff), _mm512_castps_si512(value),
                                                        _mm512_slli_epi32(x.v, 24), 0xca))};
}
