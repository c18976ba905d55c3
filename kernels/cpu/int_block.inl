// part = int8 x times byte or nibble panels, as a grid of register tiles, in the order of matmul.h. Included inside a
// target region and a namespace.

// What lies beside the codes of one weight group of a panel.
struct Meta {
  Floats scale, offset;
};
QUIRE_INLINE Meta load_meta(const IntPanels& s, const std::byte* panel, int64_t group) {
  const std::byte* at = s.row_scale_at ? panel + s.row_scale_at : panel + s.meta_at + group * s.group_bytes;
  if (!s.half) return {load(reinterpret_cast<const float*>(at)), zero_floats()};
  return {load_f16(at), s.offset ? load_f16(at + 32) : zero_floats()};
}
QUIRE_INLINE const std::byte* second_of(const IntPanels& s, const std::byte* panel, int64_t group) {
  return panel + s.meta_at + group * s.group_bytes + s.second_at();
}

// What turns the fields of a group into values.
struct Decode {
  Meta meta;
  Ints step, zero;
};
QUIRE_INLINE Decode load_decode(const IntPanels& s, const std::byte* panel, int64_t group) {
  Decode d{load_meta(s, panel, group), all(1), all(-s.bias)};
  if (s.second == Second::bias) return d;
  d.step = load_u8(second_of(s, panel, group));
  if (s.second == Second::zero) return {d.meta, all(1), sub(zero_ints(), d.step)};
  d.zero = load_s8(second_of(s, panel, group) + kPanel);
  return d;
}

// Four columns of every row, each field in a byte: quad q of the sub whose codes (and upper bits) begin there.
QUIRE_INLINE Chunk load_quad(const IntPanels& s, const std::byte* codes, const std::byte* upper, int64_t q) {
  if (s.chunk == 4) return load_chunk(codes + q * 64);
  const Chunk raw = load_chunk(codes + q / 2 * 64), lower = q % 2 ? high_nibbles(raw) : low_nibbles(raw);
  return s.upper_at ? add_upper(lower, load_chunk(upper + q / 4 * 64), int(q % 4)) : lower;
}

template <int J>
QUIRE_INLINE void decode_column(const IntPanels& s, const Decode& d, Chunk quad, float* out) {
  Ints code = field<J>(quad);
  Floats value;
  if (s.small.bits) {
    value = small_float(code, s.small);
  } else {
    if (s.second == Second::steps) code = mul(code, d.step);
    value = to_floats(add(code, d.zero));
  }
  value = mul(d.meta.scale, value);
  store(out + J * kPanel, s.offset ? add(value, d.meta.offset) : value);
}

// Columns [k0, k1) of a panel as f32, with the codec's own arithmetic. k0 lies on a chunk of its sub.
void decode_codes(const IntPanels& shape, const std::byte* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  const IntPanels s = shape;  // a copy that the stores below cannot change
  for (int64_t k = k0; k < k1;) {
    const int64_t i = k / s.sub, end = s.sub_end(i) < k1 ? s.sub_end(i) : k1;
    const Decode d = load_decode(s, panel, i / s.subs_per_group);
    const std::byte* codes = panel + i * s.sub_chunks() * 64;
    const std::byte* upper = panel + s.upper_at + i * s.upper_chunks(s.sub_chunks()) * 64;
    int64_t q = (k - i * s.sub) / 4;
    for (; k + 4 <= end; k += 4, ++q, out += 4 * kPanel) {
      prefetch(codes + q * 256 / s.chunk + ahead);
      const Chunk quad = load_quad(s, codes, upper, q);
      decode_column<0>(s, d, quad, out);
      decode_column<1>(s, d, quad, out);
      decode_column<2>(s, d, quad, out);
      decode_column<3>(s, d, quad, out);
    }
    if (k == end) continue;
    const Chunk quad = load_quad(s, codes, upper, q);
    decode_column<0>(s, d, quad, out);
    if (end - k > 1) decode_column<1>(s, d, quad, out);
    if (end - k > 2) decode_column<2>(s, d, quad, out);
    out += (end - k) * kPanel;
    k = end;
  }
}

