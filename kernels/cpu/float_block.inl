// part = x times f32 panels, as a grid of register tiles. Included inside a target region and a namespace.

// As many panels side by side as the accumulators allow: 4 chains hide the latency of one row's fma.
constexpr int panels_for(int m) { return m * 4 <= kAccumulators ? 4 : m * 2 <= kAccumulators ? 2 : 1; }

template <int M, int P>
void float_tile(const FloatBlock& b, int64_t m0, int64_t p0) {
  const float* x = b.x + m0 * b.ldx;
  const float* w = b.w + p0 * b.panel_stride;
  float* part = b.part + m0 * b.ld_part + p0 * kPanel;
  Floats acc[M][P];
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) acc[m][p] = b.first ? zero_floats() : load(part + m * b.ld_part + p * kPanel);
  }
  const int64_t ldx = b.ldx, stride = b.panel_stride;
  for (int64_t k = 0; k < b.k; ++k, w += kPanel, ++x) {
    Floats wk[P];
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) {
      if (M <= 4) prefetch(w + p * stride + 32 * kPanel);  // few rows: the panels come from memory
      wk[p] = load(w + p * stride);
    }
    QUIRE_UNROLL
    for (int m = 0; m < M; ++m) {
      const Floats xm = all(x[m * ldx]);
      QUIRE_UNROLL
      for (int p = 0; p < P; ++p) acc[m][p] = fma(xm, wk[p], acc[m][p]);
    }
  }
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) store(part + m * b.ld_part + p * kPanel, acc[m][p]);
  }
}

template <int M, int P>
void float_columns(const FloatBlock& b, int64_t m0, int64_t p0, int64_t panels) {
  for (; panels >= P; panels -= P, p0 += P) float_tile<M, P>(b, m0, p0);
  if constexpr (P > 1) {
    if (panels > 0) float_columns<M, P / 2>(b, m0, p0, panels);
  }
}

// The rows of x that are left over.
template <int M>
void float_tail(const FloatBlock& b, int64_t m0, int64_t p0, int64_t panels) {
  if (b.m - m0 == M) return float_columns<M, panels_for(M)>(b, m0, p0, panels);
  if constexpr (M > 1) float_tail<M - 1>(b, m0, p0, panels);
}

void float_block(const FloatBlock& b) {
  constexpr int kStep = panels_for(kTileM);
  const int64_t step = b.m < kTileM ? b.panels : kStep;
  for (int64_t p = 0; p < b.panels; p += step) {
    const int64_t panels = b.panels - p < step ? b.panels - p : step;
    int64_t m = 0;
    for (; m + kTileM <= b.m; m += kTileM) float_columns<kTileM, kStep>(b, m, p, panels);
    if (m < b.m) float_tail<kTileM - 1>(b, m, p, panels);
  }
}
