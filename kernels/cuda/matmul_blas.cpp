#include "kernels/cuda/matmul_blas.h"

#include <algorithm>

#include "kernels/cuda/encode.h"

namespace quire::cuda {

namespace {

int64_t padded(int64_t k) { return (k + 15) / 16 * 16; }

// Rows of w at a time: whole panels.
int64_t rows_at_once(const FragShape& s, int64_t m) {
  int64_t rows = kBlasWeightBytes / (padded(s.k) * (s.half() ? 2 : 1));
  if (!s.half()) rows = std::min(rows, kBlasSumBytes / (4 * m));
  return std::min(std::max<int64_t>(1, rows / kFragRows), s.panels()) * kFragRows;
}

void multiply_halfs(const Context& ctx, const MmaMatmul& op, int64_t rows, std::byte* w) {
  const FragShape& s = op.shape;
  if (op.residual && op.residual != op.y) {
    const Plane from{reinterpret_cast<std::byte*>(const_cast<float*>(op.residual)), op.ldy * 4, 1};
    const PlaneCopy copy{from, {reinterpret_cast<std::byte*>(op.y), op.ldy * 4, 1}, s.n * 4};
    copy_rows(ctx, &copy, 1, nullptr, op.m);
  }
  for (int64_t row = 0; row < s.n; row += rows) {
    const int64_t n = std::min(rows, s.n - row);
    frag_unpack(s, op.w, row, n, w, padded(s.k), ctx.stream);
    const BlasShape shape{op.m, n, s.k, op.x_pitch / 2, padded(s.k), op.ldy};
    ctx.blas->halfs(op.x_type == MmaX::bf16, op.x, w, op.y + row, shape, op.residual != nullptr);
  }
  if (op.bias) add_bias(op.y, op.ldy, op.m, s.n, op.bias, ctx.stream);
}

// Columns that pad K are zero in w, so whatever pads x's rows does not count.
void multiply_bytes(const Context& ctx, const MmaMatmul& op, int64_t rows, std::byte* w, int32_t* sums) {
  const FragShape& s = op.shape;
  for (int64_t row = 0; row < s.n; row += rows) {
    const int64_t n = std::min(rows, s.panels() * kFragRows - row);
    frag_unpack(s, op.w, row, n, w, padded(s.k), ctx.stream);
    ctx.blas->bytes(op.x, w, sums, {op.m, n, padded(s.k), op.x_pitch, padded(s.k), n});
    finish_sums(op, sums, row, n, ctx.stream);
  }
}

}  // namespace

bool blas_supports(const FragShape& s) { return s.half() || (s.segment == 0 && s.code != FragCode::e4m3); }

void blas_matmul(const Context& ctx, const MmaMatmul& op) {
  const FragShape& s = op.shape;
  check(ctx.blas != nullptr, "matmul: the context has no cuBLAS");
  if (s.half()) {
    const int64_t rows = rows_at_once(s, op.m);
    return multiply_halfs(ctx, op, rows, ctx.scratch->take_bytes(size_t(rows * padded(s.k) * 2)));
  }
  // Sums of one panel must fit: more tokens than that come in turn.
  const int64_t most = kBlasSumBytes / (4 * kFragRows);
  for (int64_t begin = 0; begin < op.m; begin += most) {
    const Scratch::Scope scope(*ctx.scratch);
    MmaMatmul part = op;
    part.m = std::min(most, op.m - begin);
    part.x += begin * op.x_pitch;
    part.sx += begin * op.sx_pitch;
    if (part.sums) part.sums += begin * op.sums_pitch;
    part.y += begin * op.ldy;
    if (part.residual) part.residual += begin * op.ldy;
    const int64_t rows = rows_at_once(s, part.m);
    std::byte* w = ctx.scratch->take_bytes(size_t(rows * padded(s.k)));
    multiply_bytes(ctx, part, rows, w, ctx.scratch->take<int32_t>(rows * part.m));
  }
}

}  // namespace quire::cuda
