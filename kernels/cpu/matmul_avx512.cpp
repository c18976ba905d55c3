#include <cstring>

#include "kernels/cpu/matmul_simd.h"
#include "kernels/cpu/target.h"

QUIRE_TARGET_AVX512
namespace quire::cpu {
namespace avx512 {
namespace {
#include "kernels/cpu/lanes_avx512.inl"
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
}  // namespace avx512
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {
const MatmulSimd kMatmulAvx512 = {avx512::float_block, avx512::float_stream, avx512::int_block,   avx512::decode_f16,
                                  avx512::decode_bf16, avx512::decode_codes, avx512::decode_spqr, avx512::decode_e8};
}
