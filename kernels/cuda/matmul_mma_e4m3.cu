// e4m3 weights, with activations in e4m3 or f16: tensor cores have it from 8.9 on.
#include "base/error.h"
#include "kernels/cuda/matmul_mma_launch.cuh"

namespace quire::cuda {

void mma_launch_e4m3(const MmaArgs& a, const MmaForce& force, cudaStream_t stream) {
  mma_launch_segments<FieldE4M3>(a, force, stream);
}
template void mma_launch_segments<FieldHalfE4M3>(const MmaArgs&, const MmaForce&, cudaStream_t);

}  // namespace quire::cuda
