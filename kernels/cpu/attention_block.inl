// Attention's inner loops. Included inside a target region and a namespace, after lanes_*.inl and float_block.inl.
// Loops over 16 lanes without intrinsics are vectorized by the compiler at the region's width.

constexpr int64_t kP = kPageTokens;

// 16 rows of 16 bytes, transposed: out[column][row]. SSE2, so it is in every region.
QUIRE_INLINE void transpose_bytes(const uint8_t* in, int64_t pitch, uint8_t* out) {
  __m128i a[16], b[16];
  QUIRE_UNROLL
  for (int i = 0; i < 16; ++i) a[i] = _mm_loadu_si128((const __m128i*)(in + i * pitch));
  // Each round interleaves rows i and i + 8: after four, row bits have become byte bits.
  QUIRE_UNROLL
  for (int round = 0; round < 4; ++round) {
    QUIRE_UNROLL
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    QUIRE_UNROLL
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  QUIRE_UNROLL
  for (int i = 0; i < 16; ++i) _mm_storeu_si128((__m128i*)(out + 16 * i), a[i]);
}

// 8 rows of 8 halfs, transposed: out[column][row] with 16 halfs a column.
QUIRE_INLINE void transpose_halfs(const uint8_t* in, int64_t pitch, uint16_t* out) {
  __m128i a[8], b[8];
  QUIRE_UNROLL
  for (int i = 0; i < 8; ++i) a[i] = _mm_loadu_si128((const __m128i*)(in + i * pitch));
  QUIRE_UNROLL
  for (int round = 0; round < 3; ++round) {
    QUIRE_UNROLL
    for (int i = 0; i < 4; ++i) {
      b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
      b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    QUIRE_UNROLL
    for (int i = 0; i < 8; ++i) a[i] = b[i];
  }
  QUIRE_UNROLL
  for (int i = 0; i < 8; ++i) _mm_storeu_si128((__m128i*)(out + 16 * i), a[i]);
}

void key_panels_f16(const Tensor& k, int64_t n, float* out) {
  const uint8_t* data = k.data.row<const uint8_t>(0);
  uint16_t columns[8 * 16];
  for (int64_t i = 0; i < n; i += 16) {
    for (int64_t c = 0; c < k.cols; c += 8, out += 8 * 16) {
      transpose_halfs(data + i * k.data.pitch + 2 * c, k.data.pitch, columns);
      transpose_halfs(data + (i + 8) * k.data.pitch + 2 * c, k.data.pitch, columns + 8);
      for (int j = 0; j < 8; ++j) store(out + 16 * j, load_f16(columns + 16 * j));
    }
  }
}

// Unsigned fields of kBits, or e4m3 if kBits is 0. A row is whole 16-byte pieces.
template <int kBits>
void key_panels_bytes(const Tensor& k, int64_t n, float* out) {
  constexpr int kFields = kBits == 0 ? 1 : 8 / kBits;
  const uint8_t* data = k.data.row<const uint8_t>(0);
  uint8_t columns[16 * 16];
  for (int64_t i = 0; i < n; i += 16) {
    for (int64_t b = 0; b < k.cols / kFields; b += 16) {
      transpose_bytes(data + i * k.data.pitch + b, k.data.pitch, columns);
      for (int j = 0; j < 16; ++j) {
        const Ints v = load_u8(columns + 16 * j);
        QUIRE_UNROLL
        for (int f = 0; f < kFields; ++f, out += 16) {
          if constexpr (kBits == 0) {
            store(out, e4m3_to_floats(v));
          } else if constexpr (kBits == 8) {
            store(out, to_floats(v));
          } else {
            store(out, to_floats(bits(v, kBits * f, (1 << kBits) - 1)));
          }
        }
      }
    }
  }
}

void key_panels_any(const Tensor& k, int64_t n, float* out) {
  const CodecInfo& codec = info(k.codec);
  float row[512];
  for (int64_t i = 0; i < (n + 15) / 16 * 16; ++i) {
    if (i < n) codec.values(k, i, 0, k.cols, row);
    float* panel = out + i / 16 * k.cols * 16 + i % 16;
    for (int64_t c = 0; c < k.cols; ++c) panel[c * 16] = i < n ? row[c] : 0.0f;
  }
}

void key_panels(const Tensor& k, int64_t n, float* out) {
  const bool pieces = k.order == Order::natural && k.data.rows == 1;
  if (k.codec == id<F16> && pieces) return key_panels_f16(k, n, out);
  if (k.codec == id<E4M3> && pieces) return key_panels_bytes<0>(k, n, out);
  if (k.codec == id<UInt8O> && pieces) return key_panels_bytes<8>(k, n, out);
  if (k.codec == id<UInt4O> && pieces && k.cols % 32 == 0) return key_panels_bytes<4>(k, n, out);
  if (k.codec == id<UInt2O> && pieces && k.cols % 64 == 0) return key_panels_bytes<2>(k, n, out);
  key_panels_any(k, n, out);
}

// One row's 16-byte piece of fields as bytes in natural order.
template <int kBits>
QUIRE_INLINE void spread(const uint8_t* in, uint8_t* out) {
  const __m128i x = _mm_loadu_si128((const __m128i*)in), mask = _mm_set1_epi8(kBits == 2 ? 3 : 15);
  __m128i* to = (__m128i*)out;
  if constexpr (kBits == 4) {
    const __m128i even = _mm_and_si128(x, mask), odd = _mm_and_si128(_mm_srli_epi16(x, 4), mask);
    _mm_storeu_si128(to + 0, _mm_unpacklo_epi8(even, odd));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi8(even, odd));
  } else {
    const __m128i f0 = _mm_and_si128(x, mask), f1 = _mm_and_si128(_mm_srli_epi16(x, 2), mask);
    const __m128i f2 = _mm_and_si128(_mm_srli_epi16(x, 4), mask), f3 = _mm_and_si128(_mm_srli_epi16(x, 6), mask);
    const __m128i lo01 = _mm_unpacklo_epi8(f0, f1), hi01 = _mm_unpackhi_epi8(f0, f1);
    const __m128i lo23 = _mm_unpacklo_epi8(f2, f3), hi23 = _mm_unpackhi_epi8(f2, f3);
    _mm_storeu_si128(to + 0, _mm_unpacklo_epi16(lo01, lo23));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(lo01, lo23));
    _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(hi01, hi23));
    _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(hi01, hi23));
  }
}

