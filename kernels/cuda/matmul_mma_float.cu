// f16 and bf16 weights, activations as they are.
#include "kernels/cuda/matmul_mma_launch.cuh"

namespace quire::cuda {

template void mma_launch_segments<FieldHalf>(const MmaArgs&, const MmaForce&, cudaStream_t);
template void mma_launch_segments<FieldBfloat>(const MmaArgs&, const MmaForce&, cudaStream_t);

}  // namespace quire::cuda
