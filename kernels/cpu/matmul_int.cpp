// int8 activations with byte and nibble panels.
#include <cstring>
#include <vector>

#include "kernels/cpu/matmul_simd.h"

namespace quire::cpu {

namespace {

constexpr int64_t kBlockM = 256;
constexpr int64_t kBlockP = 2;   // panels of a unit of work
constexpr int64_t kFewRows = 8;  // of x: then memory bounds, and a unit is a run of panels
constexpr int64_t kRunBytes = 16384;

int32_t sum_codes(const int8_t* x, int64_t n) {
  int32_t sum = 0;
  for (int64_t k = 0; k < n; ++k) sum += x[k];
  return sum;
}

// Codes where they lie if each sub fills its chunks, else padded with zeros; sums from x.aux if it holds those of the
// subs.
IntRows int_rows(const Context& ctx, const Tensor& x, const IntPanels& s) {
  const int64_t scales = s.subs_per_x ? x.groups() : 1, padded = s.padded_k(), step = s.sub_chunks() * s.chunk;
  int32_t* sums = ctx.scratch->take<int32_t>(x.rows * s.subs);
  float* sx = ctx.scratch->take<float>(x.rows * scales);
  int8_t* copy = s.dense() ? nullptr : ctx.scratch->take<int8_t>(x.rows * padded);
  const bool given = x.aux.ptr && x.groups() == s.subs;
  ctx.parallel_for(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const int8_t* codes = x.data.row<const int8_t>(m);
      std::memcpy(sx + m * scales, x.scale.row<const float>(m), size_t(scales) * 4);
      if (given) std::memcpy(sums + m * s.subs, x.aux.row<const int32_t>(m), size_t(s.subs) * 4);
      if (copy) std::memset(copy + m * padded, 0, size_t(padded));
      for (int64_t i = 0; i < s.subs && !(given && !copy); ++i) {
        const int64_t n = s.sub_end(i) - i * s.sub;
        if (!given) sums[m * s.subs + i] = sum_codes(codes + i * s.sub, n);
        if (copy) std::memcpy(copy + m * padded + i * step, codes + i * s.sub, size_t(n));
      }
    }
  });
  return {copy ? copy : x.data.row<const int8_t>(0), copy ? padded : x.data.pitch, sums, sx, scales};
}

}  // namespace

void matmul_int(const MatmulSimd& simd, const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                const Epilogue& epilogue) {
  const IntPanels s = int_panels(w.problem);
  const IntRows rows = int_rows(ctx, x, s);
  const Output out = output_of(y, epilogue);
  const int64_t all = (s.n + kPanel - 1) / kPanel;
  const int64_t run = x.rows <= kFewRows ? std::max<int64_t>(1, kRunBytes / s.panel_bytes) : kBlockP;
  const int64_t across = (all + run - 1) / run, down = (x.rows + kBlockM - 1) / kBlockM;
  const bool whole = s.subs_per_segment == s.subs && !epilogue.bias && !epilogue.residual;
  ctx.parallel_for(across * down, 1, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> part;
    for (int64_t u = begin; u < end; ++u) {
      const int64_t m0 = u / across * kBlockM, m = std::min(kBlockM, x.rows - m0);
      const int64_t p0 = u % across * run, panels = std::min(run, all - p0), width = panels * kPanel;
      const int64_t n0 = p0 * kPanel, n = std::min(width, s.n - n0);
      // Straight into y where nothing is to be added, no lane is padding and every sum is written once.
      const bool direct = whole && n == width;
      if (!direct) part.resize(size_t(m * width));
      IntRows xm = rows;
      xm.codes += m0 * rows.ld;
      xm.sums += m0 * s.subs;
      xm.scales += m0 * rows.scales_a_row;
      float* to = direct ? out.data + m0 * out.ld + n0 : part.data();
      simd.int_block({&s, xm, m, w.data.data() + p0 * s.panel_bytes, panels, to, direct ? out.ld : width});
      for (int64_t i = 0; i < m && !direct; ++i) out.store(m0 + i, n0, n, part.data() + i * width);
    }
  });
}

}  // namespace quire::cpu
