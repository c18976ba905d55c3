// 4-bit weights with a zero or a second level, int8 activations.
#include "kernels/cuda/matmul_mma_launch.cuh"

namespace quire::cuda {

template void mma_launch_rows<FieldNibbleAffine>(const MmaArgs&, const MmaForce&, cudaStream_t);
template void mma_launch_segments<FieldNibbleAffine>(const MmaArgs&, const MmaForce&, cudaStream_t);

}  // namespace quire::cuda
