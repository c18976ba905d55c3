// The codes of a page part as floats. Included inside a target region and a namespace, after the lanes.
//   keys    [64 / 16][C][16 tokens]    channels are walked one after the other, tokens lie on the lanes
//   values  [64][C]                    tokens are walked, channels lie on the lanes
// Whole sixteens of tokens are unpacked: those past the ones asked for are finite, as all of a page is.

constexpr int64_t kP = kPageTokens;

void key_panels_f16(const Tensor& k, int64_t n, float* out) {
  const uint8_t* data = k.data.row<const uint8_t>(0);
  const int64_t pitch = k.data.pitch;
  for (int64_t i = 0; i < n; i += 32, out += 32 * k.cols) {
    for (int64_t c = 0; c < k.cols; c += 8) {
      const uint8_t* in = data + i * pitch + 2 * c;
      Ints even[4], odd[4];
      word_columns(in, 2 * pitch, even);
      word_columns(in + pitch, 2 * pitch, odd);
      uint16_t halfs[8 * 32];
      QUIRE_UNROLL
      for (int w = 0; w < 4; ++w) store_halfs(even[w], odd[w], halfs + 64 * w, halfs + 64 * w + 32);
      QUIRE_UNROLL
      for (int j = 0; j < 8; ++j) {
        store(out + (c + j) * 16, load_f16(halfs + 32 * j));
        store(out + (k.cols + c + j) * 16, load_f16(halfs + 32 * j + 16));
      }
    }
  }
}

// Unsigned fields of Bits, or e4m3 (0). A row is whole 16-byte pieces.
template <int Bits>
void key_panels_fields(const Tensor& k, int64_t n, float* out) {
  constexpr int kBits = Bits == 0 ? 8 : Bits;
  const uint8_t* data = k.data.row<const uint8_t>(0);
  const int64_t pitch = k.data.pitch, row_bytes = k.cols * kBits / 8;
  for (int64_t i = 0; i < n; i += 16) {
    for (int64_t b = 0; b < row_bytes; b += 16) {
      Ints column[4];
      word_columns(data + i * pitch + b, pitch, column);
      QUIRE_UNROLL
      for (int w = 0; w < 4; ++w) {
        QUIRE_UNROLL
        for (int f = 0; f < 32 / kBits; ++f, out += 16) store(out, low_field<Bits>(shift_right(column[w], kBits * f)));
      }
    }
  }
}

// 3 bits: 16 bytes of the low plane go with 8 of the high one (16 are read; what follows them is of the same block).
void key_panels_3(const Tensor& k, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    for (int64_t c = 0; c < k.cols; c += 64) {
      Ints low[4], high[4];
      word_columns(k.data.row<const uint8_t>(i) + c / 4, k.data.pitch, low);
      word_columns(k.high.row<const uint8_t>(i) + c / 8, k.high.pitch, high);
      QUIRE_UNROLL
      for (int w = 0; w < 4; ++w) {
        QUIRE_UNROLL
        for (int f = 0; f < 16; ++f, out += 16) {
          const int bit = 16 * (w % 2) + f;
          const Ints top = bit < 2 ? shift_left(high[w / 2], 2 - bit) : shift_right(high[w / 2], bit - 2);
          store(out, low_field<3>(choose(3, shift_right(low[w], 2 * f), top)));
        }
      }
    }
  }
}

void key_panels_any(const Tensor& k, int64_t n, float* out) {
  const CodecInfo& codec = info(k.codec);
  float row[kMaxHeadDim];
  for (int64_t i = 0; i < (n + 15) / 16 * 16; ++i) {
    codec.values(k, i, 0, k.cols, row);
    float* panel = out + i / 16 * k.cols * 16 + i % 16;
    for (int64_t c = 0; c < k.cols; ++c) panel[c * 16] = row[c];
  }
}

