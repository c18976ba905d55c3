// Weights as tensor cores read them (frag_layout.h), on NVIDIA GPUs: the layouts frag8 and frag16, and the matmul over
// them. Integer activations give the written order's bits (matmul.h). Floats are summed by the tensor core 128 columns
// at a time, then in order: the same bits for every M, within rounding of the written order.
#pragma once
#include "kernels/matmul.h"

namespace quire {

extern const WeightLayout kFrag8, kFrag16;  // int8 and e4m3 activations; f16 and bf16

bool matmul_frag_supports(const MatmulProblem& problem);  // on the current device
void matmul_frag(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue);

// The same through cuBLAS, for many rows of x (kernels/cuda/matmul_blas.h): needs a context with one.
bool matmul_blas_supports(const MatmulProblem& problem);
bool matmul_blas_is_faster(const Context& ctx, const MatmulProblem& problem, int64_t rows);
void matmul_blas(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue);

}  // namespace quire
