#include "models/family.h"

#include "base/error.h"

namespace quire {

const Family& find_family(const std::string& name) {
  static const Family kFamilies[] = {llama_family(), mistral_family(), qwen2_family(),
                                     qwen3_family(), gemma3_family(),  phi3_family()};
  std::string known;
  for (const Family& family : kFamilies) {
    if (name == family.name) return family;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", family.name);
  }
  fail(fmt::format("models of the family '{}' are not supported; known: {}", name, known));
}

}  // namespace quire
