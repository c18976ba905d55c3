// One span of attention. Included inside a target region and a namespace, after the lanes and attention_panels.inl.

// part(m, 16 * panels) = or += x(m, k) times w: an fma chain an element, k in order.
struct Chains {
  const float* x;  // (m, k)
  int64_t ldx, m, k;
  const float* w;  // 16 lanes of panel p for step k at w + k * step + p * panel
  int64_t step, panel, panels;
  float* part;
  int64_t ld_part;
  bool first;  // part is not read
};

// As many panels side by side as the accumulators allow: independent chains hide the latency of an fma.
constexpr int chain_panels(int m) { return m * 4 <= kAccumulators ? 4 : m * 2 <= kAccumulators ? 2 : 1; }

template <int M, int P>
void chain_tile(const Chains& b, int64_t m0, int64_t p0) {
  const float* x = b.x + m0 * b.ldx;
  const float* w = b.w + p0 * b.panel;
  float* part = b.part + m0 * b.ld_part + p0 * 16;
  Floats acc[M][P];
  QUIRE_UNROLL
  for (int m = 0; m < M; ++m) {
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) acc[m][p] = b.first ? zero_floats() : load(part + m * b.ld_part + p * 16);
  }
  const int64_t ldx = b.ldx, step = b.step, panel = b.panel;
  for (int64_t k = 0; k < b.k; ++k, w += step, ++x) {
    Floats wk[P];
    QUIRE_UNROLL
    for (int p = 0; p < P; ++p) wk[p] = load(w + p * panel);
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
    for (int p = 0; p < P; ++p) store(part + m * b.ld_part + p * 16, acc[m][p]);
  }
}

template <int M, int P>
void chain_columns(const Chains& b, int64_t m0, int64_t p0, int64_t panels) {
  for (; panels >= P; panels -= P, p0 += P) chain_tile<M, P>(b, m0, p0);
  if constexpr (P > 1) {
    if (panels > 0) chain_columns<M, P / 2>(b, m0, p0, panels);
  }
}

template <int M>
void chain_tail(const Chains& b, int64_t m0) {  // the rows that are left over
  if (b.m - m0 == M) return chain_columns<M, chain_panels(M)>(b, m0, 0, b.panels);
  if constexpr (M > 1) chain_tail<M - 1>(b, m0);
}

void chains(const Chains& b) {
  constexpr int kStep = chain_panels(kTileM);
  const int64_t whole = b.m / kTileM * kTileM;
  for (int64_t p = 0; p < b.panels && whole > 0; p += kStep) {
    const int64_t panels = b.panels - p < kStep ? b.panels - p : kStep;
    for (int64_t m = 0; m < whole; m += kTileM) chain_columns<kTileM, kStep>(b, m, p, panels);
  }
  if (whole < b.m) chain_tail<kTileM - 1>(b, whole);
}

QUIRE_INLINE int64_t whole_lanes(int64_t n) { return (n + 15) / 16 * 16; }

QUIRE_INLINE bool half_pairs(Codec c) {
  return c == id<UInt8O> || c == id<UInt4O> || c == id<UInt3O> || c == id<UInt2O>;
}

// {scale, offset} pairs that lie `stride` words apart.
void read_pairs(const std::byte* in, int64_t stride, int64_t n, float* scale, float* offset) {
  const uint32_t* pairs = (const uint32_t*)in;
  for (int64_t i = 0; i < n; i += 16) {
    Ints x;
    if (stride == 1) {
      x = load((const int32_t*)(pairs + i));
    } else if (stride == 2) {
      x = every_second(pairs + 2 * i);
    } else {
      int32_t words[16];
      for (int l = 0; l < 16; ++l) words[l] = int32_t(pairs[(i + l) * stride]);
      x = load(words);
    }
    Floats s, o;
    split_pairs(x, s, o);
    store(scale + i, s);
    store(offset + i, o);
  }
}

// Scale and offset of group g of the first n rows, whole sixteens.
void row_params(const Tensor& t, int64_t g, int64_t n, float* scale, float* offset) {
  if (half_pairs(t.codec) && t.scale.rows == 1) {
    return read_pairs(t.scale.ptr + 4 * g, t.scale.pitch / 4, n, scale, offset);
  }
  for (int64_t i = 0; i < whole_lanes(n); ++i) {
    const AffineParams a = info(t.codec).affine(t, i, g);
    scale[i] = a.scale;
    offset[i] = a.offset;
  }
}

