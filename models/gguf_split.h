// A model split over several GGUF files by llama.cpp's gguf-split: "NAME-00001-of-00003.gguf" and so on.
#pragma once
#include <vector>

#include "models/gguf.h"

namespace quire {

// The file, or if it is the first part of a split model all its parts in order. They are looked for beside the first
// under its name alone. Error for a part that is missing, out of order or of another model, and unless the parts have
// together the tensors that the first announces.
std::vector<GgufFile> open_gguf_parts(const std::string& path);

}  // namespace quire
