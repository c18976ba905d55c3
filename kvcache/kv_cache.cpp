#include "kvcache/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "kernels/attention.h"

namespace quire {

namespace {

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Nothing non-finite enters the cache, so readers may copy whole pages: NaN becomes 0, the rest saturates at f16's
// range.
void finite_row(const float* src, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float x = src[i];
    out[i] = !(x == x) ? 0.0f : x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
  }
}

void encode_rows(const Tensor& part, int64_t row, int64_t n, const float* src, int64_t ld) {
  info(part.codec).encode(part, row, n, src, ld, scale_source(part));
}

// A full f16 page becomes codes: every span of it in one go.
void seal(const Tensor& open, const Tensor& sealed) {
  thread_local std::vector<float> values;  // never smaller again: a page of the largest head
  values.resize(std::max(values.size(), size_t(kPageTokens * open.cols)));
  for (int64_t i = 0; i < kPageTokens; ++i)
    info(open.codec).decode(open, i, 0, open.cols, values.data() + i * open.cols);
  const int64_t span = sealed.scale.rows;
  for (int64_t i = 0; i < kPageTokens; i += span)
    encode_rows(sealed, i, span, values.data() + i * open.cols, open.cols);
}

}  // namespace

int64_t KvCache::page_bytes(const KvCacheConfig& c) {
  return c.layers * c.kv_heads * kv_layout(c.scheme.k, c.scheme.v, c.head_dim).bytes;
}

int64_t KvCache::stage_bytes(const KvCacheConfig& c) {
  if (!kv_layout(c.scheme.k, c.scheme.v, c.head_dim).sealed()) return 0;
  return c.layers * c.slots * c.kv_heads * kv_layout({}, {}, c.head_dim).bytes;
}

int64_t KvCache::step_bytes(const KvCacheConfig& c, int64_t tokens) {
  if (!kv_layout(c.scheme.k, c.scheme.v, c.head_dim).sealed()) return 0;
  // n tokens of one sequence touch at most (n + 126) / 64 pages: those that fill whole ones, and one at each end.
  const int64_t sequences = std::min(c.slots, tokens);
  const int64_t pages = (tokens + sequences * (2 * kPageTokens - 2)) / kPageTokens;
  return pages * c.kv_heads * kv_layout({}, {}, c.head_dim).bytes;
}

KvCache::KvCache(const KvCacheConfig& config)
    : config_(config),
      layout_(kv_layout(config.scheme.k, config.scheme.v, config.head_dim)),
      open_layout_(kv_layout({}, {}, config.head_dim)),
      pool_(size_t(config.pages * page_bytes(config)), config.device),
      stage_(size_t(stage_bytes(config)), config.device),
      pages_(config.pages),
      slots_(size_t(config.slots)),
      page_table_(size_t(config.slots * pages_for(config.max_tokens)), 0),
      max_pages_(pages_for(config.max_tokens)),
      device_table_(config.device == Device::cuda ? page_table_.size() * sizeof(int32_t) : 0, config.device) {
  check(config.scales.empty() || int64_t(config.scales.size()) == config.layers,
        "kv cache: {} static scales for {} layers", config.scales.size(), config.layers);
  check(config.head_dim <= kMaxHeadDim, "kv cache: heads of {} channels; at most {} are supported", config.head_dim,
        kMaxHeadDim);
  if constexpr (kCuda) {
    if (config.device == Device::cuda) uploads_ = std::make_shared<cuda::Uploads>(config.stream);
  }
}

void KvCache::set_page(int32_t slot, int64_t page_index, int32_t page) {
  const int64_t place = slot * max_pages_ + page_index;
  page_table_[size_t(place)] = page;
  if (config_.device == Device::cuda) changes_.push_back(int32_t(place));
}

