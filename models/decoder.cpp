#include "models/decoder.h"

#include <array>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/convert.h"
#include "kernels/glu.h"
#include "kernels/random.h"
#include "kernels/rmsnorm.h"
#include "kernels/row_ops.h"
#include "models/check_finite.h"
#include "models/rope_scaling.h"

namespace quire {

namespace {

constexpr Format kF32{id<F32>, 0};

// A norm's weight; empty for a null name.
OwnedTensor load_norm(SliceReader& reader, const std::string& at, const char* name) {
  if (!name) return {};
  std::vector<float> values = reader.read_vector(at + name + ".weight");
  const float offset = float(reader.checkpoint().config().norm_offset);
  if (offset != 0) {
    for (float& w : values) w = offset + w;
  }
  const int64_t n = int64_t(values.size());
  Tensor host;
  host.codec = id<F32>;
  host.rows = 1;
  host.cols = n;
  host.data = {reinterpret_cast<std::byte*>(values.data()), n * 4, 1};
  return tensor_on(reader.context().device, host, reader.context().stream);
}

int64_t norm_bytes(const ModelConfig& c) {
  const Family& family = find_family(c.family);
  const int64_t rows = 1 + (family.attention_post_norm ? 4 : 2) * c.layers;
  return storage_bytes(kF32, rows, c.hidden) + storage_bytes(kF32, family.q_norm ? 2 * c.layers : 0, c.head_dim);
}

Tensor scratch_floats(const Context& ctx, int64_t rows, int64_t cols) {
  const StorageOptions options{.row_align = 64, .device = ctx.device};
  return place_tensor(ctx.scratch->take_bytes(size_t(storage_bytes(kF32, rows, cols, options))), kF32, rows, cols,
                      options);
}

const std::string kEmbedding = "model.embed_tokens";
std::string head_name(const ModelConfig& c) { return c.tied_embeddings ? kEmbedding : "lm_head"; }

// The matrices of a block: q+k+v, o, gate+up, down.
using BlockNames = std::array<std::vector<std::string>, 4>;
BlockNames linear_names(const Family& f, int64_t layer) {
  const std::string at = fmt::format("model.layers.{}.", layer);
  return {{{at + f.q, at + f.k, at + f.v}, {at + f.o}, {at + f.gate, at + f.up}, {at + f.down}}};
}

// Where the rows come from that tokens begin with.
struct EmbeddingPlan {
  enum From : uint8_t { head_decoded, head_rows, file, own } from;
  Format format;
};
EmbeddingPlan plan_embedding(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme) {
  const ModelConfig& c = checkpoint.config();
  const Format stored = format_of(checkpoint.listed(kEmbedding + ".weight").tensor);
  const bool gpu = ctx.device == Device::cuda;
  const Format format = scheme.native ? stored : scheme.embedding;
  if (c.tied_embeddings) {
    const PartPlan head = plan_linear(ctx, checkpoint, {kEmbedding}, scheme, scheme.embedding)[0];
    if (!gpu && !scheme.native) return {EmbeddingPlan::head_decoded, format};
    if (!head.layout && head.problem.w == format) return {EmbeddingPlan::head_rows, format};
  }
  // On the CPU a few rows a step, straight from the map.
  if (!gpu && format == stored && !checkpoint.dummy()) return {EmbeddingPlan::file, format};
  return {EmbeddingPlan::own, format};
}

// h += the product, normed if there is a norm for it.
void add_product(const Context& ctx, const Linear& linear, const Tensor& x, const OwnedTensor& post_norm, float eps,
                 const Tensor& h) {
  if (!post_norm.tensor.data.ptr) return linear.run(ctx, x, h, h.data.row<const float>(0));
  const Tensor product = scratch_floats(ctx, x.rows, linear.n());
  linear.run(ctx, x, product);
  add_normed(ctx, product, post_norm, eps, h);
}

}  // namespace

Decoder Decoder::load(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme, int64_t context,
                      const Progress& progress) {
  Decoder d;
  d.config_ = checkpoint.config();
  d.description_ = plan(ctx, checkpoint, scheme).description;
  const ModelConfig& c = d.config_;
  const Family& family = find_family(c.family);
  check(
      c.heads / c.kv_heads <= kMaxQueryGroup && c.head_dim <= kMaxHeadDim,
      "{} query heads on {} key and value heads of {} channels are not supported; up to {} a head and {} channels are",
      c.heads, c.kv_heads, c.head_dim, kMaxQueryGroup, kMaxHeadDim);
  d.activation_ = family.activation;
  d.score_scale_ = c.query_scalar > 0 ? float(1 / std::sqrt(c.query_scalar)) : 0.0f;
  d.embedding_scale_ = family.scaled_embedding ? std::sqrt(float(c.hidden)) : 1.0f;
  const auto report = [&](int64_t done) {
    check(!progress || progress("loading", done, c.layers + 1), "loading was cancelled");
  };
  SliceReader reader(ctx, checkpoint);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    report(layer);
    const std::string at = fmt::format("model.layers.{}.", layer);
    Block b;
    b.attention_norm = load_norm(reader, at, family.attention_norm);
    b.ffn_norm = load_norm(reader, at, family.ffn_norm);
    b.attention_post_norm = load_norm(reader, at, family.attention_post_norm);
    b.ffn_post_norm = load_norm(reader, at, family.ffn_post_norm);
    b.q_norm = load_norm(reader, at, family.q_norm);
    b.k_norm = load_norm(reader, at, family.k_norm);
    Linear* const linears[] = {&b.qkv, &b.o, &b.gate_up, &b.down};
    const BlockNames names = linear_names(family, layer);
    for (size_t i = 0; i < names.size(); ++i) *linears[i] = Linear::load(reader, names[i], scheme, scheme.weight);
    d.blocks_.push_back(std::move(b));
  }
  report(c.layers);
  d.final_norm_ = load_norm(reader, "model.", "norm");
  d.head_ = Linear::load(reader, {head_name(c)}, scheme, scheme.embedding);
  const EmbeddingPlan embedding = plan_embedding(ctx, checkpoint, scheme);
  d.embed_from_head_ = embedding.from == EmbeddingPlan::head_decoded;
  if (embedding.from == EmbeddingPlan::head_rows) d.embedding_ = d.head_.parts()[0].weight.rows;
  const bool read_here = embedding.from == EmbeddingPlan::file || embedding.from == EmbeddingPlan::own;
  if (read_here && !checkpoint.dummy()) {
    check_finite(ctx, checkpoint, kEmbedding + ".weight");
  }
  if (embedding.from == EmbeddingPlan::file) d.embedding_ = checkpoint.get(kEmbedding + ".weight");
  if (embedding.from == EmbeddingPlan::own) {
    d.own_embedding_ = reader.load(kEmbedding + ".weight", embedding.format);
    d.embedding_ = d.own_embedding_;
  }
  d.rope_.emplace_back(context, scaled_rope_frequencies(c.rope_scaling, c.rope_dim, c.rope_theta, context),
                       float(c.rope_scaling.amplitude));
  if (c.window > 0 && c.rope_theta_windowed > 0) d.rope_.emplace_back(context, c.rope_dim, c.rope_theta_windowed);
  for (RopeTable& table : d.rope_) {
    if (ctx.device == Device::cuda) table.upload(ctx.stream);
  }
  report(c.layers + 1);
  return d;
}

