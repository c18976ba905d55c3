#include "kernels/cpu/row_simd.h"
#include "kernels/cpu/target.h"
#include "kernels/math.h"

QUIRE_TARGET_AVX512
namespace quire::cpu {
namespace avx512 {
namespace {
#include "kernels/cpu/rows.inl"
}  // namespace
}  // namespace avx512
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {
extern const RowSimd kRowAvx512;
const RowSimd kRowAvx512 = {avx512::sum_of_squares, avx512::normalize,  avx512::glu,        avx512::rotate,
                            avx512::magnitude,      avx512::int8_codes, avx512::sparse_dot, avx512::sparse_dots};
}  // namespace quire::cpu
