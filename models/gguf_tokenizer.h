// The tokenizer of a GGUF file.
#pragma once
#include "models/gguf.h"
#include "models/tokenizer_data.h"

namespace quire {

TokenizerData read_gguf_tokenizer(const GgufFile& file);  // Error names a kind of tokenizer that is not supported

}  // namespace quire
