// The inner loops of attention that exist once an instruction set: the same bodies (attention_block.inl) over each
// one's lanes.
#pragma once
#include "kernels/attention.h"
#include "kernels/cpu/panels.h"

namespace quire::cpu {

// What a row of a tile knows of the spans it has seen: the largest score, the sum of exp(score - peak) and the values
// weighted by it.
struct AttentionRows {
  float* peak;   // (rows)
  float* total;  // (rows)
  float* out;    // (rows, C)
};

// Rows of queries, ordered (token, query head), against one span of keys.
struct AttentionSpan {
  const Tensor* keys;    // the page parts of the span
  const Tensor* values;  //
  int64_t tokens;        // of the span that the last token of the tile sees
  int64_t first_sees;    // that its first token sees; every further token sees one more
  int64_t first_hidden;  // that lie before its first token's window, may be negative; one more for every further one
  int64_t rows, group, channels;
  int64_t k_groups, v_groups;  // of the layout
  const float* q;              // (rows, C), times 1/sqrt(C)
  const float* qsum;           // (rows, k_groups): lane sums of q
  // Scratch: rows x C, x kSpanTokens, x kPageTokens; 64 x C
  float *folded, *scores, *part, *panels;
  float* offsets;  // (rows, v_groups, 16)
  AttentionRows result;
};

struct AttentionSimd {
  void (*span)(const AttentionSpan& span);
  void (*query_sums)(const float* q, int64_t rows, int64_t channels, int64_t groups, float* qsum);
  // to = to and then from, as one sequence of spans
  void (*join)(const AttentionRows& to, const AttentionRows& from, int64_t rows, int64_t channels);
};
extern const AttentionSimd kAttentionBaseline, kAttentionAvx2, kAttentionAvx512;

}  // namespace quire::cpu
