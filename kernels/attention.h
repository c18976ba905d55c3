// Causal attention over the paged cache, for decode rows and prompt chunks alike.
//
// Codes are multiplied raw; scales are folded into q (keys per channel), the score (keys per token) or the probability
// (values). A query reads its own page as f16 and every earlier page as codes when the layout is sealed; otherwise
// codes throughout.
//
// One written order, so results do not depend on batch, chunking, paging or threads. A query row q (already times
// 1/sqrt(C)) takes its keys in spans: tokens 256 j to 256 j + 255 of the sequence, as far as it sees them. In a span:
//   keys per channel:  qf[c] = q[c] * scale[c];  s = (fma over c of qf[c] * code[c]) + (lane sum of q[c] * offset[c])
//   keys per token:    s = sum over groups of fma(offset, lane sum of q, scale * (fma over c of q[c] * code[c]))
//   peak = max of s;  p = exp_f32(s - peak);  total = lane sum of p
//   out[c] = (fma over tokens of (p * scale) * code[c]) + (lane sum over tokens of p * offset)
// The first span is joined with the second, that with the third and so on:
//   top = max(peak, peak');  a = exp_f32(peak - top);  b = exp_f32(peak' - top)
//   total = total * a + total' * b;  out[c] = fma(out'[c], b, out[c] * a)
// and in the end out[c] / total. "fma over" is one chain in order from 0. "Lane sum": lane i mod 16 takes its terms in
// order (fma for products), then the tree l += l + 8, l + 4, l + 2, l + 1.
//
// Spans are there so that threads can share one long sequence, and so that the memory a tile of queries takes does not
// grow with the sequence.
#pragma once
#include <cmath>
#include <string_view>

#include "kernels/context.h"
#include "kernels/kv_view.h"

namespace quire {

// What a tile of rows is made for; Decoder::load refuses networks beyond it.
constexpr int64_t kMaxQueryGroup = 32;  // query heads that share a kv head
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kSpanTokens = 4 * kPageTokens;

// What of a layer attention needs to know beside its cache.
struct AttentionShape {
  int64_t heads;
  int64_t window;  // a query sees so many tokens, the last of them its own; 0: all before it
  float scale;     // of the scores; 0: 1/sqrt(C)

  AttentionShape(int64_t heads, int64_t window = 0, float scale = 0.0f) : heads(heads), window(window), scale(scale) {}
  float softmax_scale(int64_t channels) const { return scale > 0 ? scale : 1.0f / std::sqrt(float(channels)); }
  // Tokens that a query at `position` does not see.
  QUIRE_HD static int64_t hidden(int64_t position, int64_t window) {
    return window > 0 && position >= window ? position + 1 - window : 0;
  }
};

// q (T, heads * C) f32, rotated; out (T, heads * C) f32. heads is a multiple of kv.kv_heads. The batch's keys and
// values are already in the cache. With a window a row's first span is the one its first token lies in; tokens before
// it count as scores of -1e30, whose p is 0.
// `kernel` forces one by name (tests, benchmarks); Error if it does not support the problem. "generic": the written
// order; everything, and the only one of the CPU. On a GPU, for heads of 64 or 128 and the formats listed in
// kernels/cuda/kv_fields.h, without a window that the context passes: "mma", taken where it can, multiplies codes on
// tensor cores. q and the softmax's weights are rounded to f16 (relative 2^-11), sums are f32; sequences are cut so
// that the batch is shared evenly, and their last bits depend on it. "mma_fixed": cut by a sequence's own length,
// results do not depend on what else is in the batch, but a token alone in its step has another kernel than one of a
// longer chunk. "mma_prefill": all have that one, uncut, so results do not depend on chunks either; taken if the
// context is `deterministic`. Slow for one long sequence.
void attention(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, const AttentionShape& shape,
               const Tensor& out, std::string_view kernel = {});

// The most scratch it takes on a GPU: of one launch of the decode kernel.
int64_t gpu_attention_scratch(const KvLayout& layout, int64_t heads, int64_t kv_heads);

// The most scratch it takes on the CPU for steps of up to `tokens`, over sequences of up to `context` tokens.
int64_t attention_scratch(const KvLayout& layout, int64_t heads, int64_t kv_heads, int64_t tokens, int64_t context,
                          int threads);

}  // namespace quire
