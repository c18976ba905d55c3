#include "kernels/cpu/row_simd.h"
#include "kernels/cpu/target.h"
#include "kernels/math.h"

namespace quire::cpu {
namespace baseline {
namespace {
#include "kernels/cpu/rows.inl"
}  // namespace
}  // namespace baseline
}  // namespace quire::cpu

namespace quire::cpu {
extern const RowSimd kRowBaseline;
const RowSimd kRowBaseline = {baseline::sum_of_squares, baseline::normalize,  baseline::glu,
                              baseline::rotate,         baseline::magnitude,  baseline::int8_codes,
                              baseline::sparse_dot,     baseline::sparse_dots};
}  // namespace quire::cpu
