// The network: embed, blocks, head, over ragged batches and the paged cache. What differs between families is in
// family.h.
#pragma once
#include <vector>

#include "base/sink.h"
#include "kernels/rope.h"
#include "kvcache/kv_cache.h"
#include "models/family.h"
#include "models/linear.h"

namespace quire {

// What load will make, from the configuration and the scheme alone.
struct DecoderPlan {
  int64_t weight_bytes = 0;
  std::vector<std::string> description;  // formats, fusions and layouts, a line each
};

class Decoder {
 public:
  // Packs every weight for the scheme; keeps a pointer to the checkpoint, whose map the embedding may stay in.
  // `context`: positions to prepare rope for.
  static Decoder load(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme, int64_t context,
                      const Progress& progress = {});
  static DecoderPlan plan(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme);

  // One step. The cache has pages for the batch; its tokens are appended to it. logits (batch.logits_rows, V) f32. On
  // a GPU it is enqueued: the logits are there when the context's stream is synchronized.
  void forward(const Context& ctx, const Batch& batch, KvCache& cache, const Tensor& logits) const;

  // What of it lies between begin_step and end_step of the cache: nothing but work enqueued, where there is a GPU. The
  // batch has been through upload_batch, or its arrays lie there already.
  void run(const Context& ctx, const Batch& batch, KvCache& cache, const Tensor& logits) const;

  // A step that puts random keys and values N(0, 1) into the cache and computes nothing.
  void fill_cache(const Context& ctx, const Batch& batch, KvCache& cache) const;

  // The three parts of that, for callers that look inside. h is the residual stream (T, D) f32. On a GPU the batch has
  // been through upload_batch.
  void embed(const Context& ctx, const Batch& batch, const Tensor& h) const;
  void block(const Context& ctx, int64_t layer, const Tensor& h, const Batch& batch, KvCache& cache) const;
  void head(const Context& ctx, const Batch& batch, const Tensor& h, const Tensor& logits) const;

  const ModelConfig& config() const { return config_; }
  int64_t weight_bytes() const;
  const std::vector<std::string>& description() const { return description_; }  // of the plan

 private:
  struct Block {
    OwnedTensor attention_norm, ffn_norm;            // (1, D) f32
    OwnedTensor attention_post_norm, ffn_post_norm;  // (1, D) f32 or empty, as the family says
    OwnedTensor q_norm, k_norm;                      // (1, C) f32 or empty
    Linear qkv, o, gate_up, down;
  };
  const RopeTable& rope_of(int64_t layer) const { return rope_[rope_.size() > 1 && config_.window_of(layer) > 0]; }

  ModelConfig config_;
  std::vector<std::string> description_;
  Gate activation_ = Gate::silu;
  float embedding_scale_ = 1.0f, score_scale_ = 0.0f;
  std::vector<Block> blocks_;
  Tensor embedding_;  // (V, D): the file's map, own_embedding_ or the head's rows
  OwnedTensor own_embedding_;
  bool embed_from_head_ = false;
  OwnedTensor final_norm_;
  Linear head_;
  std::vector<RopeTable> rope_;  // one, or a second one of windowed layers; empty only before load
};

}  // namespace quire
