// Writing rows in any format on the device, whatever the values come from. What fuses into it is a case of RowsFrom.
#pragma once
#include <cmath>

#include "kernels/context.h"

namespace quire::cuda {

enum class RowsFrom : uint8_t {
  plain,     // x[row]
  norm,      // rmsnorm of x[row]
  glu,       // silu(x[row][:cols]) * x[row][cols:]
  gelu_glu,  // the same with gelu_tanh
};

struct EncodePlan {
  RowsFrom from = RowsFrom::plain;
  Tensor to;  // (R, cols)
  const float* x = nullptr;
  int64_t ld = 0;                   // floats from row to row of x
  const int32_t* gather = nullptr;  // plain: row i is x[gather[i]]
  const float* weight = nullptr;    // norm: (cols)
  float eps = 0.0f;
  float zero_from = NAN;  // plain: values of at least this magnitude count as 0; NaN: none do
};

// rows: of `to`.
void encode_rows(const Context& ctx, const EncodePlan& plan, int64_t rows);

// out[i * ld + c] = value of src (gather ? gather[i] : i + row0), column c, for `rows` rows.
void decode_rows(const Context& ctx, const Tensor& src, const int32_t* gather, int64_t row0, int64_t rows, float* out,
                 int64_t ld);

// Rows of planes as they lie: dst row i = src row (gather ? gather[i] : i).
struct PlaneCopy {
  Plane from, to;
  int64_t bytes;
};
void copy_rows(const Context& ctx, const PlaneCopy* planes, int count, const int32_t* gather, int64_t rows);

}  // namespace quire::cuda
