#include <cstring>

#include "kernels/cpu/attention_simd.h"
#include "kernels/cpu/target.h"
#include "kernels/math.h"

QUIRE_TARGET_AVX2
namespace quire::cpu {
namespace avx2 {
namespace {
#include "kernels/cpu/lanes_avx2.inl"
// After the lanes that they are written in.
#include "kernels/cpu/attention_lanes_avx2.inl"
#include "kernels/cpu/attention_panels.inl"
// After the panels.
#include "kernels/cpu/attention_block.inl"
}  // namespace
}  // namespace avx2
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {
const AttentionSimd kAttentionAvx2 = {avx2::span, avx2::query_sums, avx2::join};
}