// With few rows of x the weights come from memory, and panels are walked one by one as a single forward stream. What
// lies this far on is fetched meanwhile: enough to hide memory's latency at its full bandwidth, little for a
// first-level cache. Past the last panel it fetches what nobody needs, which does no harm.
constexpr int64_t kAhead = 8192;

// acc += x times the fields of one chunk.
template <int M, int P, bool Small>
QUIRE_INLINE void dot_chunk(const int8_t* x, int64_t ldx, const std::byte* w, int64_t stride, Ints (&acc)[M][P]) {
  Chunk raw[P], fields[P];
  QUIRE_UNROLL
  for (int p = 0; p < P; ++p) {
    raw[p] = load_chunk(w + p * stride);
    fields[p] = Small ? low_nibbles(raw[p]) : raw[p];
  }
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    const Codes xm = load_codes<Small>(x + m * ldx);
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) acc[m][p] = dot<Small>(acc[m][p], fields[p], xm);
  }
  if constexpr (Small) {
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) fields[p] = high_nibbles(raw[p]);
    QUIRE_UNROLL
    for (int m = 0; m < M; ++m) {
      const Codes xm = load_codes<Small>(x + m * ldx + 4);
      QUIRE_UNROLL
      for (int p = 0; p < P; ++p) acc[m][p] = dot<Small>(acc[m][p], fields[p], xm);
    }
  }
}

// acc += x times the fields of a sub.
template <int M, int P, bool Small>
QUIRE_INLINE void dots(const int8_t* x, int64_t ldx, const std::byte* w, int64_t stride, int64_t chunks,
                       Ints (&acc)[M][P]) {
  constexpr int kStep = Small ? 8 : 4, kChains = M <= kStreamM && P == 1 ? panels_for(M) : 1;
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
        dot_chunk<M, 1, Small>(x + i * kStep, ldx, w + i * 64, 0, i == 0 ? acc : other[i - 1]);
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
    dot_chunk<M, P, Small>(x, ldx, w, stride, acc);
  }
}

// Fields become codes: acc = step * acc + zero * (sum of x).
template <int M, int P>
QUIRE_INLINE void apply_second(const IntPanels& s, const std::byte* w, int64_t group, const int32_t* sums, int64_t ld,
                               Ints (&acc)[M][P]) {
  QUIRE_UNROLL
  for (int p = 0; p < P; ++p) {
    const std::byte* at = second_of(s, w + p * s.panel_bytes, group);
    const Ints first = load_u8(at);
    if (s.second == Second::zero) {
      QUIRE_UNROLL
      for (int m = 0; m < M; ++m) acc[m][p] = sub(acc[m][p], mul(first, all(sums[m * ld])));
    } else {
      const Ints zero = load_s8(at + kPanel);
      QUIRE_UNROLL
      for (int m = 0; m < M; ++m) acc[m][p] = add(mul(first, acc[m][p]), mul(zero, all(sums[m * ld])));
    }
  }
}

// The f32 part of one segment, in the written order; part holds t.
template <int M, int P>
QUIRE_INLINE void add_segment(const IntBlock& b, int64_t m0, const std::byte* w, int64_t i, const Ints (&acc)[M][P],
                              float* part) {
  const IntPanels& s = *b.shape;
  const bool first = i < s.subs_per_segment;
  const int32_t* sums = b.x.sums + m0 * s.subs + i;
  const float* sx = b.x.scales + m0 * b.x.scales_a_row + (s.subs_per_x ? i / s.subs_per_x : 0);
  QUIRE_UNROLL
  for (int p = 0; p < P; ++p) {
    const Meta meta = load_meta(s, w + p * s.panel_bytes, i / s.subs_per_group);
    if constexpr (M <= kStreamM) prefetch(w + kAhead + s.meta_at + i / s.subs_per_group * s.group_bytes);
    QUIRE_UNROLL
    for (int m = 0; m < M; ++m) {
      float* out = part + m * b.ld_part + p * kPanel;
      const float sxm = sx[m * b.x.scales_a_row];
      const Floats a = to_floats(acc[m][p]);
      Floats t;
      if (s.row_rule) {
        t = mul(mul(a, all(sxm)), meta.scale);
        if (s.offset) t = fma(mul(meta.offset, all(sxm)), all(float(sums[m * s.subs])), t);
      } else if (s.subs_per_x) {
        Floats u = mul(meta.scale, a);
        if (s.offset) u = fma(meta.offset, all(float(sums[m * s.subs])), u);
        t = fma(all(sxm), u, first ? zero_floats() : load(out));
      } else {
        t = fma(meta.scale, a, first ? zero_floats() : load(out));
        if (s.offset) t = fma(meta.offset, all(float(sums[m * s.subs])), t);
      }
      store(out, t);
    }
  }
}

