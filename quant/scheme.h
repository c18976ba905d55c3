// The words of a scheme, one parser, the same everywhere: "w4a8kv4", "w8a16", "f32", or a named one.
#pragma once
#include <string>
#include <string_view>

#include "quant/kv_layout.h"

namespace quire {

struct KvScheme {
  std::string name = "f16";
  KvFormat k, v;
};

struct Scheme {
  std::string name;            // as spelled, canonical
  bool native = true;          // run the file's own weight formats
  Format weight{};             // linears, when not native
  Format activation{};         // f32, or int8 (with a group)
  bool native_activation = true;  // int8 in the weight's block length for GGUF, f32 for floats
  Format embedding{};          // embedding and head, when not native
  KvScheme kv;
};

// "" is the model's own formats. `text` may hold the cache's word ("w8a8kv8"); `kv` given apart overrides it. Error lists the words.
Scheme parse_scheme(std::string_view text, std::string_view kv = {});
KvScheme parse_kv(std::string_view word);
std::string scheme_help();  // the words, for --help

}  // namespace quire
