// Attention over a cache's codes as plain loops: the written order of kernels/attention.h, and the dense softmax in
// double.
#pragma once
#include <gtest/gtest.h>

#include "kernels/math.h"
#include "tests/kv_steps.h"

namespace quire {

// One token's keys or values of one head: value[c] = scale * code[c] + offset, with one scale or several.
struct Seen {
  std::vector<float> code, scale, offset;
};

inline Seen seen_in(const Tensor& part, int64_t row) {
  Seen s;
  s.code.resize(size_t(part.cols));
  info(part.codec).values(part, row, 0, part.cols, s.code.data());
  for (int64_t g = 0; g < part.groups(); ++g) {
    const AffineParams a = info(part.codec).affine(part, row, g);
    s.scale.push_back(a.scale);
    s.offset.push_back(a.offset);
  }
  return s;
}

inline Seen half_floats(const float* x, int64_t n) {
  Seen s{{}, {1.0f}, {0.0f}};
  for (int64_t c = 0; c < n; ++c) s.code.push_back(f16_to_f32(f32_to_f16(x[c])));
  return s;
}

// What each token of a sequence looks like from its own page and from later ones.
struct History {
  std::vector<Seen> own, later;
  const Seen& from(int64_t token, int64_t query) const {
    return (token / kPageTokens == query / kPageTokens ? own : later)[size_t(token)];
  }
};

inline History history(const KvView& view, const KvShape& shape, const KvSequence& s, int32_t slot, int64_t head,
                       bool keys) {
  History h;
  for (int64_t i = 0; i < s.length(); ++i) {
    std::byte* block = view.block(slot, i / kPageTokens, head);
    const Tensor part =
        keys ? kv_keys(block, view.layout, &view.k_scale) : kv_values(block, view.layout, &view.v_scale);
    const std::vector<float>& raw = keys ? s.k : s.v;
    h.later.push_back(seen_in(part, i % kPageTokens));
    h.own.push_back(view.layout.sealed()
                        ? half_floats(raw.data() + (i * shape.kv_heads + head) * shape.channels, shape.channels)
                        : h.later.back());
  }
  return h;
}

// Lane i mod 16 takes term i, then a tree.
class LaneSum {
 public:
  void add(size_t i, float a, float b) { lane_[i % 16] = std::fma(a, b, lane_[i % 16]); }
  void add(size_t i, float a) { lane_[i % 16] += a; }
  float total() const {
    float l[16];
    std::copy_n(lane_, 16, l);
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) l[i] += l[i + width];
    }
    return l[0];
  }

 private:
  float lane_[16] = {};
};

inline float score(const std::vector<float>& q, const Seen& k) {
  const size_t channels = q.size(), groups = k.scale.size();
  if (groups == channels) {
    LaneSum bias;
    float s = 0.0f;
    for (size_t c = 0; c < channels; ++c) bias.add(c, q[c], k.offset[c]);
    for (size_t c = 0; c < channels; ++c) s = std::fma(q[c] * k.scale[c], k.code[c], s);
    return s + bias.total();
  }
  float s = 0.0f;
  for (size_t g = 0; g < groups; ++g) {
    LaneSum qsum;
    float chain = 0.0f;
    const size_t begin = g * channels / groups, end = (g + 1) * channels / groups;
    for (size_t c = begin; c < end; ++c) {
      qsum.add(c - begin, q[c]);
      chain = std::fma(q[c], k.code[c], chain);
    }
    const float term = std::fma(k.offset[g], qsum.total(), k.scale[g] * chain);
    s = g == 0 ? term : s + term;
  }
  return s;
}

// What a query knows of its keys up to some span.
struct Row {
  float peak = 0.0f, total = 0.0f;
  std::vector<float> out;
};

