// int8 weights, int8 activations.
#include "kernels/cuda/matmul_mma_launch.cuh"

namespace quire::cuda {

template void mma_launch_rows<FieldInt8>(const MmaArgs&, const MmaForce&, cudaStream_t);
template void mma_launch_segments<FieldInt8>(const MmaArgs&, const MmaForce&, cudaStream_t);

}  // namespace quire::cuda
