// What a network is, as its file says. Every field is checked by the readers; unknown keys that change the maths are
// refused.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace quire {

struct ModelConfig {
  std::string family;  // "llama", ...: one small file each in models/
  std::string name;    // for people
  int64_t layers = 0, hidden = 0, ffn = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  int64_t context = 0;   // positions the model was trained for
  int64_t rope_dim = 0;  // dims of a head that are rotated; = head_dim for Llama
  double rope_theta = 10000.0;
  double norm_eps = 1e-5;
  bool tied_embeddings = false;  // the head is the embedding
  bool attention_bias = false;   // q, k and v have biases, and o if "...o_proj.bias" is there
  bool mlp_bias = false;         // gate, up and down have biases

  bool operator==(const ModelConfig&) const = default;
};

}  // namespace quire