template <int M, int P, bool Small>
void int_tile(const IntBlock& b, int64_t m0, int64_t p0) {
  const IntPanels& s = *b.shape;
  const std::byte* w = b.w + p0 * s.panel_bytes;
  float* part = b.part + m0 * b.ld_part + p0 * kPanel;
  const int64_t sub_bytes = s.sub_chunks() * 64, sub_codes = s.sub_chunks() * s.chunk;
  alignas(64) int32_t total[M][P][kPanel];  // of a segment of several subs
  for (int64_t i = 0; i < s.subs; ++i) {
    const int32_t* sums = b.x.sums + m0 * s.subs + i;
    Ints acc[M][P];
    QUIRE_UNROLL
    for (int m = 0; m < M; ++m) {
      QUIRE_UNROLL
      for (int p = 0; p < P; ++p) acc[m][p] = s.bias ? all(-s.bias * sums[m * s.subs]) : zero_ints();
    }
    dots<M, P, Small>(b.x.codes + m0 * b.x.ld + i * sub_codes, b.x.ld, w + i * sub_bytes, s.panel_bytes, s.chunks(i),
                      acc);
    if (s.second != Second::bias) apply_second<M, P>(s, w, i / s.subs_per_group, sums, s.subs, acc);
    const bool last = i + 1 == s.subs || (i + 1) % s.subs_per_segment == 0;
    if (s.subs_per_segment > 1) {
      QUIRE_UNROLL
      for (int m = 0; m < M; ++m) {
        QUIRE_UNROLL
        for (int p = 0; p < P; ++p) {
          if (i % s.subs_per_segment != 0) acc[m][p] = add(acc[m][p], load(total[m][p]));
          if (!last) store(total[m][p], acc[m][p]);
        }
      }
    }
    if (last) add_segment<M, P>(b, m0, w, i, acc, part);
  }
  if (!s.row_rule && !s.subs_per_x) {  // one scale of x comes last
    for (int m = 0; m < M; ++m) {
      const Floats sx = all(b.x.scales[(m0 + m) * b.x.scales_a_row]);
      for (int p = 0; p < P; ++p) {
        float* out = part + m * b.ld_part + p * kPanel;
        store(out, mul(sx, load(out)));
      }
    }
  }
}

template <int M, int P, bool Small>
void int_columns(const IntBlock& b, int64_t m0, int64_t p0, int64_t panels) {
  for (; panels >= P; panels -= P, p0 += P) int_tile<M, P, Small>(b, m0, p0);
  if constexpr (P > 1) {
    if (panels > 0) int_columns<M, P / 2, Small>(b, m0, p0, panels);
  }
}

template <int M, bool Small>
void int_tail(const IntBlock& b, int64_t m0, int64_t p0, int64_t panels) {
  if (b.m - m0 == M) return int_columns < M, M <= kStreamM ? 1 : panels_for(M), Small > (b, m0, p0, panels);
  if constexpr (M > 1) int_tail<M - 1, Small>(b, m0, p0, panels);
}

template <bool Small>
void int_grid(const IntBlock& b) {
  constexpr int kStep = panels_for(kTileM);
  const int64_t step = b.m < kTileM ? b.panels : kStep;
  for (int64_t p = 0; p < b.panels; p += step) {
    const int64_t panels = b.panels - p < step ? b.panels - p : step;
    int64_t m = 0;
    for (; m + kTileM <= b.m; m += kTileM) int_columns<kTileM, kStep, Small>(b, m, p, panels);
    if (m < b.m) int_tail<kTileM - 1, Small>(b, m, p, panels);
  }
}

void int_block(const IntBlock& b) {
  if (b.shape->chunk == 8) {
    int_grid<true>(b);
  } else {
    int_grid<false>(b);
  }
}
