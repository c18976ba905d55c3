// Checkpoints of random weights: as large and as fast as a real model's, from its configuration alone. Weights are N(0,
// 0.02), norms 1, so that activations and logits have the size they have in trained networks.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "models/checkpoint.h"

namespace quire {

// The configurations that the program brings along (models/configs/*.json), by name.
struct KnownConfig {
  std::string_view name, json;
};
std::span<const KnownConfig> known_configs();
std::string known_config_names();  // "llama-2-7b, llama-3-8b, ..."

// config: one of those names, a config.json, or a directory with one. Tensors have format and shape (f16), but no data:
// SliceReader makes it. The tokenizer has the 256 bytes. positions: the context, if it should be longer than the
// configuration says, at which nothing trained would work.
Checkpoint open_dummy(const std::string& config, int64_t positions = 0);

}  // namespace quire