// Scale and offset of every channel of the span of rows that r lies in.
void channel_params(const Tensor& t, int64_t r, float* scale, float* offset) {
  if (half_pairs(t.codec)) return read_pairs(t.scale.row<const std::byte>(r), 1, t.cols, scale, offset);
  for (int64_t c = 0; c < t.cols; ++c) {
    const AffineParams a = info(t.codec).affine(t, r, c);
    scale[c] = a.scale;
    offset[c] = a.offset;
  }
}

void query_sums(const float* q, int64_t rows, int64_t channels, int64_t groups, float* qsum) {
  const int64_t width = channels / groups;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      float lane[16] = {};
      for (int64_t c = 0; c < width; ++c) lane[c % 16] += q[r * channels + g * width + c];
      qsum[r * groups + g] = lane_sum(load(lane));
    }
  }
}

// A channel's scale folds into q once for all the tokens it spans.
void channel_scores(const AttentionSpan& s, const Tensor& k, int64_t n, float* scores) {
  float scale[kMaxHeadDim], offset[kMaxHeadDim];
  for (int64_t first = 0; first < n; first += k.scale.rows) {
    channel_params(k, first, scale, offset);
    const int64_t left = n - first, width = whole_lanes(left < k.scale.rows ? left : k.scale.rows);
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t c = 0; c < s.channels; c += 16) {
        store(s.folded + r * s.channels + c, mul(load(s.q + r * s.channels + c), load(scale + c)));
      }
    }
    chains({s.folded, s.channels, s.rows, s.channels, s.panels + first * s.channels, 16, s.channels * 16, width / 16,
            scores + first, kSpanTokens, true});
    for (int64_t r = 0; r < s.rows; ++r) {
      Floats lanes = zero_floats();
      for (int64_t c = 0; c < s.channels; c += 16) lanes = fma(load(s.q + r * s.channels + c), load(offset + c), lanes);
      const Floats bias = all(lane_sum(lanes));
      float* to = scores + first + r * kSpanTokens;
      for (int64_t i = 0; i < width; i += 16) store(to + i, add(load(to + i), bias));
    }
  }
}

void token_scores(const AttentionSpan& s, const Tensor& k, int64_t n, float* scores) {
  const int64_t width = whole_lanes(n);
  float scale[kP], offset[kP];
  for (int64_t g = 0; g < k.groups(); ++g) {
    const int64_t c0 = k.group_begin(g), c1 = k.group_end(g);
    row_params(k, g, n, scale, offset);
    chains(
        {s.q + c0, s.channels, s.rows, c1 - c0, s.panels + c0 * 16, 16, s.channels * 16, width / 16, s.part, kP, true});
    for (int64_t r = 0; r < s.rows; ++r) {
      const Floats qsum = all(s.qsum[r * s.k_groups + g]);
      float* to = scores + r * kSpanTokens;
      for (int64_t i = 0; i < width; i += 16) {
        const Floats term = fma(load(offset + i), qsum, mul(load(scale + i), load(s.part + r * kP + i)));
        store(to + i, g > 0 ? add(load(to + i), term) : term);
      }
    }
  }
}

// math.h's exp_f32 for x <= 0, operation by operation.
QUIRE_INLINE Floats exp_of_negative(Floats x) {
  const Floats clamped = larger(all(-87.3f), x), magic = all(12582912.0f);
  const Floats shifted = add(mul(clamped, all(1.44269504f)), magic), n = add(shifted, all(-12582912.0f));
  const Floats r = add(add(clamped, mul(n, all(-0.693359375f))), mul(n, all(2.12194440e-4f)));
  Floats p = add(mul(all(1.9875691500e-4f), r), all(1.3981999507e-3f));
  p = add(mul(p, r), all(8.3334519073e-3f));
  p = add(mul(p, r), all(4.1665795894e-2f));
  p = add(mul(p, r), all(1.6666665459e-1f));
  p = add(mul(p, r), all(5.0000001201e-1f));
  const Floats y = add(add(mul(p, mul(r, r)), r), all(1.0f));
  return zero_below(x, -87.3f, mul(y, power_of_two(shifted)));
}