// Tokens [first, last] of the sequence, seen from `position`; those before `hidden` lie outside its window.
Row span_of(const std::vector<float>& q, const History& k, const History& v, int64_t first, int64_t last,
            int64_t position, int64_t hidden) {
  std::vector<float> p;
  for (int64_t i = first; i <= last; ++i) p.push_back(i < hidden ? -1.0e30f : score(q, k.from(i, position)));
  Row row;
  row.peak = *std::max_element(p.begin(), p.end());
  LaneSum total;
  for (size_t i = 0; i < p.size(); ++i) {
    p[i] = exp_f32(p[i] - row.peak);
    total.add(i, p[i]);
  }
  row.total = total.total();
  for (size_t c = 0; c < q.size(); ++c) {
    float sum = 0.0f;
    LaneSum offsets;
    for (size_t i = 0; i < p.size(); ++i) {
      const Seen& s = v.from(first + int64_t(i), position);
      const size_t g = c * s.scale.size() / q.size();
      sum = std::fma(p[i] * s.scale[g], s.code[c], sum);
      offsets.add(i, p[i], s.offset[g]);
    }
    row.out.push_back(sum + offsets.total());
  }
  return row;
}

// attention.h's order, for the query of one head at `position`.
inline std::vector<float> written_order(const std::vector<float>& q, const History& k, const History& v,
                                        int64_t position, int64_t hidden) {
  Row row;
  const int64_t start = hidden / kSpanTokens * kSpanTokens;
  for (int64_t first = start; first <= position; first += kSpanTokens) {
    const Row next = span_of(q, k, v, first, std::min(first + kSpanTokens - 1, position), position, hidden);
    if (first == start) {
      row = next;
      continue;
    }
    const float top = std::max(row.peak, next.peak), a = exp_f32(row.peak - top), b = exp_f32(next.peak - top);
    row.peak = top;
    row.total = row.total * a + next.total * b;
    for (size_t c = 0; c < q.size(); ++c) row.out[c] = std::fma(next.out[c], b, row.out[c] * a);
  }
  for (float& x : row.out) x /= row.total;
  return row.out;
}

// The dense softmax over decoded keys and values in double; how far f32 may be from it.
inline void expect_near_dense(const float* query, const std::vector<float>& got, const History& k, const History& v,
                              int64_t position, int64_t hidden) {
  const size_t channels = got.size(), n = size_t(position) + 1, seen_from = size_t(hidden);
  constexpr double kUnit = 0x1.0p-24;
  std::vector<double> s(n);
  double peak = -1e300, widest = 0.0;
  for (size_t i = seen_from; i < n; ++i) {
    const Seen& t = k.from(int64_t(i), position);
    double magnitude = 0.0;
    for (size_t c = 0; c < channels; ++c) {
      const size_t g = c * t.scale.size() / channels;
      const double q = double(query[c]) / std::sqrt(double(channels)), scaled = double(t.scale[g]) * double(t.code[c]);
      s[i] += q * (scaled + double(t.offset[g]));
      magnitude += std::fabs(q) * (std::fabs(scaled) + std::fabs(double(t.offset[g])));
    }
    widest = std::max(widest, magnitude);
    peak = std::max(peak, s[i]);
  }
  double total = 0.0;
  for (size_t i = seen_from; i < n; ++i) total += s[i] = std::exp(s[i] - peak);
  // A score is at most C products, C sums of q, one term a group (at most C) and six roundings away; exp adds 2^-22;
  // both the weights and their total carry this. The chains over tokens round once a token, the total once in 16.
  // Joining spans: the steps from a span's peak to the last one go up only, so their roundings are those of one
  // difference of scores; each join takes an exp and two roundings.
  const double joins = double((n - 1) / size_t(kSpanTokens));
  const double exponent = double(3 * channels + 8) * kUnit * widest + (1.0 + joins) * 0x1.0p-22;
  const double relative = std::expm1(2.0 * exponent) + (double(n) * 17.0 / 16.0 + 10.0 + 4.0 * joins) * kUnit;
  for (size_t c = 0; c < channels; ++c) {
    double exact = 0.0, magnitude = 0.0;
    for (size_t i = seen_from; i < n; ++i) {
      const Seen& t = v.from(int64_t(i), position);
      const size_t g = c * t.scale.size() / channels;
      const double scaled = double(t.scale[g]) * double(t.code[c]), offset = t.offset[g];
      exact += s[i] / total * (scaled + offset);
      magnitude += s[i] / total * (std::fabs(scaled) + std::fabs(offset));
    }
    ASSERT_NEAR(double(got[c]), exact, relative * magnitude) << "channel " << c << ", position " << position;
  }
}

}  // namespace quire
