// part = int8 x times byte or nibble panels, as a grid of register tiles, in the order of matmul.h. Included inside a
// target region and a namespace, after int_meta.inl.

// How the fields of a chunk lie: a byte each, in nibbles, or in nibbles that index 16 bytes.
enum class Fields : uint8_t { bytes, nibbles, levels };

// acc += x times the fields of one chunk.
template <int M, int P, Fields F>
QUIRE_INLINE void dot_chunk(const int8_t* x, int64_t ldx, const std::byte* w, int64_t stride, Chunk levels,
                            Ints (&acc)[M][P]) {
  constexpr bool Small = F == Fields::nibbles;
  Chunk raw[P], fields[P];
  QUIRE_UNROLL
  for (int p = 0; p < P; ++p) {
    raw[p] = load_chunk(w + p * stride);
    fields[p] = F == Fields::bytes ? raw[p] : low_nibbles(raw[p]);
    if (F == Fields::levels) fields[p] = look_up(levels, fields[p]);
  }
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    const Codes xm = load_codes<Small>(x + m * ldx);
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) acc[m][p] = dot<Small>(acc[m][p], fields[p], xm);
  }
  if constexpr (F != Fields::bytes) {
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) {
      fields[p] = high_nibbles(raw[p]);
      if (F == Fields::levels) fields[p] = look_up(levels, fields[p]);
    }
    QUIRE_UNROLL
    for (int m = 0; m < M; ++m) {
      const Codes xm = load_codes<Small>(x + m * ldx + 4);
      QUIRE_UNROLL
      for (int p = 0; p < P; ++p) acc[m][p] = dot<Small>(acc[m][p], fields[p], xm);
    }
  }
}

// acc += x times the fields of a sub.
template <int M, int P, Fields F>
QUIRE_INLINE void dots(const int8_t* x, int64_t ldx, const std::byte* w, int64_t stride, int64_t chunks, Chunk levels,
                       Ints (&acc)[M][P]) {
  constexpr int kStep = F == Fields::bytes ? 4 : 8, kChains = M <= kStreamM && P == 1 ? panels_for(M) : 1;
  if constexpr (kChains > 1) {  // integer sums in any order: several chains hide the latency of one
    Ints other[kChains - 1][M][1];
    QUIRE_UNROLL
    for (int i = 0; i < kChains - 1; ++i) {
      QUIRE_UNROLL
      for (int m = 0; m < M; ++m) other[i][m][0] = zero_ints();
    }
    for (; chunks >= kChains; chunks -= kChains, w += kChains * 64, x += kChains * kStep) {
      QUIRE_UNROLL
      for (int i = 0; i < kChains; ++i) {
        prefetch(w + i * 64 + kAhead);
        dot_chunk<M, 1, F>(x + i * kStep, ldx, w + i * 64, 0, levels, i == 0 ? acc : other[i - 1]);
      }
    }
    QUIRE_UNROLL
    for (int i = 0; i < kChains - 1; ++i) {
      QUIRE_UNROLL
      for (int m = 0; m < M; ++m) acc[m][0] = add(acc[m][0], other[i][m][0]);
    }
  }
  for (; chunks > 0; --chunks, w += 64, x += kStep) {
    if constexpr (M <= kStreamM) prefetch(w + kAhead);
    dot_chunk<M, P, F>(x, ldx, w, stride, levels, acc);
  }
}

template <int M, int P, Fields F>
void int_tile(const IntBlock& b, int64_t m0, int64_t p0) {
  const IntPanels& s = *b.shape;
  const std::byte* w = b.w + p0 * s.panel_bytes;
  float* part = b.part + m0 * b.ld_part + p0 * kPanel;
  const int64_t sub_bytes = s.sub_chunks() * 64, sub_codes = s.sub_chunks() * s.chunk;
  const Chunk levels = load_chunk(s.levels);
  alignas(64) int32_t total[M][P][kPanel];  // of a segment of several subs
  for (int64_t i = 0; i < s.subs; ++i) {
    const int32_t* sums = b.x.sums + m0 * s.subs + i;
    Ints acc[M][P];
    QUIRE_UNROLL
    for (int m = 0; m < M; ++m) {
      QUIRE_UNROLL
      for (int p = 0; p < P; ++p) acc[m][p] = s.bias ? all(-s.bias * sums[m * s.subs]) : zero_ints();
    }
    dots<M, P, F>(b.x.codes + m0 * b.x.ld + i * sub_codes, b.x.ld, w + i * sub_bytes, s.panel_bytes, s.chunks(i),
                  levels, acc);
    end_sub<M, P>(b, m0, w, i, acc, total, part);
  }
  end_tile<M, P>(b, m0, part);
}

template <int M, int P, Fields F>
void int_columns(const IntBlock& b, int64_t m0, int64_t p0, int64_t panels) {
  for (; panels >= P; panels -= P, p0 += P) int_tile<M, P, F>(b, m0, p0);
  if constexpr (P > 1) {
    if (panels > 0) int_columns<M, P / 2, F>(b, m0, p0, panels);
  }
}

template <int M, Fields F>
void int_tail(const IntBlock& b, int64_t m0, int64_t p0, int64_t panels) {
  if (b.m - m0 == M) return int_columns < M, M <= kStreamM ? 1 : panels_for(M), F > (b, m0, p0, panels);
  if constexpr (M > 1) int_tail<M - 1, F>(b, m0, p0, panels);
}

template <Fields F>
void int_grid(const IntBlock& b) {
  constexpr int kStep = panels_for(kTileM);
  const int64_t step = b.m < kTileM ? b.panels : kStep;
  for (int64_t p = 0; p < b.panels; p += step) {
    const int64_t panels = b.panels - p < step ? b.panels - p : step;
    int64_t m = 0;
    for (; m + kTileM <= b.m; m += kTileM) int_columns<kTileM, kStep, F>(b, m, p, panels);
    if (m < b.m) int_tail<kTileM - 1, F>(b, m, p, panels);
  }
}

void int_block(const IntBlock& b) {
  if (b.shape->leveled) {
    int_grid<Fields::levels>(b);
  } else if (b.shape->chunk == 8) {
    int_grid<Fields::nibbles>(b);
  } else {
    int_grid<Fields::bytes>(b);
  }
}
