#include <cmath>
#include <cstring>

#include "kernels/cpu/attention_simd.h"
#include "kernels/cpu/target.h"
#include "kernels/math.h"

namespace quire::cpu {
namespace baseline {
namespace {
#include "kernels/cpu/lanes_baseline.inl"
// After the lanes that they are written in.
#include "kernels/cpu/attention_block.inl"
#include "kernels/cpu/float_block.inl"
}  // namespace
}  // namespace baseline
}  // namespace quire::cpu

namespace quire::cpu {
const AttentionSimd kAttentionBaseline = {baseline::float_block, baseline::key_panels,   baseline::value_panels,
                                          baseline::fold,        baseline::token_scores, baseline::softmax,
                                          baseline::weigh};
}
