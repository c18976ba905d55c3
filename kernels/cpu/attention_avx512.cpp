#include <cstring>

#include "kernels/cpu/attention_simd.h"
#include "kernels/cpu/target.h"
#include "kernels/math.h"

QUIRE_TARGET_AVX512
namespace quire::cpu {
namespace avx512 {
namespace {
#include "kernels/cpu/lanes_avx512.inl"
// After the lanes that they are written in.
#include "kernels/cpu/attention_lanes_avx512.inl"
#include "kernels/cpu/attention_panels.inl"
// After the panels.
#include "kernels/cpu/attention_block.inl"
}  // namespace
}  // namespace avx512
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {
const AttentionSimd kAttentionAvx512 = {avx512::span, avx512::query_sums, avx512::join};
}
