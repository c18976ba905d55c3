#include "models/pre_tokenizers.h"

#include "base/error.h"

namespace quire {

namespace {

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct PreTokenizer {
  const char* name;
  std::vector<std::string> patterns;
  bool whole_pieces = false;
};

const std::vector<PreTokenizer>& known() {
  static const std::vector<PreTokenizer> list = {
      {"smollm", {R"(\p{N})", kGpt2}},
      {"gpt-2", {kGpt2}},
      {"gpt2", {kGpt2}},
      {"default", {kGpt2}},
      {"llama3", {kLlama3}, true},
      {"llama-v3", {kLlama3}, true},
      {"llama-bpe", {kLlama3}, true},
      {"qwen2", {kQwen2}},
  };
  return list;
}

const PreTokenizer& get(const std::string& pre) {
  std::string names;
  for (const PreTokenizer& p : known()) {
    if (p.name == pre) return p;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", p.name);
  }
  fail(fmt::format("tokenizer: pre-tokenizer '{}' is not known (tokenizer.ggml.pre); known: {}", pre, names));
}

}  // namespace

std::vector<std::string> split_patterns_for(const std::string& pre) { return get(pre).patterns; }
bool whole_pieces_for(const std::string& pre) { return get(pre).whole_pieces; }

}  // namespace quire
