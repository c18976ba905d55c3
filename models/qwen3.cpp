// Qwen 3 (arXiv 2505.09388): a Llama whose query and key heads are normalized before they turn.
#include "models/family.h"

namespace quire {

Family qwen3_family() {
  Family f = llama_family();
  f.name = "qwen3";
  f.q_norm = "self_attn.q_norm";
  f.k_norm = "self_attn.k_norm";
  return f;
}

}  // namespace quire
