// Panels of E8 codes to f32 [k][16], with the codec's own arithmetic. Included inside a target region and a namespace.

// 16 vectors of a book: coordinate i of each as 0.5 * (16 + nibble) + offset.
struct E8Vectors {
  Ints words;
  Floats offset;
};

QUIRE_INLINE E8Vectors load_e8p(const std::byte* codes, const uint32_t* book) {
  const Ints code = load_u16(codes);
  Ints signs = bit_and(code, all(255)), odd = bit_xor(signs, shift_right<4>(signs));
  odd = bit_xor(odd, shift_right<2>(odd));
  odd = bit_and(bit_xor(odd, shift_right<1>(odd)), all(1));
  signs = bit_xor(signs, odd);
  signs = bit_and(either(signs, shift_left<12>(signs)), all(0x000f000f));  // bit u to bit 4 u
  signs = bit_and(either(signs, shift_left<6>(signs)), all(0x03030303));
  signs = bit_and(either(signs, shift_left<3>(signs)), all(0x11111111));
  const Ints turned = either(either(shift_left<1>(signs), shift_left<2>(signs)), shift_left<3>(signs));  // 14 * signs
  return {bit_xor(gather(book, shift_right<8>(code)), turned), fma(to_floats(odd), all(-0.5f), all(-11.75f))};
}

template <int Second>
QUIRE_INLINE E8Vectors load_second(const std::byte* codes, const uint32_t* book) {
  if (Second == 2) return load_e8p(codes, book);
  return {gather(book, load_u8(codes)), all(-12.0f)};
}

template <int I>
QUIRE_INLINE Floats e8_coordinate(const E8Vectors& v) {
  return fma(nibble_on_16<e8_shift(I)>(v.words), all(0.5f), v.offset);
}

template <int Second, int I>
QUIRE_INLINE void store_e8(const E8Vectors& first, const E8Vectors& second, Floats factor, float* out) {
  Floats value = e8_coordinate<I>(first);
  if (Second > 0) value = add(value, mul(factor, e8_coordinate<I>(second)));
  store(out + I * kPanel, value);
}

template <int Second>
void decode_e8_blocks(const E8Panels& s, const std::byte* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  const uint32_t *book = s.first_book, *second_book = s.second_book;
  float factor = 0.0f;
  if (Second > 0) memcpy(&factor, panel + s.factor_at, sizeof factor);
  const Floats factors = all(factor);
  const std::byte* block = panel + k0 / 8 * s.block_bytes;
  for (int64_t k = k0; k < k1; k += 8, block += s.block_bytes, out += 8 * kPanel) {
    prefetch(block + ahead);
    const E8Vectors first = load_e8p(block, book);
    E8Vectors second = first;
    if (Second > 0) second = load_second<Second>(block + 2 * kPanel, second_book);
    store_e8<Second, 0>(first, second, factors, out);
    store_e8<Second, 1>(first, second, factors, out);
    store_e8<Second, 2>(first, second, factors, out);
    store_e8<Second, 3>(first, second, factors, out);
    store_e8<Second, 4>(first, second, factors, out);
    store_e8<Second, 5>(first, second, factors, out);
    store_e8<Second, 6>(first, second, factors, out);
    store_e8<Second, 7>(first, second, factors, out);
  }
}

void decode_e8(const E8Panels& s, const std::byte* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  if (s.second == 0) return decode_e8_blocks<0>(s, panel, k0, k1, ahead, out);
  if (s.second == 1) return decode_e8_blocks<1>(s, panel, k0, k1, ahead, out);
  decode_e8_blocks<2>(s, panel, k0, k1, ahead, out);
}
