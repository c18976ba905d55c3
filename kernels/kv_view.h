// One layer of the paged cache as attention reads it.
#pragma once
#include "kernels/batch.h"
#include "quant/kv_layout.h"

namespace quire {

struct KvView {
  KvLayout layout;
  std::byte* pool = nullptr;  // this layer's blocks
  int64_t kv_heads = 0;
  const int32_t* page_table = nullptr;  // (slots, max_pages): page ids
  int64_t max_pages = 0;
  float k_scale = 1.0f, v_scale = 1.0f;  // for formats whose scale is static (fp8)
  // Sealed layouts: f16 pages for the pages this step touches. Sequence i of the batch owns those from
  // open_first[i], for page_index position/64 onwards; each holds kv_heads blocks of `open_layout`.
  KvLayout open_layout;
  std::byte* open_pool = nullptr;
  const int64_t* open_first = nullptr;
  // On a GPU page_table lies there, and in place of open_first: the f16 page of each row of the batch, p >= 0 the one
  // that slot p keeps in stage_pool, p < 0 page ~p of open_pool. Null: rows are sequences of one token, in their
  // slots'.
  const int32_t* row_open = nullptr;  // (T)
  std::byte* stage_pool = nullptr;    // this layer's, one page a slot

  QUIRE_HD std::byte* block(int64_t slot, int64_t page_index, int64_t head) const {
    const int64_t page = page_table[slot * max_pages + page_index];
    return pool + kv_block_offset(layout, page, kv_heads, head);
  }
  QUIRE_HD std::byte* open_block_at(int32_t place, int64_t head) const {
    std::byte* pool_of = place >= 0 ? stage_pool : open_pool;
    return pool_of + kv_block_offset(open_layout, place >= 0 ? place : ~place, kv_heads, head);
  }
  QUIRE_HD std::byte* open_block_of_row(int64_t row, int32_t slot, int64_t head) const {
    return open_block_at(row_open ? row_open[row] : slot, head);
  }
  std::byte* open_block(int64_t sequence, const BatchSequence& s, int64_t page_index, int64_t head) const {
    const int64_t page = open_first[sequence] + page_index - s.position / kPageTokens;
    return open_pool + kv_block_offset(open_layout, page, kv_heads, head);
  }
};

}  // namespace quire
