// Where K and V live: pages of 64 tokens for every layer, sequences as rows of a page table, appended by `append` and
// read by attention through `view`. Pages are shared by prefix and by fork; a shared page is copied before it is
// written.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "kernels/context.h"
#include "kernels/kv_view.h"
#include "kernels/rope.h"
#include "kvcache/pages.h"
#include "quant/scheme.h"

namespace quire {

struct KvCacheConfig {
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  KvScheme scheme;
  std::vector<KvScale> scales;  // (layers), of a static cache; empty: 1
  int64_t pages = 0;            // for all sequences together
  int64_t slots = 1;            // sequences at once
  int64_t max_tokens = 0;       // of one sequence
  Device device = Device::cpu;
  cuda::StreamHandle stream = nullptr;  // on a GPU: what every step of this cache is ordered on
};

// For append on a GPU: queries and the table that turns them and the keys.
struct Rotation {
  const Tensor& q;
  int64_t heads;
  const RopeTable& table;
};

class KvCache {
 public:
  explicit KvCache(const KvCacheConfig& config);  // Error names the bytes if there is not enough memory

  static int64_t page_bytes(const KvCacheConfig& config);   // of one page, all layers
  static int64_t stage_bytes(const KvCacheConfig& config);  // open pages of the sealed kinds
  // At most, in steps of up to `tokens`: f16 pages of the sealed kinds while a layer runs.
  static int64_t step_bytes(const KvCacheConfig& config, int64_t tokens);

  // A new sequence. `tokens`: its prompt; whole pages already cached are shared, so its length may start above zero,
  // but always below tokens.size(). -1 if every slot is taken.
  int32_t open(std::span<const int32_t> tokens = {});
  int32_t fork(
      int32_t slot);  // a sequence with the same contents; -1 if every slot is taken. Shares pages until one is written
  void close(int32_t slot);  // full pages whose tokens are known are kept for reuse

  int64_t length(int32_t slot) const { return slots_[size_t(slot)].length; }
  // Pages of its own for `tokens` more tokens; false, with nothing changed, if there are not enough.
  bool reserve(int32_t slot, int64_t tokens);
  int64_t pages_needed(int32_t slot, int64_t tokens) const;  // new ones, and copies of shared ones it would write

  // One step: begin, then append for each layer (k, v (T, kv_heads * C) f32, k rotated), then end, which makes the
  // tokens part of their sequences and publishes full pages. Tokens below zero are not known yet: `learn` says in order
  // what they were. On a GPU steps of one token a sequence leave nothing of theirs here: append and view are the same
  // for every such batch, so that what is enqueued may be launched again.
  void begin_step(const Batch& batch);
  // On the device of the configuration, as k and v are; a GPU can rotate k on its way, and q (T, heads * C) in place.
  void append(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v,
              const Rotation* rotation = nullptr);
  KvView view(int64_t layer);
  std::byte* block(int64_t layer, int32_t slot, int64_t page_index, int64_t head);  // where that page's block lies
  void end_step(const Batch& batch);
  void learn(int32_t slot, int32_t token);  // the first of its tokens that is not known

  const KvCacheConfig& config() const { return config_; }
  const Pages& pages() const { return pages_; }
  int64_t open_bytes() const { return int64_t(open_.size()); }  // held for steps now, at most step_bytes
  const KvLayout& layout() const { return layout_; }

 private:
  struct Slot {
    bool used = false;
    int64_t length = 0;
    std::vector<int32_t> pages;
    std::vector<int32_t> tokens;  // of the open page
    std::vector<uint64_t> keys;   // of the full pages, in order
  };
  void make_writable(int32_t slot, int64_t page_index);  // copy on write
  std::byte* stage(int64_t layer, int64_t slot, int64_t head);
  void copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) const;
  void set_page(int32_t slot, int64_t page_index, int32_t page);
  void upload_pages();
  void upload_step(const Batch& batch);
  void append_on_device(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v,
                        const Rotation* rotation);
  void append_rows(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v);
  void append_open(const Context& ctx, int64_t layer, const Batch& batch, const Tensor& k, const Tensor& v);

  KvCacheConfig config_;
  KvLayout layout_, open_layout_;
  Buffer pool_, stage_, open_;  // open_: the f16 pages of this step (one layer at a time)
  Pages pages_;
  std::vector<Slot> slots_;
  std::vector<int32_t> page_table_;  // (slots, max_pages)
  int64_t max_pages_;
  std::vector<int64_t> open_first_;  // (sequences of the batch)

  // On a GPU the page table's changes go up before a step, and f16 pages of sequences with several tokens: what of a
  // step lies in a page that it does not leave open is kept beside the stages. Pairs, but for `open`.
  struct Step {
    int64_t single = 0, stage_in = 0, sealed = 0;  // single: leading sequences of one token
    const int32_t *open = nullptr, *stage_in_pairs = nullptr, *sealed_pairs = nullptr;
  };
  Step step_;
  Buffer step_arrays_, device_table_;
  std::vector<int32_t> changes_;            // places in the table that the device has not seen
  std::shared_ptr<cuda::Uploads> uploads_;  // null on the CPU
};

}  // namespace quire
