#include <cstring>

#include "kernels/cpu/matmul_simd.h"
#include "kernels/cpu/target.h"

QUIRE_TARGET_AVX2
namespace quire::cpu {
namespace avx2 {
namespace {
#include "kernels/cpu/lanes_avx2.inl"
// After the lanes that they are written in.
#include "kernels/cpu/e8_decode.inl"
#include "kernels/cpu/float_block.inl"
#include "kernels/cpu/int_meta.inl"
#include "kernels/cpu/spqr_tiles.inl"
// After the meta of panels.
#include "kernels/cpu/float_stream.inl"
#include "kernels/cpu/int_block.inl"
#include "kernels/cpu/panel_decode.inl"
}  // namespace
}  // namespace avx2
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {
const MatmulSimd kMatmulAvx2 = {avx2::float_block, avx2::float_stream, avx2::int_block,   avx2::decode_f16,
                                avx2::decode_bf16, avx2::decode_codes, avx2::decode_spqr, avx2::decode_e8};
}
