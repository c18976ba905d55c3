#include "models/network_tensors.h"

#include <charconv>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "models/family.h"

namespace quire {

namespace {

enum class Need : uint8_t { always, attention_bias, output_bias, mlp_bias };

struct LayerTensor {
  const char* part;  // its name is "PART.weight", or "PART.bias" if only a bias needs it; null: not in this family
  int64_t rows, cols;
  Need need = Need::always;

  std::string name() const { return fmt::format("{}.{}", part, need == Need::always ? "weight" : "bias"); }
  bool allowed(const ModelConfig& c) const {
    return need == Need::always || (need == Need::mlp_bias ? c.mlp_bias : c.attention_bias);
  }
  bool needed(const ModelConfig& c) const { return need != Need::output_bias && allowed(c); }
};

// The tensors of one layer, under "model.layers.N.".
template <class Fn>
void for_each_layer_tensor(const ModelConfig& c, Fn&& fn) {
  const Family& f = find_family(c.family);
  const int64_t d = c.hidden, q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  const LayerTensor all[] = {{f.attention_norm, 1, d},
                             {f.q, q, d},
                             {f.k, kv, d},
                             {f.v, kv, d},
                             {f.o, d, q},
                             {f.ffn_norm, 1, d},
                             {f.gate, c.ffn, d},
                             {f.up, c.ffn, d},
                             {f.down, d, c.ffn},
                             {f.q_norm, 1, c.head_dim},
                             {f.k_norm, 1, c.head_dim},
                             {f.attention_post_norm, 1, d},
                             {f.ffn_post_norm, 1, d},
                             {f.q, 1, q, Need::attention_bias},
                             {f.k, 1, kv, Need::attention_bias},
                             {f.v, 1, kv, Need::attention_bias},
                             {f.o, 1, d, Need::output_bias},
                             {f.gate, 1, c.ffn, Need::mlp_bias},
                             {f.up, 1, c.ffn, Need::mlp_bias},
                             {f.down, 1, d, Need::mlp_bias}};
  for (const LayerTensor& t : all) {
    if (t.part) fn(t);
  }
}

}  // namespace

std::optional<TensorShape> network_tensor(const ModelConfig& config, const std::string& name) {
  if (name == "model.embed_tokens.weight") return TensorShape{config.vocab, config.hidden};
  if (name == "model.norm.weight") return TensorShape{1, config.hidden};
  if (name == "lm_head.weight" && !config.tied_embeddings) return TensorShape{config.vocab, config.hidden};
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t layer = -1;
  const char* end = name.data() + name.size();
  const char* begin = name.data() + kPrefix.size();
  const auto [rest, error] = std::from_chars(begin, end, layer);
  if (error != std::errc() || layer < 0 || layer >= config.layers || rest == end || *rest != '.') return std::nullopt;
  if (*begin == '0' && rest - begin > 1) return std::nullopt;  // "00" is not a second spelling of layer 0
  const std::string_view suffix(rest + 1, size_t(end - rest - 1));
  std::optional<TensorShape> shape;
  for_each_layer_tensor(config, [&](const LayerTensor& t) {
    if (t.allowed(config) && suffix.starts_with(t.part) && t.name() == suffix) shape = TensorShape{t.rows, t.cols};
  });
  return shape;
}

void for_each_needed_tensor(const ModelConfig& config, const std::function<void(const std::string& name)>& fn) {
  fn("model.embed_tokens.weight");
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for_each_layer_tensor(config, [&](const LayerTensor& t) {
      if (t.needed(config)) fn(fmt::format("model.layers.{}.{}", layer, t.name()));
    });
  }
  fn("model.norm.weight");
  if (!config.tied_embeddings) fn("lm_head.weight");
}

void check_config(const ModelConfig& c, const std::string& path) {
  constexpr int64_t kMost = INT32_MAX;  // products of two of these stay within int64
  const std::pair<const char*, int64_t> sizes[] = {
      {"layers", c.layers}, {"hidden", c.hidden},     {"ffn", c.ffn},
      {"heads", c.heads},   {"kv_heads", c.kv_heads}, {"head_dim", c.head_dim},
      {"vocab", c.vocab},   {"context", c.context},   {"rope_dim", c.rope_dim}};
  for (const auto& [name, value] : sizes) {
    check(value >= 1 && value <= kMost, "'{}': {} is {}; 1 to {} are allowed", path, name, value, kMost);
  }
  check(c.heads % c.kv_heads == 0, "'{}': {} query heads cannot share {} key and value heads evenly", path, c.heads,
        c.kv_heads);
  check(c.heads * c.head_dim <= kMost, "'{}': {} heads of {} dimensions are more than {}", path, c.heads, c.head_dim,
        kMost);
  check(c.head_dim % 2 == 0 && c.rope_dim % 2 == 0, "'{}': {} of {} dimensions of a head cannot be rotated in pairs",
        path, c.rope_dim, c.head_dim);
  check(c.rope_dim == c.head_dim || (c.family == "phi3" && c.rope_dim < c.head_dim),
        "'{}': rotating {} of {} dimensions of a head is not supported", path, c.rope_dim, c.head_dim);
  check(std::isfinite(c.rope_theta) && c.rope_theta > 0, "'{}': the rope base is {}; it must be positive", path,
        c.rope_theta);
  check(std::isfinite(c.norm_eps) && c.norm_eps >= 0, "'{}': the norms' epsilon is {}; it cannot be negative", path,
        c.norm_eps);
}

void check_tokenizer(const TokenizerData& t, const ModelConfig& config, const std::string& path) {
  check(!t.tokens.empty(), "'{}': the tokenizer has no tokens", path);
  check(int64_t(t.tokens.size()) <= config.vocab, "'{}': the tokenizer has {} tokens, the embedding only {} rows", path,
        t.tokens.size(), config.vocab);
  check(t.kinds.size() == t.tokens.size(), "'{}': {} tokens, but {} token types", path, t.tokens.size(),
        t.kinds.size());
  const auto in_range = [&](const char* what, int32_t token, int32_t least) {
    check(token >= least && token < int64_t(t.tokens.size()), "'{}': the {} token is {}; the tokenizer has {} tokens",
          path, what, token, t.tokens.size());
  };
  in_range("bos", t.bos, -1);
  in_range("unknown", t.unknown, -1);
  in_range("padding", t.pad, -1);
  for (const int32_t token : t.eos)  // a row of the head without a token may end a text too
    check(token >= 0 && token < config.vocab,
          "'{}': the eos token is {}; the tokenizer has {} tokens, the head {} rows", path, token, t.tokens.size(),
          config.vocab);
  check(!t.add_bos || t.bos >= 0, "'{}': a bos token should be added, but none is named", path);
}

}  // namespace quire
