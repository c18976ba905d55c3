#include <cmath>
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
#include "kernels/cpu/attention_block.inl"
#include "kernels/cpu/float_block.inl"
}  // namespace
}  // namespace avx512
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {
const AttentionSimd kAttentionAvx512 = {avx512::float_block,  avx512::key_panels, avx512::value_panels, avx512::fold,
                                        avx512::token_scores, avx512::softmax,    avx512::weigh};
}
