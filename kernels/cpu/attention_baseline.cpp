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
#include "kernels/cpu/attention_lanes_baseline.inl"
#include "kernels/cpu/attention_panels.inl"
// After the panels.
#include "kernels/cpu/attention_block.inl"
}  // namespace
}  // namespace baseline

const AttentionSimd kAttentionBaseline = {baseline::span, baseline::query_sums, baseline::join};
}  // namespace quire::cpu
