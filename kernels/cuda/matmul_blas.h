// matmul for many tokens through cuBLAS: weights are unpacked from frag8 / frag16 into scratch some rows at a time, as
// halfs (value rounded once: scale * code) or int8 codes. Sums of int8 are exact, so those results are the written
// order's bits; with halfs they depend on M.
#pragma once
#include "kernels/context.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/matmul_mma.h"

namespace quire::cuda {

// The most scratch one takes.
constexpr int64_t kBlasWeightBytes = int64_t(64) << 20, kBlasSumBytes = int64_t(64) << 20;
constexpr int64_t kBlasScratch = kBlasWeightBytes + kBlasSumBytes;

bool blas_supports(const FragShape& shape);
void blas_matmul(const Context& ctx, const MmaMatmul& op);

// Rows first_row.. (a multiple of 64) of the packed weight, `rows` of them, to (rows, ld): f16 or bf16 numbers of
// frag16, int8 codes of frag8. Columns from k on are zero for codes and anything for halfs; ld is a multiple of 16.
void frag_unpack(const FragShape& shape, const std::byte* packed, int64_t first_row, int64_t rows, std::byte* out,
                 int64_t ld, StreamHandle stream);
// y's columns first_row.. from sums (M, rows) of whole rows of codes.
void finish_sums(const MmaMatmul& op, const int32_t* sums, int64_t first_row, int64_t rows, StreamHandle stream);
void add_bias(float* y, int64_t ldy, int64_t m, int64_t n, const float* bias, StreamHandle stream);

}  // namespace quire::cuda
