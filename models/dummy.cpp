#include "models/dummy.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/printable.h"
#include "models/byte_alphabet.h"
#include "models/checkpoint_builder.h"
#include "models/hf_config.h"
#include "models/network_tensors.h"

namespace quire {

namespace {

constexpr size_t kMaxConfigBytes = 10'000'000;
constexpr uint64_t kSeed = 0x5EED;

Json read_config(const std::string& config, std::string& where) {
  for (const KnownConfig& known : known_configs()) {
    if (known.name == config) return parse_json(known.json, config);
  }
  const std::filesystem::path path = config;
  std::error_code error;
  where = std::filesystem::is_directory(path, error) ? (path / "config.json").string() : config;
  check(std::filesystem::exists(where, error),
        "there is no configuration '{}': a config.json, a directory with one, or one of {} is needed", config,
        known_config_names());
  return read_json_file(where, kMaxConfigBytes);
}

}  // namespace

std::string known_config_names() {
  std::string names;
  for (const KnownConfig& known : known_configs()) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

Checkpoint open_dummy(const std::string& config, int64_t positions) {
  std::string where = config;
  Json json = read_config(config, where);
  check(json.is_object(), "'{}' is no configuration: an object is needed", where);
  json.erase("quantization_config");  // how the real weights are stored
  CheckpointBuilder builder(where);
  auto& state = builder.state();
  state.container = "dummy: random weights";
  state.dummy = kSeed;
  for (const auto& [key, value] : json.items()) state.metadata.emplace_back(printable(key), printable_json(value));
  state.config = read_hf_config(JsonObject(json, fmt::format("'{}'", where)));
  if (state.config.name.empty()) state.config.name = std::filesystem::path(config).stem().string();
  state.config.context = std::max(state.config.context, positions);
  check_config(state.config, where);
  constexpr int64_t kMostLayers = 1 << 16;
  check(state.config.layers <= kMostLayers, "'{}': {} layers are more than {}", where, state.config.layers,
        kMostLayers);
  for_each_needed_tensor(state.config, [&](const std::string& name) {
    const TensorShape shape = *network_tensor(state.config, name);
    builder.add(name, name, shape.rows > 1 ? id<F16> : id<F32>, shape.rows, shape.cols, nullptr);
  });
  builder.check_tensors();
  builder.read_tokenizer([&] {
    TokenizerData bytes;
    bytes.model = "bpe";
    for (int b = 0; b < 256 && b < state.config.vocab; ++b) {
      bytes.tokens.push_back(byte_letter(static_cast<uint8_t>(b)));
      bytes.kinds.push_back(TokenKind::normal);
    }
    return bytes;
  });
  return builder.finish();
}

}  // namespace quire
