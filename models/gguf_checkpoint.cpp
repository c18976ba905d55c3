// GGUF files as checkpoints: tensors under their names, and the order of the rows of q and k.
#include "base/error.h"
#include "base/printable.h"
#include "models/checkpoint_builder.h"
#include "models/fused_tensors.h"
#include "models/gguf_config.h"
#include "models/gguf_split.h"
#include "models/gguf_tokenizer.h"
#include "models/network_tensors.h"

namespace quire {

namespace {

void check_general_keys(const GgufFile& file) {
  const std::string type = file.text("general.type").value_or("model");
  check(type == "model", "'{}': the file holds '{}', not a model", file.path(), printable(type));
}

void add_tensor(CheckpointBuilder& builder, const ModelConfig& c, const GgufTensor& t) {
  const GgufTensorType& type = *find_gguf_type(t.type);
  check(type.codec.has_value(),
        "'{}': tensor '{}' is in {}, which cannot be read; {} can (llama-quantize makes such files)", builder.path(),
        printable(t.name), type.name, readable_gguf_types());
  check(t.dims.size() <= 2, "'{}': tensor '{}' has {} dimensions; 1 or 2 are expected", builder.path(),
        printable(t.name), t.dims.size());
  const int64_t cols = t.dims[0], rows = t.dims.size() > 1 ? t.dims[1] : 1;
  const std::string name = gguf_to_hf_name(c, t.name);
  if (add_fused(builder, c, {name, t.name, *type.codec, rows, cols, t.bytes.data()})) return;
  // Of the architecture llama, converters to GGUF lay each head's pairs (i, i + half) of q and k side by side, for a
  // rotation of neighbours: row 2 i + h of the file is row h * half + i of the head. Undone here, so that every
  // container means the same.
  const int64_t dim = c.head_dim, half = dim / 2;
  const auto file_index = [=](int64_t r) { return r / dim * dim + r % half * 2 + r % dim / half; };
  const bool pairs = c.family == "llama";
  const bool q = pairs && (name.ends_with(".self_attn.q_proj.weight") || name.ends_with(".self_attn.q_proj.bias"));
  const bool k = pairs && (name.ends_with(".self_attn.k_proj.weight") || name.ends_with(".self_attn.k_proj.bias"));
  if (!q && !k) return builder.add(name, t.name, *type.codec, rows, cols, t.bytes.data());
  const bool vector = rows == 1 && t.dims.size() == 1;
  const int64_t wanted = (q ? c.heads : c.kv_heads) * dim, have = vector ? cols : rows;
  check(have == wanted, "'{}': tensor '{}' has {} rows where the configuration says {}", builder.path(),
        printable(t.name), have, wanted);
  builder.add_reordered(name, t.name, *type.codec, rows, cols, t.bytes.data(), vector, file_index);
}

}  // namespace

Checkpoint open_gguf(const std::string& path) {
  std::vector<GgufFile> parts = open_gguf_parts(path);
  const GgufFile& file = parts[0];
  CheckpointBuilder builder(path);
  auto& state = builder.state();
  state.container = fmt::format("GGUF v{}", file.version());
  if (parts.size() > 1) state.container += fmt::format(", {} parts", parts.size());
  for (const GgufValue& v : file.metadata()) state.metadata.emplace_back(printable(v.key), printable_value(v));
  ModelConfig& config = state.config;
  check_general_keys(file);
  config = read_gguf_config(file);
  config.tied_embeddings = true;
  std::vector<const GgufTensor*> tensors;  // of the network
  for (const GgufFile& part : parts) {
    for (const GgufTensor& t : part.tensors()) {
      if (t.name == "token_embd.weight") config.vocab = t.dims.size() > 1 ? t.dims[1] : 1;
      if (t.name == "output.weight") config.tied_embeddings = false;
      config.attention_bias = config.attention_bias || t.name.ends_with("attn_q.bias");
      config.mlp_bias = config.mlp_bias || t.name.ends_with("ffn_gate.bias");
      if (!read_gguf_rope_factors(config, t, path)) tensors.push_back(&t);
    }
  }
  RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::none) {  // a Phi 3 of short contexts
    check(scaling.amplitude == 1, "'{}': a rope of amplitude {} without factors is not supported", path,
          scaling.amplitude);
    scaling = {};
  }
  check(config.vocab > 0, "'{}': tensor 'token_embd.weight' is missing", path);
  const std::string vocab_key = file.text("general.architecture").value() + ".vocab_size";
  const int64_t vocab = file.integer(vocab_key).value_or(config.vocab);
  check(vocab == config.vocab, "'{}': {} is {}, but the embedding has {} rows", path, vocab_key, vocab, config.vocab);
  check_config(config, path);
  for (const GgufTensor* t : tensors) {
    add_tensor(builder, config, *t);
  }
  builder.check_tensors();
  builder.read_tokenizer([&] { return read_gguf_tokenizer(file); });
  for (GgufFile& part : parts) state.files.push_back(std::move(part).release());
  return builder.finish();
}

}  // namespace quire
