// y(M, N) = x(M, K) w(N, K)^T [+ bias] [+ residual], y in f32.
//
// One written order of f32 operations, the same on every device, ISA, tile shape, thread count and M, so results are
// equal bit for bit whatever the batch (but for kernels that are not `exact`: float x on tensor cores, and many rows of
// halfs through cuBLAS, which a `deterministic` context does without):
//   float x:    y = fma over k = 0..K-1 in order, on decoded values (f32), from 0.
//   int8 x, integer w: acc = the exact int32 sum of code products; sum = the sum of x's codes (x.aux)
//     w and x with one scale a row:  y = fma(offset * sx, float(sum), (float(acc) * sx) * scale), without an offset the
//     second term alone otherwise, over the segments g in which both have one scale, in order from t = 0:
//       u = scale_g * float(acc_g); with an offset u = fma(offset_g, float(sum_g), u); t = fma(sx_g, u, t)   (x has
//       groups), or t = fma(scale_g, float(acc_g), t); with an offset t = fma(offset_g, float(sum_g), t); y = sx * t (x
//       has one scale)
//     (group sizes of w and x: one divides the other; a format with a group has groups however short K is; the groups
//     of a two-level weight share one scale a row: to this rule it is an int8 matrix)
//   int8 x, any other w: x is decoded and the rule for float x holds
//   then y = y + bias[n], then y = y + residual[m][n]. Weights that lie beside the matrix come after it (sparse.h).
#pragma once
#include <string_view>
#include <vector>

#include "kernels/context.h"

namespace quire {

struct Epilogue {
  const float* bias = nullptr;      // (N), where y lies
  const float* residual = nullptr;  // (M, N), leading dimension of y; may be y itself
};

// What a kernel is asked to do, known at load.
struct MatmulProblem {
  Format w, x;
  int64_t n, k;
};

// How a packed weight lies in memory; opaque to everyone but the kernels that name it.
struct WeightLayout {
  const char* name;
  bool (*supports)(const MatmulProblem& problem);
  int64_t (*bytes)(const MatmulProblem& problem);  // known from the problem alone
  // Packs canonical rows src (n, K) as rows row0.. of dst. row0 is a multiple of 64 unless it is 0.
  void (*pack)(const Tensor& src, const MatmulProblem& problem, int64_t row0, std::byte* dst);
  void (*unpack)(const std::byte* src, const MatmulProblem& problem, int64_t row, float* out);  // one row, decoded (K)
  // pack on the device of ctx; null: only on the CPU.
  void (*pack_on_gpu)(const Context& ctx, const Tensor& src, const MatmulProblem& problem, int64_t row0,
                      std::byte* dst) = nullptr;
};

struct PackedWeight {
  MatmulProblem problem{};
  const WeightLayout* layout = nullptr;  // null: canonical rows, used as they lie
  Tensor rows;                           // canonical (N, K), when layout is null
  Buffer data;
};

struct MatmulKernel {
  const char* name;
  const WeightLayout* layout;  // null: reads canonical rows
  Isa isa;                     // least that it needs
  bool (*supports)(const MatmulProblem& problem);
  void (*run)(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue);
  Device device = Device::cpu;
  bool exact = true;  // gives the written order's bits; else the same bits for every M, within rounding of it
  // Whether it is the best for so many rows of x; null: always. A row's bits may then depend on M, within rounding.
  bool (*prefers)(const Context& ctx, const MatmulProblem& problem, int64_t rows) = nullptr;
};

// In order of preference; the last of each device ("reference", "generic_int" and "generic_float") run everything.
const std::vector<MatmulKernel>& matmul_kernels();

// The layout the best kernel for this problem reads (null: canonical), for this device and ISA.
const WeightLayout* choose_layout(const MatmulProblem& problem, Isa isa, Device device = Device::cpu);

// Packing a slice at a time, so that a matrix need never be there whole beside its packed form: memory for the whole
// weight first (canonical rows where layout is null), then canonical rows src (n, K) as its rows row0.., in any order.
// row0 is a multiple of 64, except where layout is null. Slices in formats with a codebook share one. On the device of
// the context.
PackedWeight empty_weight(const MatmulProblem& problem, const WeightLayout* layout, Device device = Device::cpu);
void pack_slice(const Context& ctx, const Tensor& src, int64_t row0, PackedWeight& w);
// Rows of one tensor to those of another of the same format and K, scale by scale. On the CPU.
void copy_rows(const Tensor& src, const Tensor& dst);

// Packs w for activations of format x. `parts` are concatenated along N (qkv, gate and up): same format and K; on the
// device of the context.
PackedWeight pack_weight(const Context& ctx, const std::vector<Tensor>& parts, Format x, const WeightLayout* layout);

// `kernel` forces one by name (tests, benchmarks); Error if it does not support the problem. Every shape is checked.
void matmul(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue = {},
            std::string_view kernel = {});

}  // namespace quire
