// What lies in byte and nibble panels, and the f32 part of int8 x times them in the order of matmul.h. Included inside
// a target region and a namespace, after lanes_*.inl.

// With few rows of x the weights come from memory, and panels are walked one by one as a single forward stream. What
// lies this far on is fetched meanwhile: enough to hide memory's latency at its full bandwidth, little for a
// first-level cache. Past the last panel it fetches what nobody needs, which does no harm.
constexpr int64_t kAhead = 8192;

// What lies beside the codes of one weight group of a panel.
struct Meta {
  Floats scale, offset;
};
QUIRE_INLINE Meta load_meta(const IntPanels& s, const std::byte* panel, int64_t group) {
  if (s.two_levels()) {
    const std::byte *in = panel + s.meta_at + group * s.group_bytes, *above = panel + s.super_at(group);
    return {mul(load_f16(above), to_floats(load_s8(in))),
            s.offset ? mul(load_f16(above + 32), to_floats(load_s8(in + kPanel))) : zero_floats()};
  }
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
  Floats table;
};
QUIRE_INLINE Decode load_decode(const IntPanels& s, const std::byte* panel, int64_t group) {
  Decode d{load_meta(s, panel, group), all(1), all(-s.bias), zero_floats()};
  if (s.table_at) d.table = load(reinterpret_cast<const float*>(panel + s.table_at));
  if (s.second == Second::bias) return d;
  d.step = load_u8(second_of(s, panel, group));
  if (s.second == Second::zero) return {d.meta, all(1), sub(zero_ints(), d.step), zero_floats()};
  d.zero = load_s8(second_of(s, panel, group) + kPanel);
  return d;
}

// Four columns of every row, each field in a byte: quad q of the sub whose codes (and upper bits) begin there.
QUIRE_INLINE Chunk load_quad(const IntPanels& s, const std::byte* codes, const std::byte* upper, int64_t q) {
  if (s.chunk == 4) return load_chunk(codes + q * 64);
  const Chunk raw = load_chunk(codes + q / 2 * 64), lower = q % 2 ? high_nibbles(raw) : low_nibbles(raw);
  if (s.leveled) return look_up(load_chunk(s.levels), lower);
  return s.upper_at ? add_upper(lower, load_chunk(upper + q / 4 * 64), int(q % 4)) : lower;
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

// acc holds the products of sub i: they become codes, join their segment's total, and at its end part.
template <int M, int P>
QUIRE_INLINE void end_sub(const IntBlock& b, int64_t m0, const std::byte* w, int64_t i, Ints (&acc)[M][P],
                          int32_t (*total)[P][kPanel], float* part) {
  const IntPanels& s = *b.shape;
  if (s.second != Second::bias) apply_second<M, P>(s, w, i / s.subs_per_group, b.x.sums + m0 * s.subs + i, s.subs, acc);
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

// One scale of x comes last.
template <int M, int P>
QUIRE_INLINE void end_tile(const IntBlock& b, int64_t m0, float* part) {
  if (b.shape->row_rule || b.shape->subs_per_x) return;
  for (int m = 0; m < M; ++m) {
    const Floats sx = all(b.x.scales[(m0 + m) * b.x.scales_a_row]);
    for (int p = 0; p < P; ++p) {
      float* out = part + m * b.ld_part + p * kPanel;
      store(out, mul(sx, load(out)));
    }
  }
}
