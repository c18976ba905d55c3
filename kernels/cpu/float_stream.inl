// part = few rows of x times panels straight from memory, decoded on the way into the fma chain, in the order of
// matmul.h. Included inside a target region and a namespace, after int_meta.inl and spqr_tiles.inl.

// While a tile is computed the same place of the next one is fetched; past the last it fetches what nobody needs.
constexpr int stream_panels(int m) { return m * 2 <= kAccumulators ? 2 : 1; }

template <PanelSource S>
QUIRE_INLINE Floats load_weights(const std::byte* p) {
  if constexpr (S == PanelSource::f32) return load(reinterpret_cast<const float*>(p));
  if constexpr (S == PanelSource::f16) return load_f16(p);
  return top_halves(load_u16(p));
}

template <PanelSource S, int M, int P>
QUIRE_INLINE void stream_floats(const FloatStream& b, const std::byte* w, Floats (&acc)[M][P]) {
  constexpr int64_t kBytes = kPanel * (S == PanelSource::f32 ? 4 : 2);
  const int64_t stride = b.panel_bytes, ldx = b.ldx;
  const float* x = b.x;
  for (int64_t k = 0; k < b.k; ++k, ++x, w += kBytes) {
    Floats wk[P];
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) {
      prefetch(w + (p + P) * stride);
      wk[p] = load_weights<S>(w + p * stride);
    }
    QUIRE_UNROLL
    for (int m = 0; m < M; ++m) {
      const Floats xm = all(x[m * ldx]);
      QUIRE_UNROLL
      for (int p = 0; p < P; ++p) acc[m][p] = fma(xm, wk[p], acc[m][p]);
    }
  }
}

// acc += column k of x times the fields in the bits of Mask from Shift up. zero: 2^23 + what to take from a field.
template <int Shift, int Mask, bool Offset, int M, int P>
QUIRE_INLINE void stream_column(const float* x, int64_t ldx, const Chunk (&raw)[P], const Meta (&meta)[P],
                                const Floats (&zero)[P], Floats (&acc)[M][P]) {
  Floats w[P];
  QUIRE_UNROLL
  for (int p = 0; p < P; ++p) {
    w[p] = mul(meta[p].scale, sub(field_on_2_23<Shift, Mask>(raw[p]), zero[p]));
    if (Offset) w[p] = add(w[p], meta[p].offset);
  }
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    const Floats xm = all(x[m * ldx]);
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) acc[m][p] = fma(xm, w[p], acc[m][p]);
  }
}

// n columns of one chunk.
template <bool Small, bool Offset, int M, int P>
QUIRE_INLINE void stream_chunk(const float* x, int64_t ldx, int64_t n, const Chunk (&raw)[P], const Meta (&meta)[P],
                               const Floats (&zero)[P], Floats (&acc)[M][P]) {
  constexpr int kMask = Small ? 15 : 255;
  stream_column<0, kMask, Offset>(x, ldx, raw, meta, zero, acc);
  if (n > 1) stream_column<8, kMask, Offset>(x + 1, ldx, raw, meta, zero, acc);
  if (n > 2) stream_column<16, kMask, Offset>(x + 2, ldx, raw, meta, zero, acc);
  if (n > 3) stream_column<24, kMask, Offset>(x + 3, ldx, raw, meta, zero, acc);
  if constexpr (Small) {
    if (n > 4) stream_column<4, kMask, Offset>(x + 4, ldx, raw, meta, zero, acc);
    if (n > 5) stream_column<12, kMask, Offset>(x + 5, ldx, raw, meta, zero, acc);
    if (n > 6) stream_column<20, kMask, Offset>(x + 6, ldx, raw, meta, zero, acc);
    if (n > 7) stream_column<28, kMask, Offset>(x + 7, ldx, raw, meta, zero, acc);
  }
}

template <bool Small, bool Offset, int M, int P>
QUIRE_INLINE void stream_codes(const FloatStream& b, const std::byte* panel, Floats (&acc)[M][P]) {
  constexpr int kStep = Small ? 8 : 4;
  const IntPanels& s = *b.shape;
  const int64_t stride = b.panel_bytes, ldx = b.ldx;
  const std::byte* w = panel;
  const float* x = b.x;
  for (int64_t i = 0; i < s.subs; ++i) {
    const int64_t group = i / s.subs_per_group;
    Meta meta[P];
    Floats zero[P];
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) {
      const std::byte* at = panel + p * stride;
      prefetch(at + P * stride + s.meta_at + group * s.group_bytes);
      meta[p] = load_meta(s, at, group);
      const Ints z = s.second == Second::zero ? load_u8(second_of(s, at, group)) : all(s.bias);
      zero[p] = to_floats(add(z, all(1 << 23)));
    }
    Chunk raw[P];
    int64_t n = s.sub_end(i) - i * s.sub;
    for (; n >= kStep; n -= kStep, w += 64, x += kStep) {
      QUIRE_UNROLL
      for (int p = 0; p < P; ++p) {
        prefetch(w + (p + P) * stride);
        raw[p] = load_chunk(w + p * stride);
      }
      stream_chunk<Small, Offset>(x, ldx, kStep, raw, meta, zero, acc);
    }
    if (n == 0) continue;
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) raw[p] = load_chunk(w + p * stride);
    stream_chunk<Small, Offset>(x, ldx, n, raw, meta, zero, acc);
    w += 64;
    x += n;
  }
}

template <int M, int P>
void stream_tile(const FloatStream& b, int64_t p0) {
  const std::byte* w = b.w + p0 * b.panel_bytes;
  Floats acc[M][P];
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) acc[m][p] = zero_floats();
  }
  if (b.source == PanelSource::f32) {
    stream_floats<PanelSource::f32>(b, w, acc);
  } else if (b.source == PanelSource::f16) {
    stream_floats<PanelSource::f16>(b, w, acc);
  } else if (b.source == PanelSource::bf16) {
    stream_floats<PanelSource::bf16>(b, w, acc);
  } else if (b.source == PanelSource::spqr) {
    stream_spqr(b, w, acc);
  } else if (b.shape->chunk == 4) {
    b.shape->offset ? stream_codes<false, true>(b, w, acc) : stream_codes<false, false>(b, w, acc);
  } else {
    b.shape->offset ? stream_codes<true, true>(b, w, acc) : stream_codes<true, false>(b, w, acc);
  }
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) store(b.part + m * b.ld_part + (p0 + p) * kPanel, acc[m][p]);
  }
}

template <int M>
void stream_rows(const FloatStream& b) {
  if constexpr (M > 1) {
    if (b.m < M) return stream_rows<M - 1>(b);
  }
  constexpr int P = stream_panels(M);
  int64_t p = 0;
  for (; p + P <= b.panels; p += P) stream_tile<M, P>(b, p);
  for (; p < b.panels; ++p) stream_tile<M, 1>(b, p);
}

void float_stream(const FloatStream& b) { stream_rows<kStreamM>(b); }
