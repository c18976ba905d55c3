// 4-bit weights with a float offset a group, int8 activations.
#include "kernels/cuda/matmul_mma_launch.cuh"

namespace quire::cuda {

template void mma_launch_rows<FieldNibbleOffset>(const MmaArgs&, const MmaForce&, cudaStream_t);
template void mma_launch_segments<FieldNibbleOffset>(const MmaArgs&, const MmaForce&, cudaStream_t);

}  // namespace quire::cuda