void key_panels(const Tensor& k, int64_t n, float* out) {
  const bool plain = k.order == Order::natural && k.data.rows == 1;
  if (k.codec == id<F16> && plain) return key_panels_f16(k, n, out);
  if (k.codec == id<E4M3> && plain) return key_panels_fields<0>(k, n, out);
  if (k.codec == id<UInt8O> && plain) return key_panels_fields<8>(k, n, out);
  if (k.codec == id<UInt4O> && plain && k.cols % 32 == 0) return key_panels_fields<4>(k, n, out);
  if (k.codec == id<UInt3O> && plain && k.cols % 64 == 0) return key_panels_3(k, n, out);
  if (k.codec == id<UInt2O> && plain && k.cols % 64 == 0) return key_panels_fields<2>(k, n, out);
  key_panels_any(k, n, out);
}

QUIRE_INLINE uint32_t load_word(const uint8_t* p) {
  uint32_t w;
  memcpy(&w, p, 4);
  return w;
}

// 16 channels, from column c of a row on.
template <int Bits>
QUIRE_INLINE Floats value_fields(const uint8_t* in, const uint8_t* high, int64_t c, Ints shift) {
  if constexpr (Bits == 16) return load_f16(in + 2 * c);
  if constexpr (Bits == 8 || Bits == 0) return Bits == 0 ? e4m3_to_floats(load_u8(in + c)) : to_floats(load_u8(in + c));
  if constexpr (Bits == 4) {
    return low_field<4>(shift_right(words(load_word(in + c / 2), load_word(in + c / 2 + 4)), shift));
  }
  const Ints low = shift_right(word(load_word(in + c / 4)), shift);
  if constexpr (Bits == 2) return low_field<2>(low);
  uint16_t top;
  memcpy(&top, high + c / 8, 2);
  return low_field<3>(choose(3, low, shift_right(word(uint32_t(top) << 2), lane_multiples(1, 16))));
}

// Rows are walked by their pitch: Plane::row would divide for each.
template <int Bits>
void value_rows_natural(const Tensor& v, int64_t n, float* out) {
  const Ints shift = Bits == 4 ? lane_multiples(4, 8) : lane_multiples(2, 16);
  const uint8_t* in = v.data.row<const uint8_t>(0);
  const uint8_t* high = v.high.row<const uint8_t>(0);
  const int64_t channels = v.cols, pitch = v.data.pitch, high_pitch = v.high.pitch;
  for (int64_t i = 0; i < n; ++i, in += pitch, high += high_pitch) {
    for (int64_t c = 0; c < channels; c += 16, out += 16) store(out, value_fields<Bits>(in, high, c, shift));
  }
}

// Order::value_tiles: channel 16j + 2g + e lies at place g * C/8 + 2j + e: lanes 2g and 2g + 1 read from the g-th
// eighth of the row, 16 bits of it for 64 channels of 2 bits, 32 for 128.
template <int Eighth>
void value_rows_tiles_2(const Tensor& v, int64_t n, float* out) {
  const Ints odd = lane_multiples(2, 2);
  const uint8_t* in = v.data.row<const uint8_t>(0);
  for (int64_t i = 0; i < n; ++i, in += v.data.pitch) {
    const Ints x = shift_right(Eighth == 16 ? twice_halfs(in) : twice_words(in), odd);
    QUIRE_UNROLL
    for (int j = 0; j < Eighth / 4; ++j, out += 16) store(out, low_field<2>(shift_right(x, 4 * j)));
  }
}

void value_rows(const Tensor& v, int64_t n, float* out) {
  const bool natural = v.order == Order::natural, tiles = v.order == Order::value_tiles;
  if (v.codec == id<F16> && natural) return value_rows_natural<16>(v, n, out);
  if (v.codec == id<E4M3> && natural) return value_rows_natural<0>(v, n, out);
  if (v.codec == id<UInt8O> && natural) return value_rows_natural<8>(v, n, out);
  if (v.codec == id<UInt4O> && natural) return value_rows_natural<4>(v, n, out);
  if (v.codec == id<UInt3O> && natural) return value_rows_natural<3>(v, n, out);
  if (v.codec == id<UInt2O> && natural) return value_rows_natural<2>(v, n, out);
  if (v.codec == id<UInt2O> && tiles && v.cols == 64) return value_rows_tiles_2<16>(v, n, out);
  if (v.codec == id<UInt2O> && tiles && v.cols == 128) return value_rows_tiles_2<32>(v, n, out);
  for (int64_t i = 0; i < n; ++i) info(v.codec).values(v, i, 0, v.cols, out + i * v.cols);
}
