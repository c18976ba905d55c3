// What must be in a checkpoint for its configuration: the readers' last check, so that nothing behind them meets a
// wrong shape.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "models/config.h"
#include "models/tokenizer_data.h"

namespace quire {

struct TensorShape {
  int64_t rows, cols;
};

// The shape a tensor of this (HuggingFace) name has in the network; empty if the network has none of that name.
std::optional<TensorShape> network_tensor(const ModelConfig& config, const std::string& name);
void for_each_needed_tensor(const ModelConfig& config, const std::function<void(const std::string& name)>& fn);

// Errors begin with the path.
void check_config(const ModelConfig& config, const std::string& path);
void check_tokenizer(const TokenizerData& tokenizer, const ModelConfig& config, const std::string& path);

}  // namespace quire
