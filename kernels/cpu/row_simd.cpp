#include "kernels/cpu/row_simd.h"

namespace quire::cpu {

extern const RowSimd kRowBaseline, kRowAvx2, kRowAvx512;

const RowSimd& row_simd(Isa isa) {
  return isa == Isa::avx512 ? kRowAvx512 : isa == Isa::avx2 ? kRowAvx2 : kRowBaseline;
}

void encode_row(const RowSimd& simd, const Tensor& t, int64_t r, const float* x) {
  if (t.codec != id<Int8> || t.group == 1 || t.order != Order::natural) {
    info(t.codec).encode(t, r, 1, x, t.cols, scale_source(t));
    return;
  }
  const ScaleSource source = scale_source(t);
  float* scales = t.scale.row<float>(r);
  for (int64_t g = 0; g < t.groups(); ++g) {
    const int64_t begin = t.group_begin(g), n = t.group_end(g) - begin;
    if (n <= 0) continue;
    float inv;
    if (source == ScaleSource::found) {
      inv = Int8::store_scale(t, r, g, 0.0f, simd.magnitude(x + begin, n));
    } else {
      inv = inverse(scales[g]);
    }
    const int32_t sum = simd.int8_codes(x + begin, inv, n, t.data.row<int8_t>(r) + begin);
    if (t.aux.ptr) t.aux.row<int32_t>(r)[g] = sum;
  }
}

}  // namespace quire::cpu