DecoderPlan Decoder::plan(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme) {
  const ModelConfig& c = checkpoint.config();
  const Family& family = find_family(c.family);
  DecoderPlan plan;
  plan.weight_bytes = norm_bytes(c);
  const auto add = [&](const std::vector<std::string>& names, Format format, std::string& text) {
    std::string parts;
    for (const PartPlan& part : plan_linear(ctx, checkpoint, names, scheme, format)) {
      plan.weight_bytes += part.bytes();
      parts += (parts.empty() ? "" : ", ") + part.description();
    }
    text += (text.empty() ? "" : "; ") + parts;
  };
  std::string previous;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    std::string text;
    for (const auto& names : linear_names(family, layer)) add(names, scheme.weight, text);
    if (text != previous) plan.description.push_back(fmt::format("layers {}..: {}", layer, text));
    previous = text;
  }
  std::string head;
  add({head_name(c)}, scheme.embedding, head);
  plan.description.push_back("head " + head);
  const EmbeddingPlan embedding = plan_embedding(ctx, checkpoint, scheme);
  if (embedding.from == EmbeddingPlan::file || embedding.from == EmbeddingPlan::own) {
    plan.weight_bytes += tensor_bytes(embedding.format, c.vocab, c.hidden);
  }
  return plan;
}

void Decoder::embed(const Context& ctx, const Batch& batch, const Tensor& h) const {
  for (const int32_t token : batch.tokens) {
    check(token >= 0 && token < config_.vocab, "embed: token {} is not in the vocabulary of {}", token, config_.vocab);
  }
  if (embed_from_head_) {
    ctx.parallel_for(batch.size(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) head_.decode_row(batch.tokens[size_t(t)], h.data.row<float>(t));
    });
  } else {
    convert(ctx, embedding_, h, ctx.device == Device::cuda ? batch.device.tokens : batch.tokens.data());
  }
  if (embedding_scale_ != 1.0f) scale_rows(ctx, h, embedding_scale_);
}