// Order::value_tiles of 64 channels back to natural order: pairs (g, j) of two channels become (j, g).
QUIRE_INLINE void untile_64(uint8_t* row) {
  __m128i x[4], a[4];
  for (int i = 0; i < 4; ++i) x[i] = _mm_loadu_si128((const __m128i*)(row + 16 * i));
  for (int i = 0; i < 2; ++i) {
    const __m128i lo = _mm_unpacklo_epi16(x[2 * i], x[2 * i + 1]), hi = _mm_unpackhi_epi16(x[2 * i], x[2 * i + 1]);
    a[2 * i] = _mm_unpacklo_epi16(lo, hi);
    a[2 * i + 1] = _mm_unpackhi_epi16(lo, hi);
  }
  _mm_storeu_si128((__m128i*)row, _mm_unpacklo_epi64(a[0], a[2]));
  _mm_storeu_si128((__m128i*)(row + 16), _mm_unpackhi_epi64(a[0], a[2]));
  _mm_storeu_si128((__m128i*)(row + 32), _mm_unpacklo_epi64(a[1], a[3]));
  _mm_storeu_si128((__m128i*)(row + 48), _mm_unpackhi_epi64(a[1], a[3]));
}

template <int kBits>
void value_panels_bytes(const Tensor& v, int64_t n, float* out) {
  uint8_t row[512];
  const int64_t bytes = kBits == 0 ? v.cols : v.cols * kBits / 8;
  for (int64_t i = 0; i < n; ++i, out += 16) {
    const uint8_t* in = v.data.row<const uint8_t>(i);
    if constexpr (kBits == 2 || kBits == 4) {
      for (int64_t b = 0; b < bytes; b += 16) spread<kBits>(in + b, row + b * 8 / kBits);
      if (v.order == Order::value_tiles) untile_64(row);
      in = row;
    }
    for (int64_t c = 0; c < v.cols; c += 16) {
      const Ints x = load_u8(in + c);
      store(out + c * kP, kBits == 0 ? e4m3_to_floats(x) : to_floats(x));
    }
  }
}

