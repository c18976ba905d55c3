// config.json of a HuggingFace directory.
#pragma once
#include "models/config.h"
#include "models/json_file.h"

namespace quire {

inline constexpr const char* kQuarotModel = "llama_quarot";  // model_type of QuaRot's converter: hf_quarot.cpp

ModelConfig read_hf_config(const JsonObject& config);  // Error names what is missing or not supported

}  // namespace quire
