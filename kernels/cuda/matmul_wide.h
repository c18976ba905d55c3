// The wgmma kernel behind matmul_mma.h (matmul_wide.cu).
#pragma once
#include <cuda_runtime.h>

#include "kernels/frag_layout.h"

namespace quire::cuda {

struct MmaArgs;
bool wide_supports(FragCode code, int segment);
void wide_matmul(FragCode code, const MmaArgs& args, cudaStream_t stream);

}  // namespace quire::cuda
