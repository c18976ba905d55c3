// Gemma 3 (arXiv 2503.19786), the text model: every half of a block is normalized before and after, query and key heads
// are too; the embedding is scaled, the gate is a GELU.
#include "models/family.h"

namespace quire {

Family gemma3_family() {
  Family f = llama_family();
  f.name = "gemma3";
  f.q_norm = "self_attn.q_norm";
  f.k_norm = "self_attn.k_norm";
  f.attention_post_norm = "post_attention_layernorm";
  f.ffn_norm = "pre_feedforward_layernorm";
  f.ffn_post_norm = "post_feedforward_layernorm";
  f.activation = Gate::gelu_tanh;
  f.scaled_embedding = true;
  return f;
}

}  // namespace quire