// s[i] = exp(s[i] - peak) for hidden <= i < seen, 0 elsewhere. If that is none, what comes out vanishes in the join:
// its peak is far below any other.
void softmax(float* s, int64_t hidden, int64_t seen, int64_t padded, float& peak, float& total) {
  for (int64_t i = seen; i < padded; ++i) s[i] = -1.0e30f;  // exp gives 0
  for (int64_t i = 0; i < hidden; ++i) s[i] = -1.0e30f;
  Floats top = load(s), lanes = zero_floats();
  for (int64_t i = 16; i < padded; i += 16) top = larger(load(s + i), top);
  peak = largest(top);
  for (int64_t i = 0; i < padded; i += 16) {
    const Floats p = exp_of_negative(add(load(s + i), all(-peak)));
    store(s + i, p);
    lanes = add(lanes, p);
  }
  total = lane_sum(lanes);
}

void add_values(const AttentionSpan& s, const Tensor& v, int64_t n, const float* p, bool first) {
  value_rows(v, n, s.panels);
  if (v.codec == id<F16>) {  // scale 1, offset 0: the weights are the probabilities
    chains({p, kSpanTokens, s.rows, n, s.panels, s.channels, 16, s.channels / 16, s.result.out, s.channels, first});
    return;
  }
  float scale[kP], offset[kP];
  for (int64_t g = 0; g < v.groups(); ++g) {
    const int64_t c0 = v.group_begin(g), c1 = v.group_end(g);
    row_params(v, g, n, scale, offset);
    for (int64_t r = 0; r < s.rows; ++r) {
      float* to = s.offsets + (r * s.v_groups + g) * 16;
      Floats lanes = load(to);
      for (int64_t i = 0; i < n; i += 16) {  // p is 0 past the tokens seen, so whole sixteens are safe
        const Floats pi = load(p + r * kSpanTokens + i);
        store(s.part + r * kP + i, mul(pi, load(scale + i)));
        lanes = fma(pi, load(offset + i), lanes);
      }
      store(to, lanes);
    }
    chains(
        {s.part, kP, s.rows, n, s.panels + c0, s.channels, 16, (c1 - c0) / 16, s.result.out + c0, s.channels, first});
  }
}

void span(const AttentionSpan& s) {
  for (int64_t i = 0; i < s.tokens; i += kP) {
    const Tensor& k = s.keys[i / kP];
    const int64_t n = s.tokens - i < kP ? s.tokens - i : kP;
    key_panels(k, n, s.panels);
    if (k.codec == id<F16>) {  // scale 1, offset 0: the chain is the score
      chains({s.q, s.channels, s.rows, s.channels, s.panels, 16, s.channels * 16, whole_lanes(n) / 16, s.scores + i,
              kSpanTokens, true});
    } else if (k.group == 1) {
      channel_scores(s, k, n, s.scores + i);
    } else {
      token_scores(s, k, n, s.scores + i);
    }
  }
  for (int64_t r = 0; r < s.rows; ++r) {
    const int64_t seen = s.first_sees + r / s.group, hidden = s.first_hidden + r / s.group;
    softmax(s.scores + r * kSpanTokens, hidden < s.tokens ? hidden : s.tokens, seen < s.tokens ? seen : s.tokens,
            whole_lanes(s.tokens), s.result.peak[r], s.result.total[r]);
  }
  memset(s.offsets, 0, size_t(s.rows * s.v_groups * 16) * sizeof(float));
  for (int64_t i = 0; i < s.tokens; i += kP) {
    add_values(s, s.values[i / kP], s.tokens - i < kP ? s.tokens - i : kP, s.scores + i, i == 0);
  }
  const int64_t width = s.channels / s.v_groups;
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t g = 0; g < s.v_groups; ++g) {
      const Floats offset = all(lane_sum(load(s.offsets + (r * s.v_groups + g) * 16)));
      float* to = s.result.out + r * s.channels + g * width;
      for (int64_t c = 0; c < width; c += 16) store(to + c, add(load(to + c), offset));
    }
  }
}

void join(const AttentionRows& to, const AttentionRows& from, int64_t rows, int64_t channels) {
  for (int64_t r = 0; r < rows; ++r) {
    const float peak = from.peak[r] > to.peak[r] ? from.peak[r] : to.peak[r];
    const float a = exp_f32(to.peak[r] - peak), b = exp_f32(from.peak[r] - peak);
    to.total[r] = to.total[r] * a + from.total[r] * b;
    to.peak[r] = peak;
    for (int64_t c = r * channels; c < (r + 1) * channels; c += 16) {
      store(to.out + c, fma(load(from.out + c), all(b), mul(load(to.out + c), all(a))));
    }
  }
}
