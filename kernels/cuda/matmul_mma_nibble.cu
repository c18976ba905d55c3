// Symmetric 4-bit weights, int8 activations.
#include "kernels/cuda/matmul_mma_launch.cuh"

namespace quire::cuda {

template void mma_launch_rows<FieldNibbleSigned>(const MmaArgs&, const MmaForce&, cudaStream_t);
template void mma_launch_segments<FieldNibbleSigned>(const MmaArgs&, const MmaForce&, cudaStream_t);

}  // namespace quire::cuda
