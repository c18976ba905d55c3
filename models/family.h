// A family of networks: what a decoder block of it is made of. One small file each; the list is in family.cpp.
#pragma once
#include <string>

#include "kernels/glu.h"
#include "models/config.h"

namespace quire {

struct Family {
  const char* name;
  // Tensor names of a block, after "model.layers.N.", without ".weight".
  const char* attention_norm;
  const char *q, *k, *v, *o;
  const char* ffn_norm;
  const char *gate, *up, *down;
  // What only some have; null: not this one.
  const char *q_norm = nullptr, *k_norm = nullptr;                      // of each head, before rope
  const char *attention_post_norm = nullptr, *ffn_post_norm = nullptr;  // of a half's output, before it is added
  Gate activation = Gate::silu;
  bool scaled_embedding = false;  // times sqrt(D)
  // As what its files hold q, k, v and gate, up, their rows one after the other; null: each for itself.
  const char *qkv = nullptr, *gate_up = nullptr;
};

Family llama_family();
Family mistral_family();
Family qwen2_family();
Family qwen3_family();
Family gemma3_family();
Family phi3_family();

const Family& find_family(const std::string& name);  // Error lists the known ones

}  // namespace quire