void Decoder::block(const Context& ctx, int64_t layer, const Tensor& h, const Batch& batch, KvCache& cache) const {
  const Scratch::Scope scope(*ctx.scratch);
  const Block& b = blocks_[size_t(layer)];
  const ModelConfig& c = config_;
  const int64_t tokens = batch.size(), q_width = c.heads * c.head_dim, kv_width = c.kv_heads * c.head_dim;
  const float eps = float(c.norm_eps);
  const Tensor normed = b.qkv.input_tensor(ctx, tokens);
  rmsnorm(ctx, h, b.attention_norm, eps, normed);
  const Tensor qkv = scratch_floats(ctx, tokens, q_width + 2 * kv_width);
  b.qkv.run(ctx, normed, qkv);
  const Tensor q = cols_of(qkv, 0, q_width), k = cols_of(qkv, q_width, kv_width);
  const Tensor v = cols_of(qkv, q_width + kv_width, kv_width);
  if (b.q_norm.tensor.data.ptr) norm_heads(ctx, q, c.heads, b.q_norm, eps);
  if (b.k_norm.tensor.data.ptr) norm_heads(ctx, k, c.kv_heads, b.k_norm, eps);
  if (ctx.device == Device::cuda) {
    const Rotation rotation{q, c.heads, rope_of(layer)};
    cache.append(ctx, layer, batch, k, v, &rotation);
  } else {
    rope(ctx, qkv, c.heads + c.kv_heads, c.head_dim, batch.positions.data(), rope_of(layer));
    cache.append(ctx, layer, batch, k, v);
  }
  const Tensor mixed = scratch_floats(ctx, tokens, q_width);
  attention(ctx, q, cache.view(layer), batch, {c.heads, c.window_of(layer), score_scale_}, mixed);
  Tensor o_in = mixed;
  if (!(b.o.input() == kF32)) {
    o_in = b.o.input_tensor(ctx, tokens);
    convert(ctx, mixed, o_in);
  }
  add_product(ctx, b.o, o_in, b.attention_post_norm, eps, h);

  const Tensor ffn_in = b.gate_up.input_tensor(ctx, tokens);
  rmsnorm(ctx, h, b.ffn_norm, eps, ffn_in);
  const Tensor gate_up = scratch_floats(ctx, tokens, 2 * c.ffn);
  b.gate_up.run(ctx, ffn_in, gate_up);
  const Tensor down_in = b.down.input_tensor(ctx, tokens);
  glu(ctx, gate_up, down_in, activation_);
  add_product(ctx, b.down, down_in, b.ffn_post_norm, eps, h);
}

void Decoder::head(const Context& ctx, const Batch& batch, const Tensor& h, const Tensor& logits) const {
  const int64_t rows = int64_t(batch.logits_rows.size());
  if (rows == 0) return;
  check(logits.rows == rows && logits.cols == config_.vocab, "head: logits {} for {} rows and a vocabulary of {}",
        describe(logits), rows, config_.vocab);
  Tensor last = h;
  if (rows < batch.size()) {
    last = scratch_floats(ctx, rows, config_.hidden);
    convert(ctx, h, last, ctx.device == Device::cuda ? batch.device.logits_rows : batch.logits_rows.data());
  }
  const Tensor normed = head_.input_tensor(ctx, rows);
  rmsnorm(ctx, last, final_norm_, float(config_.norm_eps), normed);
  head_.run(ctx, normed, logits);
}

void Decoder::forward(const Context& ctx, const Batch& planned, KvCache& cache, const Tensor& logits) const {
  ctx.scratch->reset();
  Batch batch = planned;
  upload_batch(ctx, batch);
  cache.begin_step(batch);
  run(ctx, batch, cache, logits);
  cache.end_step(batch);
}

void Decoder::fill_cache(const Context& ctx, const Batch& planned, KvCache& cache) const {
  ctx.scratch->reset();
  Batch batch = planned;
  upload_batch(ctx, batch);
  cache.begin_step(batch);
  const int64_t width = config_.kv_heads * config_.head_dim;
  const Tensor kv = scratch_floats(ctx, batch.size(), 2 * width);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    fill_normal(ctx, uint64_t(layer), batch.positions[0] * width, 1.0f, kv);
    cache.append(ctx, layer, batch, cols_of(kv, 0, width), cols_of(kv, width, width));
  }
  cache.end_step(batch);
}

void Decoder::run(const Context& ctx, const Batch& batch, KvCache& cache, const Tensor& logits) const {
  if (ctx.profile) ctx.profile->begin_step();
  const Tensor h = scratch_floats(ctx, batch.size(), config_.hidden);
  embed(ctx, batch, h);
  for (int64_t layer = 0; layer < config_.layers; ++layer) block(ctx, layer, h, batch, cache);
  head(ctx, batch, h, logits);
}

int64_t Decoder::weight_bytes() const {
  int64_t total = head_.bytes() + norm_bytes(config_);
  if (embedding_.data.ptr && embedding_.data.ptr != head_.parts()[0].weight.rows.data.ptr) {
    total += tensor_bytes(format_of(embedding_), embedding_.rows, embedding_.cols);
  }
  for (const Block& b : blocks_) total += b.qkv.bytes() + b.o.bytes() + b.gate_up.bytes() + b.down.bytes();
  return total;
}

}  // namespace quire
