// Causal attention over the paged cache, for decode rows and prompt chunks alike.
//
// Codes are multiplied raw; scales are folded into q (keys per channel), the score (keys per token) or the probability
// (values). A query reads its own page as f16 and every earlier page as codes when the layout is sealed; otherwise
// codes throughout. One written order, so results do not depend on batch, chunking, paging or threads; for a query row
// q (already times 1/sqrt(C)):
//   keys per channel:  qf[c] = q[c] * scale[c];  s = (fma over c of qf[c] * code[c]) + (lane sum over c of q[c] *
//   offset[c]) keys per token:    s = sum over groups of fma(offset, lane sum of q, scale * (fma over c of q[c] *
//   code[c])) p = exp_f32(s - max);  total = lane sum of p out[c] = (fma over tokens of (p * scale) * code[c]  +  lane
//   sum over tokens of p * offset) / total
// "fma over" is one chain in order from 0. "Lane sum": lane i mod 16 takes its terms in order (fma for products), then
// the tree l += l + 8, l + 4, l + 2, l + 1.
#pragma once
#include "kernels/context.h"
#include "kernels/kv_view.h"

namespace quire {

// What a tile of rows is made for; Decoder::load refuses networks beyond it.
constexpr int64_t kMaxQueryGroup = 32;  // query heads that share a kv head
constexpr int64_t kMaxHeadDim = 512;

// q (T, heads * C) f32, rotated; out (T, heads * C) f32. heads is a multiple of kv.kv_heads. The batch's keys and
// values are already in the cache.
void attention(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, int64_t heads,
               const Tensor& out);

}  // namespace quire
