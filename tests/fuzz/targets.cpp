#include <algorithm>
#include <filesystem>

#include "base/mapped_file.h"
#include "tests/decode_all.h"
#include "tests/fuzz/target.h"
#include "tests/temp_dir.h"

namespace quire::fuzz {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMark = "\n=== ";
constexpr const char* kNames[] = {"config.json",
                                  "hf_quant_config.json",
                                  "tokenizer.json",
                                  "tokenizer.model",
                                  "tokenizer_config.json",
                                  "generation_config.json",
                                  "chat_template.jinja",
                                  "model.safetensors",
                                  "model.safetensors.index.json",
                                  "model-00001-of-00002.safetensors",
                                  "model-00002-of-00002.safetensors",
                                  "model-00001-of-00002.gguf",
                                  "model-00002-of-00002.gguf"};

const TempDir& work_directory() {
  static const TempDir directory;
  return directory;
}

template <class Fn>
void for_each_file(std::string_view input, Fn&& fn) {
  for (size_t at = input.find(kMark); at != std::string_view::npos;) {
    const size_t name = at + kMark.size(), line = input.find('\n', name);
    if (line == std::string_view::npos) return;
    at = input.find(kMark, line);
    fn(input.substr(name, line - name), input.substr(line + 1, at == std::string_view::npos ? at : at - line - 1));
  }
}

}  // namespace

const std::vector<Target>& targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> list = reader_targets();
    for (auto* more : {quantized_targets, text_targets, app_targets}) {
      for (Target& t : more()) list.push_back(std::move(t));
    }
    return list;
  }();
  return all;
}

std::string put_file(std::string_view name, std::string_view content) { return work_directory().write(name, content); }

std::string bundle(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string out;
  for (const auto& [name, content] : files) out += std::string(kMark) + name + "\n" + content;
  return out;
}

std::string bundle_directory(const std::string& directory) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const char* name : kNames) {
    const std::string path = directory + "/" + name;
    if (fs::exists(path)) files.emplace_back(name, read_text_file(path, size_t{1} << 28));
  }
  return bundle(files);
}

std::string put_bundle(std::string_view input) {
  const std::string directory = work_directory().file("model");
  fs::create_directories(directory);
  for (const char* name : kNames) fs::remove(directory + "/" + name);
  for_each_file(input, [&](std::string_view name, std::string_view content) {
    if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames))
      put_file("model/" + std::string(name), content);
  });
  return directory;
}

std::string bundled(std::string_view input, std::string_view file) {
  std::string found;
  for_each_file(input, [&](std::string_view name, std::string_view content) {
    if (name == file) found = content;
  });
  return found;
}

void use(const Tokenizer& tokenizer) {
  const std::string text = "Hello, 12 w\xC3\xB6rlds \n\n  <|im_end|>\xFF the end";
  for (const bool special : {true, false}) tokenizer.decode(tokenizer.encode(text, special), special);
}

void use(const Checkpoint& checkpoint) {
  decode_all(checkpoint);
  use(Tokenizer(checkpoint.tokenizer()));
}

}  // namespace quire::fuzz
