// The cache on a GPU: what begin_step plans goes up as arrays of page numbers, and kernels do what kv_cache.cpp does.
#include <cstring>

#include "kernels/cuda/kv_append.h"
#include "kernels/cuda/ops.h"
#include "kvcache/kv_cache.h"

namespace quire {

void KvCache::copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) const {
  if constexpr (kCuda) {
    if (config_.device == Device::cuda) return cuda::copy_async(to, from, size_t(bytes), config_.stream);
  }
  std::memcpy(to, from, size_t(bytes));
}

void KvCache::upload_pages() {
  if (changes_.empty()) return;
  if constexpr (kCuda) {
    auto* pairs = reinterpret_cast<int32_t*>(uploads_->take(2 * changes_.size() * sizeof(int32_t)));
    int32_t* pair = pairs;
    for (const int32_t place : changes_) {
      *pair++ = place;
      *pair++ = page_table_[size_t(place)];
    }
    cuda::scatter_words(pairs, int64_t(changes_.size()), reinterpret_cast<int32_t*>(device_table_.data()),
                        config_.stream);
  }
  changes_.clear();
}

void KvCache::upload_step(const Batch& batch) {
  upload_pages();
  step_ = {};
  const size_t count = batch.sequences.size();
  while (size_t(step_.single) < count && batch.sequences[size_t(step_.single)].count == 1) ++step_.single;
  if (!layout_.sealed() || size_t(step_.single) == count) return;
  std::vector<int32_t> open, stage_in, sealed;
  for (size_t i = 0; i < count; ++i) {
    const BatchSequence& s = batch.sequences[i];
    if (s.count == 0) continue;
    const int64_t first = s.position / kPageTokens, end = s.position + s.count, last = (end - 1) / kPageTokens;
    const auto place = [&](int64_t page) { return page == last ? s.slot : ~int32_t(open_first_[i] + page - first); };
    for (int64_t p = s.position; p < end; ++p) open.push_back(place(p / kPageTokens));
    if (i < size_t(step_.single)) continue;
    if (s.position % kPageTokens != 0 && first != last) stage_in.insert(stage_in.end(), {s.slot, ~place(first)});
    for (int64_t page = first; (page + 1) * kPageTokens <= end; ++page) {
      sealed.insert(sealed.end(), {place(page), page_table_[size_t(s.slot * max_pages_ + page)]});
    }
  }
  step_.stage_in = int64_t(stage_in.size() / 2);
  step_.sealed = int64_t(sealed.size() / 2);
  const size_t at_sealed = open.size() + stage_in.size(), at_stage_in = open.size();
  open.insert(open.end(), stage_in.begin(), stage_in.end());
  open.insert(open.end(), sealed.begin(), sealed.end());
  const size_t bytes = open.size() * sizeof(int32_t);
  if (step_arrays_.size() < bytes) step_arrays_ = Buffer(2 * bytes, Device::cuda);
  if constexpr (kCuda) uploads_->copy(step_arrays_.data(), open.data(), bytes);
  step_.open = reinterpret_cast<const int32_t*>(step_arrays_.data());
  step_.stage_in_pairs = step_.open + at_stage_in;
  step_.sealed_pairs = step_.open + at_sealed;
}

void KvCache::append_on_device(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v,
                               const Rotation* rotation) {
  check(batch.device.slots != nullptr, "kv cache: the batch was not uploaded");
  if constexpr (kCuda) {
    cuda::KvAppend a;
    a.kv = view(layer);
    a.slots = batch.device.slots;
    a.positions = batch.device.positions;
    a.k = k.data.row<const float>(0);
    a.k_ld = k.data.pitch / 4;
    a.v = v.data.row<const float>(0);
    a.v_ld = v.data.pitch / 4;
    a.single = step_.open ? step_.single : batch.size();
    if (rotation) {
      const auto& [q, heads, table] = *rotation;
      check(q.rows == batch.size() && q.cols == heads * config_.head_dim && heads % config_.kv_heads == 0 &&
                table.on_device() && table.dim() <= config_.head_dim,
            "kv cache: queries {} of {} heads cannot be rotated with keys of {} heads of {}", describe(q), heads,
            config_.kv_heads, config_.head_dim);
      a.table = table.on_device();
      a.rope_dim = table.dim();
      a.q = q.data.row<float>(0);
      a.q_ld = q.data.pitch / 4;
      a.heads = heads;
    }
    const int64_t stage_block = config_.kv_heads * open_layout_.bytes;
    if (step_.stage_in > 0) {
      cuda::copy_blocks(ctx, a.kv.stage_pool, open_.data(), step_.stage_in_pairs, step_.stage_in, stage_block);
    }
    cuda::kv_append(ctx, a, batch.size());
    cuda::kv_seal(ctx, a.kv, step_.sealed_pairs, step_.sealed);
  }
}

}  // namespace quire
