// A family of networks: what a decoder block of it is made of. One small file each; the list is in family.cpp.
#pragma once
#include <string>

#include "models/config.h"

namespace quire {

struct Family {
  const char* name;
  // Error for a configuration this family's block would compute wrongly.
  void (*check)(const ModelConfig& config);
  // Tensor names of a block, after "model.layers.N.".
  const char* attention_norm;
  const char *q, *k, *v, *o;
  const char* ffn_norm;
  const char *gate, *up, *down;
};

extern const Family kLlama;  // llama.cpp

const Family& find_family(const std::string& name);  // Error lists the known ones

}  // namespace quire
