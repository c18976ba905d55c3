#include "kernels/cpu/row_simd.h"
#include "kernels/cpu/target.h"
#include "kernels/math.h"

QUIRE_TARGET_AVX2
namespace quire::cpu {
namespace avx2 {
namespace {
#include "kernels/cpu/rows.inl"
}  // namespace
}  // namespace avx2
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {
extern const RowSimd kRowAvx2;
const RowSimd kRowAvx2 = {avx2::sum_of_squares, avx2::normalize,  avx2::glu,        avx2::rotate,
                          avx2::magnitude,      avx2::int8_codes, avx2::sparse_dot, avx2::sparse_dots};
}  // namespace quire::cpu
