// What the CPU kernels of matmul share. Not for other ops.
#pragma once
#include "kernels/matmul.h"

namespace quire::cpu {

// int8 activations meet integer weights in the integers; every other pair meets in f32.
inline bool integer_rule(const MatmulProblem& p) { return p.x.codec == id<Int8> && info(p.w.codec).integer; }

// Values that share a scale along a row, 0 for the whole row. Second-level groups are integers, not scales.
inline int64_t scale_group(Format f) { return f.codec == id<TwoLevel4> ? 0 : f.group; }

// x as f32 rows: where it lies if it is f32, else decoded into scratch.
struct FloatRows {
  const float* data;  // (M, K)
  int64_t ld;
};
FloatRows float_rows(const Context& ctx, const Tensor& x);

// y[m, n0 .. n0 + n) = sum + bias, then + residual.
struct Output {
  float* data;  // (M, N)
  int64_t ld;
  Epilogue epilogue;
  void store(int64_t m, int64_t n0, int64_t n, const float* sum) const;
};
inline Output output_of(const Tensor& y, const Epilogue& epilogue) {
  return {y.data.row<float>(0), y.data.pitch / 4, epilogue};
}

void matmul_reference(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                      const Epilogue& epilogue);

}  // namespace quire::cpu
