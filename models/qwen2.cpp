// Qwen 2 and 2.5 (arXiv 2407.10671, 2412.15115): a Llama with biases on q, k and v.
#include "models/family.h"

namespace quire {

Family qwen2_family() {
  Family f = llama_family();
  f.name = "qwen2";
  return f;
}

}  // namespace quire
