// SpQR's tiles of 16 rows x 16 columns, a row a lane: quant/spqr.h's arithmetic, in panels.h's layout. Included inside
// a target region and a namespace, after lanes_*.inl.

struct SpqrTile {
  Ints low, high;  // codes of columns 0..9 and 10..15, 3 bits each from the lowest up
  Floats scale, zero;
};

QUIRE_INLINE Floats spqr_level(Ints code, uint16_t scale, uint16_t zero) {
  return round_to_f16(mul(all_f16(scale), round_to_f16(sub(to_floats(code), all_f16(zero)))));
}

QUIRE_INLINE SpqrTile load_spqr(const std::byte* tile) {
  uint16_t second[4];
  uint32_t fields[3];
  memcpy(second, tile, 8);
  memcpy(fields, tile + 8, 12);
  const Ints codes =
      either(bit_pairs(fields[0]), either(shift_left<2>(bit_pairs(fields[1])), shift_left<4>(bit_pairs(fields[2]))));
  const Ints low = load(reinterpret_cast<const int32_t*>(tile + 20)), high = load_u16(tile + 84);
  return {low, either(shift_left<2>(high), shift_right<30>(low)), spqr_level(bit_and(codes, all(7)), second[0], second[2]),
          spqr_level(shift_right<3>(codes), second[1], second[3])};
}

template <int C>
QUIRE_INLINE Floats spqr_column(const SpqrTile& t) {
  constexpr int kShift = C < 10 ? 3 * C : 3 * (C - 10);
  const Ints code = bit_and(shift_right<kShift>(C < 10 ? t.low : t.high), all(7));
  return round_to_f16(mul(t.scale, round_to_f16(sub(to_floats(code), t.zero))));
}

// Columns C.. of the n of a tile.
template <int C>
QUIRE_INLINE void decode_spqr_columns(const SpqrTile& t, int64_t n, float* out) {
  store(out + C * kPanel, spqr_column<C>(t));
  if constexpr (C < 15) {
    if (C + 1 < n) decode_spqr_columns<C + 1>(t, n, out);
  }
}

// Columns [k0, k1) of a panel as f32 [k][16]; k0 lies on a tile.
void decode_spqr(const std::byte* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  for (int64_t k = k0; k < k1; k += 16, out += 16 * kPanel) {
    const std::byte* tile = panel + k / 16 * kSpqrTile;
    prefetch(tile + ahead);
    prefetch(tile + ahead + 64);
    decode_spqr_columns<0>(load_spqr(tile), k1 - k < 16 ? k1 - k : 16, out);
  }
}

// acc += columns C.. of the n of a tile times x.
template <int C, int M, int P>
QUIRE_INLINE void stream_spqr_columns(const float* x, int64_t ldx, int64_t n, const SpqrTile (&tiles)[P],
                                      Floats (&acc)[M][P]) {
  Floats w[P];
  QUIRE_UNROLL
  for (int p = 0; p < P; ++p) w[p] = spqr_column<C>(tiles[p]);
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    const Floats xm = all(x[m * ldx + C]);
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) acc[m][p] = fma(xm, w[p], acc[m][p]);
  }
  if constexpr (C < 15) {
    if (C + 1 < n) stream_spqr_columns<C + 1>(x, ldx, n, tiles, acc);
  }
}

template <int M, int P>
QUIRE_INLINE void stream_spqr(const FloatStream& b, const std::byte* panel, Floats (&acc)[M][P]) {
  const int64_t stride = b.panel_bytes;
  const std::byte* w = panel;
  const float* x = b.x;
  for (int64_t k = 0; k < b.k; k += 16, x += 16, w += kSpqrTile) {
    SpqrTile tiles[P];
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) {
      prefetch(w + (p + P) * stride);
      prefetch(w + (p + P) * stride + 64);
      tiles[p] = load_spqr(w + p * stride);
    }
    stream_spqr_columns<0>(x, b.ldx, b.k - k < 16 ? b.k - k : 16, tiles, acc);
  }
}
