// 16 lanes in two registers. Included inside a target region and a namespace.
struct Floats {
  __m256 a, b;
};
struct Ints {
  __m256i a, b;
};
struct Chunk {  // 64 bytes: 16 rows x 4 fields
  __m256i a, b;
};
struct Codes {  // 4 codes of x on every lane: as bytes, or as words (0, 2) and (1, 3)
  __m256i even, odd;
};
constexpr int kTileM = 6;         // rows of x in a tile
constexpr int kAccumulators = 6;  // pairs of registers that leave some for the operands

QUIRE_INLINE Floats zero_floats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
QUIRE_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
QUIRE_INLINE void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
QUIRE_INLINE Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
QUIRE_INLINE Floats fma(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
QUIRE_INLINE Floats mul(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
QUIRE_INLINE Floats add(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
QUIRE_INLINE Floats sub(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
QUIRE_INLINE __m128i load_half(const void* p, int i) { return _mm_loadu_si128((const __m128i*)p + i); }
QUIRE_INLINE __m128i load_quarter(const void* p, int i) {
  return _mm_loadl_epi64((const __m128i*)((const char*)p + 8 * i));
}
QUIRE_INLINE Floats load_f16(const void* p) {
  return {_mm256_cvtph_ps(load_half(p, 0)), _mm256_cvtph_ps(load_half(p, 1))};
}
QUIRE_INLINE Ints load_u16(const void* p) {
  return {_mm256_cvtepu16_epi32(load_half(p, 0)), _mm256_cvtepu16_epi32(load_half(p, 1))};
}
QUIRE_INLINE Ints load_u8(const void* p) {
  return {_mm256_cvtepu8_epi32(load_quarter(p, 0)), _mm256_cvtepu8_epi32(load_quarter(p, 1))};
}
QUIRE_INLINE Ints load_s8(const void* p) {
  return {_mm256_cvtepi8_epi32(load_quarter(p, 0)), _mm256_cvtepi8_epi32(load_quarter(p, 1))};
}

QUIRE_INLINE Ints zero_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
QUIRE_INLINE Ints load(const int32_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
QUIRE_INLINE void store(int32_t* p, Ints x) {
  _mm256_storeu_si256((__m256i*)p, x.a);
  _mm256_storeu_si256((__m256i*)p + 1, x.b);
}
QUIRE_INLINE Ints all(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
QUIRE_INLINE Ints mul(Ints x, Ints y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
QUIRE_INLINE Ints add(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
QUIRE_INLINE Ints sub(Ints x, Ints y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
QUIRE_INLINE Ints bit_and(Ints x, Ints y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
QUIRE_INLINE Ints bit_xor(Ints x, Ints y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
QUIRE_INLINE Ints gather(const uint32_t* table, Ints index) {
  const int* from = reinterpret_cast<const int*>(table);
  return {_mm256_i32gather_epi32(from, index.a, 4), _mm256_i32gather_epi32(from, index.b, 4)};
}
// 16 + the nibble from bit Shift up: it takes the place after the point of 1.n * 2^4.
template <int Shift>
QUIRE_INLINE __m256 nibble_on_16(__m256i x) {
  const __m256i moved = Shift < 19 ? _mm256_slli_epi32(x, Shift < 19 ? 19 - Shift : 0)
                                   : _mm256_srli_epi32(x, Shift < 19 ? 0 : Shift - 19);
  const __m256i nibble = _mm256_and_si256(moved, _mm256_set1_epi32(15 << 19));
  return _mm256_castsi256_ps(_mm256_or_si256(nibble, _mm256_set1_epi32(0x41800000)));
}
template <int Shift>
QUIRE_INLINE Floats nibble_on_16(Ints x) {
  return {nibble_on_16<Shift>(x.a), nibble_on_16<Shift>(x.b)};
}
QUIRE_INLINE Floats to_floats(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
QUIRE_INLINE Floats top_halves(Ints x) {  // bf16
  return {_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 16))};
}

QUIRE_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
QUIRE_INLINE Chunk load_chunk(const std::byte* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
QUIRE_INLINE Chunk low_nibbles(Chunk c) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(c.a, mask), _mm256_and_si256(c.b, mask)};
}
QUIRE_INLINE Chunk high_nibbles(Chunk c) { return low_nibbles({_mm256_srli_epi16(c.a, 4), _mm256_srli_epi16(c.b, 4)}); }
// The byte of a table of 16 (once in every 16 bytes of it) that each byte of `index` names.
QUIRE_INLINE Chunk look_up(Chunk table, Chunk index) {
  return {_mm256_shuffle_epi8(table.a, index.a), _mm256_shuffle_epi8(table.b, index.b)};
}
// Bits 4 and 5 of the fields of quad q (0..3) of 16 columns.
QUIRE_INLINE __m256i add_upper(__m256i lower, __m256i upper, int q) {
  const __m256i bits = _mm256_and_si256(_mm256_srl_epi16(upper, _mm_cvtsi32_si128(2 * q)), _mm256_set1_epi8(3));
  return _mm256_or_si256(lower, _mm256_slli_epi16(bits, 4));
}
QUIRE_INLINE Chunk add_upper(Chunk lower, Chunk upper, int q) {
  return {add_upper(lower.a, upper.a, q), add_upper(lower.b, upper.b, q)};
}
// Field J of every row.
template <int J>
QUIRE_INLINE Ints field(Chunk c) {
  const __m256i mask = _mm256_set1_epi32(255);
  return {_mm256_and_si256(_mm256_srli_epi32(c.a, 8 * J), mask), _mm256_and_si256(_mm256_srli_epi32(c.b, 8 * J), mask)};
}
// 2^23 + the unsigned field of every row in the bits of Mask from Shift up.
template <int Shift, int Mask>
QUIRE_INLINE __m256 field_on_2_23(__m256i c) {
  const __m256i field = _mm256_and_si256(_mm256_srli_epi32(c, Shift), _mm256_set1_epi32(Mask));
  return _mm256_castsi256_ps(_mm256_or_si256(field, _mm256_set1_epi32(0x4b000000)));
}
template <int Shift, int Mask>
QUIRE_INLINE Floats field_on_2_23(Chunk c) {
  return {field_on_2_23<Shift, Mask>(c.a), field_on_2_23<Shift, Mask>(c.b)};
}
QUIRE_INLINE __m256 small_float(__m256i code, const SmallFloat& f) {
  const __m256i sign = _mm256_set1_epi32(1 << (f.bits - 1));
  const __m256i magnitude = _mm256_sll_epi32(_mm256_andnot_si256(sign, code), _mm_cvtsi32_si128(23 - f.mantissa));
  const __m256i top = _mm256_sll_epi32(_mm256_and_si256(sign, code), _mm_cvtsi32_si128(32 - f.bits));
  const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(f.power));
  return _mm256_or_ps(value, _mm256_castsi256_ps(top));
}
QUIRE_INLINE Floats small_float(Ints code, const SmallFloat& f) {
  return {small_float(code.a, f), small_float(code.b, f)};
}
// Entry `index` (0..15) of a table: of its lower or upper half, by bit 3.
QUIRE_INLINE __m256 look_up(Floats table, __m256i index) {
  const __m256 lower = _mm256_permutevar8x32_ps(table.a, index), upper = _mm256_permutevar8x32_ps(table.b, index);
  return _mm256_blendv_ps(lower, upper, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
QUIRE_INLINE Floats look_up(Floats table, Ints index) { return {look_up(table, index.a), look_up(table, index.b)}; }
template <bool Small>
QUIRE_INLINE Codes load_codes(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  const __m256i x = _mm256_set1_epi32(four);
  if (Small) return {x, x};
  return {_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
}
// 4 products a row, exactly. vpmaddubsw saturates at 2^15: only fields of at most 4 bits (15 * 128 * 2) may take it.
template <bool Small>
QUIRE_INLINE __m256i dot(__m256i acc, __m256i w, Codes x) {
  if (Small) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x.even), _mm256_set1_epi16(1)));
  }
  const __m256i even = _mm256_and_si256(w, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(w, 8);
  return _mm256_add_epi32(_mm256_add_epi32(acc, _mm256_madd_epi16(even, x.even)), _mm256_madd_epi16(odd, x.odd));
}
template <bool Small>
QUIRE_INLINE Ints dot(Ints acc, Chunk w, Codes x) {
  return {dot<Small>(acc.a, w.a, x), dot<Small>(acc.b, w.b, x)};
}
template <int Shift>
QUIRE_INLINE Ints shift_left(Ints x) {
  return {_mm256_slli_epi32(x.a, Shift), _mm256_slli_epi32(x.b, Shift)};
}
template <int Shift>
QUIRE_INLINE Ints shift_right(Ints x) {
  return {_mm256_srli_epi32(x.a, Shift), _mm256_srli_epi32(x.b, Shift)};
}
QUIRE_INLINE Ints either(Ints x, Ints y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
// Bits 2i and 2i + 1 in lane i.
QUIRE_INLINE Ints bit_pairs(uint32_t word) {
  const __m256i x = _mm256_set1_epi32(int(word)), by = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
  const __m256i high = _mm256_add_epi32(by, _mm256_set1_epi32(16));
  return bit_and({_mm256_srlv_epi32(x, by), _mm256_srlv_epi32(x, high)}, all(3));
}
QUIRE_INLINE Floats all_f16(uint16_t x) {
  const __m256 value = _mm256_cvtph_ps(_mm_set1_epi16(short(x)));
  return {value, value};
}
QUIRE_INLINE __m256 round_to_f16(__m256 x) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
QUIRE_INLINE Floats round_to_f16(Floats x) { return {round_to_f16(x.a), round_to_f16(x.b)}; }
QUIRE_INLINE Ints bits(Ints x, int shift, int mask) {
  const __m128i by = _mm_cvtsi32_si128(shift);
  const __m256i keep = _mm256_set1_epi32(mask);
  return {_mm256_and_si256(_mm256_srl_epi32(x.a, by), keep), _mm256_and_si256(_mm256_srl_epi32(x.b, by), keep)};
}
// Magnitude bits moved under f32's exponent. Subnormals apart: the same bits of f32 would be subnormal too, slow to
// use.
QUIRE_INLINE __m256 e4m3_to_floats(__m256i x) {
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x80)), 24);
  const __m256i magnitude = _mm256_and_si256(x, _mm256_set1_epi32(0x7f));
  const __m256i normal = _mm256_add_epi32(_mm256_slli_epi32(magnitude, 20), _mm256_set1_epi32(120 << 23));
  const __m256 small = _mm256_mul_ps(_mm256_cvtepi32_ps(magnitude), _mm256_set1_ps(0x1p-9f));
  const __m256i tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), magnitude);
  const __m256 value = _mm256_blendv_ps(_mm256_castsi256_ps(normal), small, _mm256_castsi256_ps(tiny));
  return _mm256_or_ps(value, _mm256_castsi256_ps(sign));
}
QUIRE_INLINE Floats e4m3_to_floats(Ints x) { return {e4m3_to_floats(x.a), e4m3_to_floats(x.b)}; }