int32_t KvCache::open(std::span<const int32_t> tokens) {
  const auto it = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.used; });
  if (it == slots_.end()) return -1;
  const int32_t slot = int32_t(it - slots_.begin());
  // Once a page is held nothing can fail: there is room for all that a sequence can have.
  Slot fresh;
  fresh.pages.reserve(size_t(max_pages_));
  fresh.keys.reserve(size_t(max_pages_));
  fresh.tokens.reserve(size_t(kPageTokens));
  Slot& s = *it = std::move(fresh);
  s.used = true;
  uint64_t parent = Pages::kRoot;
  // The last token is always computed: its logits are wanted.
  while ((s.length + kPageTokens) < int64_t(tokens.size())) {
    const auto page_tokens = tokens.subspan(size_t(s.length), size_t(kPageTokens));
    const int32_t page = pages_.find(parent, page_tokens);
    if (page < 0) break;
    parent = Pages::key(parent, page_tokens);
    set_page(slot, int64_t(s.pages.size()), page);
    s.pages.push_back(page);
    s.keys.push_back(parent);
    s.length += kPageTokens;
  }
  return slot;
}

int32_t KvCache::fork(int32_t from) {
  const int32_t slot = open();
  if (slot < 0) return -1;
  slots_[size_t(slot)] = slots_[size_t(from)];
  const std::vector<int32_t>& pages = slots_[size_t(from)].pages;
  for (size_t i = 0; i < pages.size(); ++i) {
    pages_.retain(pages[i]);
    set_page(slot, int64_t(i), pages[i]);
  }
  for (int64_t layer = 0; stage_.size() > 0 && layer < config_.layers; ++layer) {
    copy_bytes(stage(layer, slot, 0), stage(layer, from, 0), config_.kv_heads * open_layout_.bytes);
  }
  return slot;
}

void KvCache::close(int32_t slot) {
  Slot& s = slots_[size_t(slot)];
  check(s.used, "kv cache: slot {} is not open", slot);
  // Last pages first: when room is needed, the ends of old sequences go before their beginnings.
  for (auto it = s.pages.rbegin(); it != s.pages.rend(); ++it) pages_.release(*it);
  s = Slot{};
}

int64_t KvCache::pages_needed(int32_t slot, int64_t tokens) const {
  const Slot& s = slots_[size_t(slot)];
  if (tokens <= 0) return 0;
  const int64_t held = int64_t(s.pages.size()), end = pages_for(s.length + tokens);
  int64_t needed = std::max<int64_t>(0, end - held);
  for (int64_t i = s.length / kPageTokens; i < std::min(held, end); ++i)
    needed += pages_.references(s.pages[size_t(i)]) > 1;
  return needed;
}

bool KvCache::reserve(int32_t slot, int64_t tokens) {
  Slot& s = slots_[size_t(slot)];
  check(s.length + tokens <= config_.max_tokens, "kv cache: {} tokens do not fit a sequence of at most {}",
        s.length + tokens, config_.max_tokens);
  if (tokens <= 0) return true;
  if (pages_needed(slot, tokens) > pages_.available()) return false;
  const int64_t end = pages_for(s.length + tokens);
  for (int64_t i = s.length / kPageTokens; i < end; ++i) {
    if (i < int64_t(s.pages.size())) {
      make_writable(slot, i);
    } else {
      s.pages.push_back(pages_.allocate());
      set_page(slot, i, s.pages.back());
    }
  }
  return true;
}

void KvCache::make_writable(int32_t slot, int64_t page_index) {
  Slot& s = slots_[size_t(slot)];
  const int32_t old = s.pages[size_t(page_index)];
  if (pages_.references(old) == 1) return;
  const int32_t page = pages_.allocate();
  const int64_t block = config_.kv_heads * layout_.bytes;
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    std::byte* pool = pool_.data() + layer * config_.pages * block;
    copy_bytes(pool + page * block, pool + old * block, block);
  }
  pages_.release(old);
  s.pages[size_t(page_index)] = page;
  set_page(slot, page_index, page);
}

std::byte* KvCache::stage(int64_t layer, int64_t slot, int64_t head) {
  return stage_.data() + ((layer * config_.slots + slot) * config_.kv_heads + head) * open_layout_.bytes;
}

