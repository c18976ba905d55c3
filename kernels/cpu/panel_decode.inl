// Panels to f32 [k][16]. Included inside a target region and a namespace, after int_meta.inl.

void decode_f16(const uint16_t* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  for (int64_t k = k0; k < k1; ++k, out += kPanel) {
    prefetch(reinterpret_cast<const char*>(panel + k * kPanel) + ahead);
    store(out, load_f16(panel + k * kPanel));
  }
}
void decode_bf16(const uint16_t* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  for (int64_t k = k0; k < k1; ++k, out += kPanel) {
    prefetch(reinterpret_cast<const char*>(panel + k * kPanel) + ahead);
    store(out, top_halves(load_u16(panel + k * kPanel)));
  }
}

template <int J>
QUIRE_INLINE void decode_column(const IntPanels& s, const Decode& d, Chunk quad, float* out) {
  Ints code = field<J>(quad);
  Floats value;
  if (s.small.bits) {
    value = small_float(code, s.small);
  } else if (s.table_at) {
    value = look_up(d.table, code);
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
