// A step's keys and values into the cache, and what turns them on the way.
#pragma once
#include "kernels/kv_view.h"
#include "quant/format.h"

namespace quire {
struct Context;
}

namespace quire::cuda {

// All pointers on the device. Row t of the step belongs to slots[t] (below zero: padding, nothing is written) and is
// token positions[t] of it. Bytes are the host's: the codecs are the same code.
struct KvAppend {
  KvView kv;
  const int32_t *slots = nullptr, *positions = nullptr;  // (T)
  const float *k = nullptr, *v = nullptr;                // (T, kv_heads * C)
  int64_t k_ld = 0, v_ld = 0;                            // floats from row to row
  // Rope, if there is a table: keys on their way, queries where they lie.
  const float* table = nullptr;  // (positions, 2, rope_dim / 2)
  int64_t rope_dim = 0;
  float* q = nullptr;  // (T, heads * C)
  int64_t q_ld = 0, heads = 0;
  // Sealed layouts: rows below it are whole steps of their sequences, and seal the page they fill.
  int64_t single = 0;
};

// One launch. kv.row_open says in which f16 page a row of a sealed layout goes.
void kv_append(const Context& ctx, const KvAppend& a, int64_t rows);

// Full f16 pages of kv (places as in kv.row_open) become codes of pages of the pool: pairs (place, page) on the device.
void kv_seal(const Context& ctx, const KvView& kv, const int32_t* pairs, int64_t count);

}  // namespace quire::cuda
