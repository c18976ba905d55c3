// config.json of a HuggingFace directory.
#pragma once
#include "models/config.h"
#include "models/json_file.h"

namespace quire {

inline constexpr const char* kQuarotModel = "llama_quarot";  // model_type of QuaRot's converter: hf_quarot.cpp

struct HfArchitectureNames {
  const char *architecture, *model_type;
};
HfArchitectureNames hf_architecture_names(const std::string& family);  // Error for an unknown one

// A key of ours: what ModelConfig::norm_offset is where the weights came from a file that had added it (GGUF).
constexpr const char* kNormOffsetKey = "quire_norm_offset";

ModelConfig read_hf_config(const JsonObject& config);  // Error names what is missing or not supported

}  // namespace quire
