// The words of a scheme, one parser, the same everywhere: "w4a8kv4", "w8a16", "f32", "kv4", "own". The table is in
// scheme.cpp.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "quant/kv_layout.h"

namespace quire {

struct KvScheme {
  std::string name = "kvf16";
  KvFormat k, v;
};

// What one layer's codes are multiplied by in a cache whose scales are static (kvfp8).
struct KvScale {
  float k = 1.0f, v = 1.0f;
};

struct Scheme {
  std::string name = "own";       // canonical: every part spelled out, f16 cache left out; parses to the same scheme
  bool native = true;             // run the file's own weight formats
  Format weight{};                // linears, when not native
  Format activation{};            // when not native_activation: f32, or int8 (with a group)
  bool native_activation = true;  // int8 in the weight's block length for GGUF, f32 for floats
  Format embedding{};             // embedding and head, when not native
  KvScheme kv;
};

// "" (or "own") is the model's own formats; an activation word alone keeps its weights. `text` may hold the cache's
// word
// ("w8a8kv8"); `kv` given apart overrides it. Error lists the words.
Scheme parse_scheme(std::string_view text, std::string_view kv = {});
// The same for a model that was stored for a scheme: where no weights or activations are named, it is that scheme, with
// the cache of `text` or `kv` if they name one.
Scheme choose_scheme(std::string_view text, std::string_view kv, const std::optional<Scheme>& stored);
KvScheme parse_kv(std::string_view word);
std::string scheme_help();  // the words, for --help

}  // namespace quire
