// The configuration in a GGUF file's metadata. Internal to its reader.
#pragma once
#include "models/config.h"
#include "models/gguf.h"

namespace quire {

// All but the vocabulary, the biases and whether the embedding is tied, which the tensors tell. Error for an
// architecture that is not known, or a key that may change the mathematics.
ModelConfig read_gguf_config(const GgufFile& file);

// What the tensor `name` of factors means for the rope. False if it is no such tensor.
bool read_gguf_rope_factors(ModelConfig& c, const GgufTensor& t, const std::string& path);

// The HuggingFace name of a tensor: "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; names without a
// counterpart stay as they are.
std::string gguf_to_hf_name(const ModelConfig& c, const std::string& name);

}  // namespace quire
