// Float activations (and whatever meets in f32): panels are decoded a K block at a time into a buffer that stays in
// cache, shared by all rows of x; f32 panels are read where they lie. Cutting K does not change the chain of fma.
#include <vector>

#include "kernels/cpu/matmul_simd.h"

namespace quire::cpu {

namespace {

constexpr int64_t kBlockK = 256;  // two panels of f32 in L1
constexpr int64_t kBlockP = 2;    // panels of a unit of work
constexpr int64_t kBlockM = 256;
constexpr int64_t kFewRows = 8;  // of x: then memory bounds, and a thread walks a long run of panels
constexpr int64_t kRuns = 16;
constexpr int64_t kRunBytes = 16384;   // of panels that are read straight from memory
constexpr int64_t kSlowBlockM = 2048;  // where decoding is slow it is shared by more rows

using Source = PanelSource;

struct Panels {
  Source source;
  const PackedWeight* w;
  const MatmulSimd* simd;
  IntPanels shape;  // of codes
  E8Panels e8;

  // Where the K block that begins at k0 ends.
  int64_t block_end(int64_t k0) const {
    const int64_t k = w->problem.k, end = std::min(k0 + kBlockK, k);
    if (source != Source::codes) return end;
    if (shape.sub >= kBlockK) return std::min(end, shape.sub_end(k0 / shape.sub));  // a block begins on a chunk
    return std::min(k0 + kBlockK / shape.sub * shape.sub, k);
  }
  // Columns [k0, k1) of a panel as f32 [k][16], in place or in `out`.
  // What lies `ahead` panels on is fetched meanwhile.
  const float* block(int64_t panel, int64_t k0, int64_t k1, int64_t ahead, float* out) const;
};

void decode_rows(const Tensor& rows, int64_t panel, int64_t k0, int64_t k1, float* out) {
  float row[kBlockK];
  for (int64_t r = 0; r < kPanel; ++r) {
    const int64_t n = panel * kPanel + r;
    if (n < rows.rows) info(rows.codec).decode(rows, n, k0, k1 - k0, row);
    for (int64_t k = 0; k < k1 - k0; ++k) out[k * kPanel + r] = n < rows.rows ? row[k] : 0.0f;
  }
}

const float* Panels::block(int64_t panel, int64_t k0, int64_t k1, int64_t ahead, float* out) const {
  const std::byte* data = w->data.data();
  const int64_t elements = panel * kPanel * w->problem.k;
  if (source == Source::f32) return reinterpret_cast<const float*>(data) + elements + k0 * kPanel;
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(data) + elements;
  const int64_t bytes = source == Source::codes ? ahead * shape.panel_bytes
                        : source == Source::e8  ? ahead * e8.panel_bytes
                                                : (k1 - k0) * kPanel * 2;
  if (source == Source::f16) {
    simd->decode_f16(halves, k0, k1, bytes, out);
  } else if (source == Source::bf16) {
    simd->decode_bf16(halves, k0, k1, bytes, out);
  } else if (source == Source::spqr) {
    const int64_t panel_bytes = (w->problem.k + 15) / 16 * kSpqrTile;
    simd->decode_spqr(data + panel * panel_bytes, k0, k1, ahead * panel_bytes, out);
  } else if (source == Source::codes) {
    simd->decode_codes(shape, data + panel * shape.panel_bytes, k0, k1, bytes, out);
  } else if (source == Source::e8) {
    simd->decode_e8(e8, data + panel * e8.panel_bytes, k0, k1, bytes, out);
  } else {
    decode_rows(w->rows, panel, k0, k1, out);
  }
  return out;
}

Panels panels_of(const MatmulSimd& simd, const PackedWeight& w) {
  Panels p{Source::canonical, &w, &simd, {}, {}};
  if (w.layout == &kFloatPanels) {
    p.source = w.problem.w.codec == id<F32> ? Source::f32 : w.problem.w.codec == id<F16> ? Source::f16 : Source::bf16;
  } else if (w.layout == &kSpqrPanels) {
    p.source = Source::spqr;
  } else if (w.layout == &kE8Panels) {
    p.source = Source::e8;
    p.e8 = e8_panels(w.problem);
  } else if (w.layout) {
    p.source = Source::codes;
    p.shape = int_panels(w.problem);
  }
  return p;
}

// Rows [m0, m0 + m) times panels [p0, p0 + count).
void unit(const Panels& panels, const FloatRows& x, int64_t m0, int64_t m, int64_t p0, int64_t count, int64_t ahead,
          const Output& y) {
  thread_local std::vector<float> part, buffer;
  part.resize(size_t(m * count * kPanel));
  buffer.resize(size_t(kBlockK * count * kPanel));
  const int64_t k = panels.w->problem.k;
  FloatBlock b{x.data + m0 * x.ld, x.ld, m, 0, nullptr, 0, count, part.data(), count * kPanel, true};
  if (k == 0) std::fill(part.begin(), part.end(), 0.0f);
  for (int64_t k0 = 0, k1; k0 < k; k0 = k1) {
    k1 = panels.block_end(k0);
    const bool direct = panels.source == Source::f32;
    b.panel_stride = kPanel * (direct ? k : k1 - k0);
    for (int64_t p = 0; p < count; ++p) {
      const float* at = panels.block(p0 + p, k0, k1, ahead, buffer.data() + p * kPanel * (k1 - k0));
      if (p == 0) b.w = at;
    }
    b.x = x.data + m0 * x.ld + k0;
    b.k = k1 - k0;
    b.first = k0 == 0;
    panels.simd->float_block(b);
  }
  const int64_t n0 = p0 * kPanel, n = std::min(count * kPanel, panels.w->problem.n - n0);
  for (int64_t i = 0; i < m; ++i) y.store(m0 + i, n0, n, part.data() + i * count * kPanel);
}

// Few rows of x: memory bounds, and a thread walks long runs of panels.
void stream(const Panels& panels, const Context& ctx, const FloatRows& x, int64_t m, const Output& y) {
  const PackedWeight& w = *panels.w;
  const int64_t all = (w.problem.n + kPanel - 1) / kPanel, bytes = w.layout->bytes(w.problem) / all;
  const int64_t run = std::max<int64_t>(2, kRunBytes / bytes / 2 * 2);
  ctx.parallel_for(all, run, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> part;
    const int64_t count = end - begin, width = count * kPanel, n0 = begin * kPanel;
    part.resize(size_t(m * width));
    panels.simd->float_stream({panels.source, &panels.shape, x.data, x.ld, m, w.problem.k,
                               w.data.data() + begin * bytes, bytes, count, part.data(), width});
    const int64_t n = std::min(width, w.problem.n - n0);
    for (int64_t i = 0; i < m; ++i) y.store(i, n0, n, part.data() + i * width);
  });
}

}  // namespace

void matmul_float(const MatmulSimd& simd, const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                  const Epilogue& epilogue) {
  const Panels panels = panels_of(simd, w);
  const FloatRows rows = float_rows(ctx, x);
  const Output out = output_of(y, epilogue);
  const bool streams = panels.source == Source::codes
                           ? can_stream(panels.shape)
                           : panels.source != Source::canonical && panels.source != Source::e8;
  if (x.rows <= kStreamM && streams && w.problem.k > 0) return stream(panels, ctx, rows, x.rows, out);
  const int64_t all = (w.problem.n + kPanel - 1) / kPanel;
  const int64_t block_m = panels.source == Source::canonical ? kSlowBlockM : kBlockM;
  const int64_t across = (all + kBlockP - 1) / kBlockP, down = (x.rows + block_m - 1) / block_m;
  const int64_t run = x.rows <= kFewRows ? (across + kRuns - 1) / kRuns : 1;
  ctx.parallel_for(across * down, run, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t m0 = u / across * block_m, p0 = u % across * kBlockP, ahead = u + 1 < end ? kBlockP : 0;
      unit(panels, rows, m0, std::min(block_m, x.rows - m0), p0, std::min(kBlockP, all - p0), ahead, out);
    }
  });
}

}  // namespace quire::cpu
