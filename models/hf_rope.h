// The rotary embedding in config.json. Internal to its reader.
#pragma once
#include "models/config.h"
#include "models/json_file.h"

namespace quire {

// Sets rope_theta and rope_scaling; the rest of the configuration has been read. Error for a kind of scaling that is
// not known.
void read_hf_rope(const JsonObject& config, ModelConfig& c);

}  // namespace quire
