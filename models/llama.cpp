// Llama (arXiv 2302.13971, 2307.09288): pre-norm blocks, grouped query heads, half-split rope, SwiGLU. SmolLM2 is one.
#include "base/error.h"
#include "models/family.h"

namespace quire {

Family llama_family() {
  return {
      .name = "llama",
      .attention_norm = "input_layernorm",
      .q = "self_attn.q_proj",
      .k = "self_attn.k_proj",
      .v = "self_attn.v_proj",
      .o = "self_attn.o_proj",
      .ffn_norm = "post_attention_layernorm",
      .gate = "mlp.gate_proj",
      .up = "mlp.up_proj",
      .down = "mlp.down_proj",
  };
}

}  // namespace quire
