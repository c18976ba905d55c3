// What the tests of GPTQ directories share.
#pragma once
#include "tests/models/quantized_directory.h"

namespace quire {

using Ordered = nlohmann::ordered_json;

inline Ordered gptq_config(const DrawOptions& o, const char* format = "gptq") {
  return {{"quant_method", "gptq"},  {"bits", o.bits},     {"group_size", o.group},
          {"desc_act", o.act_order}, {"sym", o.symmetric}, {"checkpoint_format", format}};
}

inline TinyModelOptions tiny(int64_t layers = 1) { return {.layers = layers, .hidden = 64, .ffn = 96}; }

}  // namespace quire
