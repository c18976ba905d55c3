// Phi 3 (arXiv 2404.14219): a Llama in mathematics; its files hold q, k, v and gate, up as one matrix each, which the
// readers take apart.
#include "models/family.h"

namespace quire {

Family phi3_family() {
  Family f = llama_family();
  f.name = "phi3";
  f.qkv = "self_attn.qkv_proj";
  f.gate_up = "mlp.gate_up_proj";
  return f;
}

}  // namespace quire
