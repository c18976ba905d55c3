// HuggingFace directories as checkpoints.
#include "base/error.h"
#include "models/checkpoint_builder.h"

namespace quire {

Checkpoint open_hf_directory(const std::string& path) { fail("'" + path + "': directories come next"); }

}  // namespace quire
