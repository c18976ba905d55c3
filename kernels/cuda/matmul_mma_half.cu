// 4- and 8-bit weights, f16 activations.
#include "kernels/cuda/matmul_mma_launch.cuh"

namespace quire::cuda {

template void mma_launch_segments<FieldHalfNibble>(const MmaArgs&, const MmaForce&, cudaStream_t);
template void mma_launch_segments<FieldHalfByte>(const MmaArgs&, const MmaForce&, cudaStream_t);

}  // namespace quire::cuda