void value_panels(const Tensor& v, int64_t n, float* out) {
  const bool pieces = v.order == Order::natural, tiles = v.order == Order::value_tiles && v.cols == 64;
  if (v.codec == id<E4M3> && pieces) return value_panels_bytes<0>(v, n, out);
  if (v.codec == id<UInt8O> && pieces) return value_panels_bytes<8>(v, n, out);
  if (v.codec == id<UInt4O> && v.cols % 32 == 0 && (pieces || tiles)) return value_panels_bytes<4>(v, n, out);
  if (v.codec == id<UInt2O> && v.cols % 64 == 0 && (pieces || tiles)) return value_panels_bytes<2>(v, n, out);
  if (v.codec == id<F16> && pieces) {
    for (int64_t i = 0; i < n; ++i, out += 16) {
      const uint16_t* in = v.data.row<const uint16_t>(i);
      for (int64_t c = 0; c < v.cols; c += 16) store(out + c * kP, load_f16(in + c));
    }
    return;
  }
  const CodecInfo& codec = info(v.codec);
  float row[512];
  for (int64_t i = 0; i < n; ++i, out += 16) {
    codec.values(v, i, 0, v.cols, row);
    for (int64_t c = 0; c < v.cols; c += 16) store(out + c * kP, load(row + c));
  }
}

float fold(const float* q, const float* scale, const float* offset, int64_t channels, float* folded) {
  float lane[16] = {};
  for (int64_t c = 0; c < channels; c += 16) {
    for (int l = 0; l < 16; ++l) {
      folded[c + l] = q[c + l] * scale[c + l];
      lane[l] = std::fma(q[c + l], offset[c + l], lane[l]);
    }
  }
  return lane_sum(lane);
}

void token_scores(const float* dot, const float* scale, const float* offset, float qsum, int64_t n, bool add,
                  float* s) {
  for (int64_t i = 0; i < n; ++i) {
    const float term = std::fma(offset[i], qsum, scale[i] * dot[i]);
    s[i] = add ? s[i] + term : term;
  }
}

float softmax(float* s, int64_t seen, int64_t padded) {
  for (int64_t i = seen; i < padded; ++i) s[i] = -1.0e30f;  // exp gives 0
  float top[16], lane[16] = {};
  for (int l = 0; l < 16; ++l) top[l] = s[l];
  for (int64_t i = 16; i < padded; i += 16) {
    for (int l = 0; l < 16; ++l) top[l] = s[i + l] > top[l] ? s[i + l] : top[l];
  }
  float peak = top[0];
  for (int l = 1; l < 16; ++l) peak = top[l] > peak ? top[l] : peak;
  for (int64_t i = 0; i < padded; i += 16) {
    for (int l = 0; l < 16; ++l) {
      const float p = exp_f32(s[i + l] - peak);
      s[i + l] = p;
      lane[l] += p;
    }
  }
  return lane_sum(lane);
}

void weigh(const float* p, const float* scale, const float* offset, int64_t n, float* weights, float* lanes) {
  for (int64_t i = 0; i < n; i += 16) {  // p is 0 past the tokens seen, so whole sixteens are safe
    for (int l = 0; l < 16; ++l) {
      weights[i + l] = p[i + l] * scale[i + l];
      lanes[l] = std::fma(p[i + l], offset[i + l], lanes[l]);
    }
  }
}
