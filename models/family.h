// A family of networks: what a decoder block of it is made of. One small file each; the list is in family.cpp.
#pragma once
#include <string>

#include "models/config.h"

namespace quire {

struct Family {
  const char* name;
  // Tensor names of a block, after "model.layers.N.".
  const char* attention_norm;
  const char *q, *k, *v, *o;
  const char* ffn_norm;
  const char *gate, *up, *down;
};

Family llama_family();
Family mistral_family();
Family qwen2_family();

const Family& find_family(const std::string& name);  // Error lists the known ones

}  // namespace quire
