// config.json of a HuggingFace directory.
#pragma once
#include "models/config.h"
#include "models/json_file.h"

namespace quire {

ModelConfig read_hf_config(const JsonObject& config);  // Error names what is missing or not supported

}  // namespace quire