void KvCache::begin_step(const Batch& batch) {
  open_first_.clear();
  int64_t pages = 0;
  for (const BatchSequence& s : batch.sequences) {
    const Slot& slot = slots_.at(size_t(s.slot));
    check(slot.used && s.position == slot.length, "kv cache: slot {} holds {} tokens; the batch continues at {}",
          s.slot, slot.length, s.position);
    check(pages_for(s.position + s.count) <= int64_t(slot.pages.size()), "kv cache: slot {} has no page for token {}",
          s.slot, s.position + s.count - 1);
    for (int64_t i = s.position / kPageTokens; i < pages_for(s.position + s.count); ++i) {
      check(pages_.references(slot.pages[size_t(i)]) == 1,
            "kv cache: slot {} shares the page it would write; reserve comes after fork", s.slot);
    }
    open_first_.push_back(pages);
    pages += pages_for(s.position + s.count) - s.position / kPageTokens;
    if (config_.device == Device::cuda && pages > open_first_.back()) --pages;  // the last is the slot's own
  }
  const size_t bytes = size_t(pages * config_.kv_heads * open_layout_.bytes);
  if (layout_.sealed() && bytes > open_.size()) {
    open_ = Buffer();  // never both at once
    open_ = Buffer(bytes, config_.device);
  }
  if (config_.device == Device::cuda) upload_step(batch);
}

void KvCache::append(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v,
                     const Rotation* rotation) {
  const int64_t width = config_.kv_heads * config_.head_dim;
  check(k.codec == id<F32> && v.codec == id<F32> && k.cols == width && v.cols == width && k.rows == batch.size() &&
            v.rows == batch.size(),
        "kv cache: append of k {} and v {}; f32 ({}, {}) needed", describe(k), describe(v), batch.size(), width);
  check(ctx.device == config_.device && k.device == ctx.device && v.device == ctx.device,
        "kv cache: append of k {} and v {}, which lie on another device than the cache", describe(k), describe(v));
  check(!rotation || ctx.device == Device::cuda, "kv cache: on the CPU keys are rotated before they are appended");
  const ProfileScope scope(ctx.profile, rotation ? "rope + cache append" : "cache append", [&] {
    return OpCost{2 * tensor_bytes(k) + batch.size() * config_.kv_heads * layout_.bytes / kPageTokens,
                  2 * k.rows * k.cols};
  });
  if (ctx.device == Device::cuda) {
    append_on_device(ctx, layer, batch, k, v, rotation);
  } else if (layout_.sealed()) {
    append_open(ctx, layer, batch, k, v);
  } else {
    append_rows(ctx, layer, batch, k, v);
  }
}

void KvCache::append_rows(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v) {
  const KvView kv = view(layer);
  const int64_t channels = config_.head_dim, count = int64_t(batch.sequences.size());
  const auto append = [&](const BatchSequence& s, int64_t begin, int64_t end) {
    float row[kMaxHeadDim];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t position = s.position + t;
      for (int64_t h = 0; h < config_.kv_heads; ++h) {
        std::byte* block = kv.block(s.slot, position / kPageTokens, h);
        finite_row(k.data.row<const float>(s.first + t) + h * channels, channels, row);
        encode_rows(kv_keys(block, layout_, &kv.k_scale), position % kPageTokens, 1, row, channels);
        finite_row(v.data.row<const float>(s.first + t) + h * channels, channels, row);
        encode_rows(kv_values(block, layout_, &kv.v_scale), position % kPageTokens, 1, row, channels);
      }
    }
  };
  // Sequences that decode come first: one row each, shared out together.
  int64_t single = 0;
  while (single < count && batch.sequences[size_t(single)].count == 1) ++single;
  ctx.parallel_for(single, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) append(batch.sequences[size_t(i)], 0, 1);
  });
  for (int64_t i = single; i < count; ++i) {
    const BatchSequence& s = batch.sequences[size_t(i)];
    ctx.parallel_for(s.count, 8, [&](int64_t begin, int64_t end) { append(s, begin, end); });
  }
}

