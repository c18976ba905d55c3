// The written order of matmul.h as plain loops over canonical rows: what every other kernel must equal bit for bit.
#include <cmath>
#include <vector>

#include "kernels/cpu/matmul_cpu.h"

namespace quire::cpu {

FloatRows float_rows(const Context& ctx, const Tensor& x) {
  if (x.codec == id<F32> && x.data.pitch % 4 == 0) return {x.data.row<const float>(0), x.data.pitch / 4};
  float* rows = ctx.scratch->take<float>(x.rows * x.cols);
  ctx.parallel_for(x.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) info(x.codec).decode(x, m, 0, x.cols, rows + m * x.cols);
  });
  return {rows, x.cols};
}

void Output::store(int64_t m, int64_t n0, int64_t n, const float* sum) const {
  float* out = data + m * ld + n0;
  const float* bias = epilogue.bias ? epilogue.bias + n0 : nullptr;
  const float* residual = epilogue.residual ? epilogue.residual + m * ld + n0 : nullptr;
  if (bias && residual) {
    for (int64_t i = 0; i < n; ++i) out[i] = (sum[i] + bias[i]) + residual[i];
  } else if (bias) {
    for (int64_t i = 0; i < n; ++i) out[i] = sum[i] + bias[i];
  } else if (residual) {
    for (int64_t i = 0; i < n; ++i) out[i] = sum[i] + residual[i];
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = sum[i];
  }
}

namespace {

// One weight row against all of x.
void float_row(const FloatRows& x, int64_t rows, const Tensor& w, int64_t n, std::vector<float>& wn, const Output& y) {
  wn.resize(size_t(w.cols));
  info(w.codec).decode(w, n, 0, w.cols, wn.data());
  for (int64_t m = 0; m < rows; ++m) {
    float t = 0.0f;
    for (int64_t k = 0; k < w.cols; ++k) t = std::fmaf(x.data[m * x.ld + k], wn[size_t(k)], t);
    y.store(m, n, 1, &t);
  }
}

struct Sums {
  int32_t acc, sum;
};
Sums products(const int8_t* x, const int16_t* w, int64_t begin, int64_t end) {
  Sums s{0, 0};
  for (int64_t k = begin; k < end; ++k) {
    s.acc += int32_t(x[k]) * w[k];
    s.sum += x[k];
  }
  return s;
}

float integer_value(const Tensor& x, int64_t m, const Tensor& w, int64_t n, const int16_t* wn) {
  const int64_t k = w.cols, gw = scale_group(format_of(w)), gx = x.group;
  const CodecInfo& codec = info(w.codec);
  const int8_t* codes = x.data.row<const int8_t>(m);
  const float* sx = x.scale.row<const float>(m);
  if (gw == 0 && gx == 0) {
    const Sums s = products(codes, wn, 0, k);
    const AffineParams a = codec.affine(w, n, 0);
    const float value = (float(s.acc) * sx[0]) * a.scale;
    return codec.offset ? std::fmaf(a.offset * sx[0], float(s.sum), value) : value;
  }
  const int64_t segment = gw == 0 ? gx : gx == 0 ? gw : std::min(gw, gx);
  float t = 0.0f;
  for (int64_t begin = 0; begin < k; begin += segment) {
    const Sums s = products(codes, wn, begin, std::min(begin + segment, k));
    const AffineParams a = codec.affine(w, n, gw == 0 ? 0 : begin / gw);
    if (gx > 0) {
      float u = a.scale * float(s.acc);
      if (codec.offset) u = std::fmaf(a.offset, float(s.sum), u);
      t = std::fmaf(sx[begin / gx], u, t);
    } else {
      t = std::fmaf(a.scale, float(s.acc), t);
      if (codec.offset) t = std::fmaf(a.offset, float(s.sum), t);
    }
  }
  return gx > 0 ? t : sx[0] * t;
}

void integer_row(const Tensor& x, const Tensor& w, int64_t n, std::vector<int16_t>& wn, const Output& y) {
  wn.resize(size_t(w.cols));
  info(w.codec).codes(w, n, 0, w.cols, wn.data());
  for (int64_t m = 0; m < x.rows; ++m) {
    const float value = integer_value(x, m, w, n, wn.data());
    y.store(m, n, 1, &value);
  }
}

}  // namespace

void matmul_reference(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                      const Epilogue& epilogue) {
  const Tensor& rows = w.rows;
  const Output out = output_of(y, epilogue);
  const bool integer = integer_rule({format_of(rows), format_of(x), rows.rows, rows.cols});
  const FloatRows floats = integer ? FloatRows{} : float_rows(ctx, x);
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, x.rows * x.cols));
  ctx.parallel_for(rows.rows, grain, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> values;
    thread_local std::vector<int16_t> codes;
    for (int64_t n = begin; n < end; ++n) {
      if (integer) {
        integer_row(x, rows, n, codes, out);
      } else {
        float_row(floats, x.rows, rows, n, values, out);
      }
    }
  });
}

}  // namespace quire::cpu
