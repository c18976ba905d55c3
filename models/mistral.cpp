// Mistral (arXiv 2310.06825): a Llama whose layers may see a window of the last tokens only.
#include "models/family.h"

namespace quire {

Family mistral_family() {
  Family f = llama_family();
  f.name = "mistral";
  return f;
}

}  // namespace quire
