// HuggingFace directories as checkpoints: config.json, one safetensors file or several with an index, the tokenizer's
// files.
#include <filesystem>
#include <map>
#include <set>

#include "base/error.h"
#include "base/printable.h"
#include "models/checkpoint_builder.h"
#include "models/hf_config.h"
#include "models/hf_quantized.h"
#include "models/hf_tokenizer.h"
#include "models/stored.h"

namespace quire {

namespace {

constexpr size_t kMaxConfigBytes = 10'000'000, kMaxIndexBytes = 100'000'000;
constexpr std::string_view kExtension = ".safetensors";

using Shards = std::map<std::string, std::set<std::string>>;  // file name -> names of its tensors

// The index may only name files that lie in the directory itself.
Shards read_index(const std::string& path) {
  const Json json = read_json_file(path, kMaxIndexBytes);
  const JsonObject root(json, fmt::format("'{}'", path));
  const auto map = root.object("weight_map");
  check(map.has_value(), "{}: 'weight_map' is missing", root.where());
  Shards shards;
  for (const auto& [name, value] : map->json().items()) {
    check(value.is_string(), "{}: tensor '{}' must name a file, not {}", map->where(), printable(name),
          printable_json(value));
    std::string file = value.get<std::string>();
    if (file.starts_with("./")) file.erase(0, 2);
    const bool plain = file.size() > kExtension.size() && file.ends_with(kExtension) &&
                       file.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    check(plain, "{}: '{}' is not the name of a safetensors file in this directory", map->where(), printable(file));
    shards[std::move(file)].insert(name);
  }
  check(!shards.empty(), "{}: 'weight_map' is empty", root.where());
  return shards;
}

// listed: the tensors the index says are in the file; null without an index.
SafetensorsFile open_file(const std::string& path, const std::set<std::string>* listed) {
  SafetensorsFile file{MappedFile(path)};
  if (!listed) return file;
  for (const SafetensorsTensor& t : file.tensors()) {
    check(listed->count(t.name) > 0, "'{}': tensor '{}' is not in the index", path, printable(t.name));
  }
  if (file.tensors().size() < listed->size()) {
    std::set<std::string> missing = *listed;
    for (const SafetensorsTensor& t : file.tensors()) missing.erase(t.name);
    fail(fmt::format("'{}': tensor '{}' should be here by the index, but is not", path, printable(*missing.begin())));
  }
  return file;
}

std::vector<SafetensorsFile> open_files(const std::string& path) {
  const auto file_in = [&](std::string_view name) { return (std::filesystem::path(path) / name).string(); };
  std::vector<SafetensorsFile> files;
  if (std::filesystem::exists(file_in("model.safetensors"))) {
    files.push_back(open_file(file_in("model.safetensors"), nullptr));
    return files;
  }
  const std::string index = file_in("model.safetensors.index.json");
  if (!std::filesystem::exists(index)) {
    // AutoGPTQ names its one file after the settings.
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.path().extension() == kExtension) found.push_back(entry.path().string());
    }
    check(found.size() == 1,
          "'{}': neither model.safetensors nor model.safetensors.index.json is there, and {} other safetensors files, "
          "not one (PyTorch's .bin and .pt files: tools/convert_torch.py makes safetensors of them)",
          path, found.size());
    files.push_back(open_file(found[0], nullptr));
    return files;
  }
  for (const auto& [file, names] : read_index(index)) files.push_back(open_file(file_in(file), &names));
  return files;
}

}  // namespace

Checkpoint open_hf_directory(const std::string& path) {
  const auto file_in = [&](std::string_view name) { return (std::filesystem::path(path) / name).string(); };
  check(std::filesystem::exists(file_in("config.json")), "'{}' is no model: config.json is missing", path);
  const Json json = read_json_file(file_in("config.json"), kMaxConfigBytes);
  const JsonObject object(json, fmt::format("'{}'", file_in("config.json")));

  CheckpointBuilder builder(path);
  auto& state = builder.state();
  state.container = "safetensors";
  state.metadata.reserve(json.size());
  for (const auto& [key, value] : json.items()) {
    if (key != "quantization_config" || !value.is_object()) {
      state.metadata.emplace_back(printable(key), printable_json(value));
      continue;
    }
    state.metadata.reserve(json.size() + value.size());
    for (const auto& [inner, v] : value.items()) {
      state.metadata.emplace_back("quantization_config." + printable(inner), printable_json(v));
    }
  }
  state.config = read_hf_config(object);
  if (state.config.name.empty()) state.config.name = std::filesystem::canonical(path).filename().string();
  check_config(state.config, path);
  std::vector<SafetensorsFile> files = open_files(path);
  state.stored_scheme = read_stored_scheme(object);
  if (state.stored_scheme) {
    add_stored_tensors(builder, *state.stored_scheme, files);
  } else {
    Entries entries(files, path);
    if (const auto quantization = find_quantization(path, object, entries)) {
      add_quantized_tensors(builder, object, *quantization, entries);
    } else {
      entries.for_each_left([&](const SafetensorsTensor& t) { add_plain_tensor(builder, t); });
    }
  }
  for (SafetensorsFile& file : files) state.files.push_back(std::move(file).release());
  builder.check_tensors();
  builder.read_tokenizer([&] { return read_hf_tokenizer(path, object, state.config.vocab); });
  return builder.finish();
}

}  // namespace quire