void KvCache::append_open(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v) {
  const KvView kv = view(layer);
  const int64_t channels = config_.head_dim, heads = config_.kv_heads;
  ctx.parallel_for(int64_t(batch.sequences.size()) * heads, 1, [&](int64_t begin, int64_t end) {
    float row[kMaxHeadDim];
    for (int64_t job = begin; job < end; ++job) {
      const int64_t i = job / heads, h = job % heads;
      const BatchSequence& s = batch.sequences[size_t(i)];
      const int64_t last = s.position + s.count;
      for (int64_t page = s.position / kPageTokens; page < pages_for(last); ++page) {
        std::byte* open = kv.open_block(i, s, page, h);
        const int64_t start = std::max(s.position, page * kPageTokens), stop = std::min(last, (page + 1) * kPageTokens);
        if (start % kPageTokens != 0) std::memcpy(open, stage(layer, s.slot, h), size_t(open_layout_.bytes));
        const Tensor keys = kv_keys(open, open_layout_, &kv.k_scale),
                     values = kv_values(open, open_layout_, &kv.v_scale);
        for (int64_t p = start; p < stop; ++p) {
          const int64_t t = s.first + p - s.position;
          finite_row(k.data.row<const float>(t) + h * channels, channels, row);
          encode_rows(keys, p % kPageTokens, 1, row, channels);
          finite_row(v.data.row<const float>(t) + h * channels, channels, row);
          encode_rows(values, p % kPageTokens, 1, row, channels);
        }
        if (stop % kPageTokens == 0) {
          std::byte* block = kv.block(s.slot, page, h);
          seal(keys, kv_keys(block, layout_, &kv.k_scale));
          seal(values, kv_values(block, layout_, &kv.v_scale));
        } else {
          std::memcpy(stage(layer, s.slot, h), open, size_t(open_layout_.bytes));
        }
      }
    }
  });
}

std::byte* KvCache::block(int64_t layer, int32_t slot, int64_t page_index, int64_t head) {
  const KvView kv = view(layer);
  const int64_t page = slots_[size_t(slot)].pages.at(size_t(page_index));
  return kv.pool + kv_block_offset(layout_, page, config_.kv_heads, head);
}

KvView KvCache::view(int64_t layer) {
  KvView kv;
  kv.layout = layout_;
  kv.pool = pool_.data() + layer * config_.pages * config_.kv_heads * layout_.bytes;
  kv.kv_heads = config_.kv_heads;
  if (!config_.scales.empty()) {
    kv.k_scale = config_.scales[size_t(layer)].k;
    kv.v_scale = config_.scales[size_t(layer)].v;
  }
  kv.page_table = page_table_.data();
  if (config_.device == Device::cuda) {
    kv.page_table = reinterpret_cast<const int32_t*>(device_table_.data());
    kv.row_open = step_.open;
    kv.stage_pool = stage_.size() > 0 ? stage(layer, 0, 0) : nullptr;
  }
  kv.max_pages = max_pages_;
  kv.open_layout = open_layout_;
  kv.open_pool = open_.data();
  kv.open_first = open_first_.data();
  return kv;
}

void KvCache::end_step(const Batch& batch) {
  for (const BatchSequence& b : batch.sequences) {
    slots_[size_t(b.slot)].length += b.count;
    for (int64_t i = 0; i < b.count; ++i) {
      const int32_t token = batch.tokens[size_t(b.first + i)];
      if (token >= 0) learn(b.slot, token);
    }
  }
}

void KvCache::learn(int32_t slot, int32_t token) {
  Slot& s = slots_[size_t(slot)];
  const int64_t known = int64_t(s.keys.size()) * kPageTokens + int64_t(s.tokens.size());
  check(known < s.length, "kv cache: every token of the {} in slot {} is known", s.length, slot);
  s.tokens.push_back(token);
  if (int64_t(s.tokens.size()) < kPageTokens) return;
  const uint64_t parent = s.keys.empty() ? Pages::kRoot : s.keys.back();
  pages_.publish(s.pages[s.keys.size()], parent, s.tokens);
  s.keys.push_back(Pages::key(parent, s.tokens));
  s.tokens.clear();
}

}  // namespace quire
