// The cache on a GPU: what begin_step plans goes up as arrays of page numbers, and kernels do what kv_cache.cpp does.
#include <cstring>

#include "kernels/cuda/encode.h"
#include "kernels/cuda/ops.h"
#include "kvcache/kv_cache.h"

namespace quire {

void KvCache::copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) const {
  if constexpr (kCuda) {
    if (config_.device == Device::cuda) return cuda::copy_async(to, from, size_t(bytes), config_.stream);
  }
  std::memcpy(to, from, size_t(bytes));
}

void KvCache::upload_step(const Batch& batch) {
  std::vector<int32_t> pages, positions, open, stage_in, stage_out, sealed;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const BatchSequence& s = batch.sequences[i];
    const int64_t first = s.position / kPageTokens, end = s.position + s.count;
    const auto open_page = [&](int64_t page) { return int32_t(open_first_[i] + page - first); };
    for (int64_t p = s.position; p < end; ++p) {
      pages.push_back(page_table_[size_t(s.slot * max_pages_ + p / kPageTokens)]);
      positions.push_back(int32_t(p));
      open.push_back(open_page(p / kPageTokens));
    }
    if (s.count == 0) continue;
    if (s.position % kPageTokens != 0) stage_in.insert(stage_in.end(), {s.slot, open_page(first)});
    if (end % kPageTokens != 0) stage_out.insert(stage_out.end(), {open_page(end / kPageTokens), s.slot});
    for (int64_t page = first; (page + 1) * kPageTokens <= end; ++page) {
      sealed.insert(sealed.end(), {open_page(page), page_table_[size_t(s.slot * max_pages_ + page)]});
    }
  }
  std::vector<int32_t> all;
  for (const std::vector<int32_t>* part : {&pages, &positions, &open, &stage_in, &stage_out, &sealed}) {
    all.insert(all.end(), part->begin(), part->end());
  }
  const size_t bytes = all.size() * sizeof(int32_t), table_bytes = page_table_.size() * sizeof(int32_t);
  if (step_arrays_.size() < bytes) step_arrays_ = Buffer(2 * bytes, Device::cuda);
  if (device_table_.size() == 0) device_table_ = Buffer(table_bytes, Device::cuda);
  if constexpr (kCuda) {
    cuda::copy_async(step_arrays_.data(), all.data(), bytes, config_.stream);
    if (table_changed_) cuda::copy_async(device_table_.data(), page_table_.data(), table_bytes, config_.stream);
  }
  table_changed_ = false;
  const int32_t* at = reinterpret_cast<const int32_t*>(step_arrays_.data());
  const auto next = [&](const std::vector<int32_t>& part) {
    const int32_t* begin = at;
    at += part.size();
    return begin;
  };
  step_ = {int64_t(pages.size()), int64_t(stage_in.size() / 2), int64_t(stage_out.size() / 2),
           int64_t(sealed.size() / 2)};
  step_.pages = next(pages);
  step_.positions = next(positions);
  step_.open = next(open);
  step_.stage_in_pairs = next(stage_in);
  step_.stage_out_pairs = next(stage_out);
  step_.sealed_pairs = next(sealed);
}

void KvCache::append_on_device(const Context& ctx, int64_t layer, const Tensor& k, const Tensor& v) {
  if constexpr (kCuda) {
    const KvView kv = view(layer);
    const bool sealed = layout_.sealed();
    const KvLayout& rows = sealed ? open_layout_ : layout_;
    const int64_t stage_block = config_.kv_heads * open_layout_.bytes;
    if (sealed) {
      cuda::copy_blocks(ctx, stage(layer, 0, 0), open_.data(), step_.stage_in_pairs, step_.stage_in, stage_block);
    }
    for (const bool keys : {true, false}) {
      const Tensor& x = keys ? k : v;
      cuda::EncodePlan plan;
      plan.from = cuda::RowsFrom::append;
      plan.x = x.data.row<const float>(0);
      plan.ld = x.data.pitch / 4;
      plan.kv.format = keys ? rows.k_format : rows.v_format;
      plan.kv.part = keys ? rows.k : rows.v;
      plan.kv.pool = sealed ? open_.data() : kv.pool;
      plan.kv.block_bytes = rows.bytes;
      plan.kv.kv_heads = config_.kv_heads;
      plan.kv.head_dim = config_.head_dim;
      plan.kv.static_scale = keys ? kv.k_scale : kv.v_scale;
      plan.kv.pages = sealed ? step_.open : step_.pages;
      plan.kv.positions = step_.positions;
      cuda::encode_rows(ctx, plan, step_.rows);
      if (!sealed) continue;
      plan.from = cuda::RowsFrom::seal;
      plan.kv.format = keys ? layout_.k_format : layout_.v_format;
      plan.kv.part = keys ? layout_.k : layout_.v;
      plan.kv.pool = kv.pool;
      plan.kv.block_bytes = layout_.bytes;
      plan.kv.sealed = step_.sealed_pairs;
      plan.kv.open_pool = open_.data();
      plan.kv.open_block_bytes = open_layout_.bytes;
      plan.kv.open_part = keys ? open_layout_.k : open_layout_.v;
      cuda::encode_rows(ctx, plan, step_.sealed);
    }
    if (sealed) {
      cuda::copy_blocks(ctx, open_.data(), stage(layer, 0, 0), step_.stage_out_pairs, step_.stage_out, stage_block);
    }
  }
}

}  // namespace quire
