// Small directories that other programs' quantizers wrote (tools/make_quantized.py --model small), what those programs
// make of their matrices, and the logits of transformers with them.
#pragma once
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/temp_dir.h"
#include "tests/test_data.h"

namespace quire {

class GoldenQuantized {
 public:
  static const GoldenQuantized& get() {
    static const GoldenQuantized golden;
    return golden;
  }
  const nlohmann::json& of(const std::string& name) const { return all_.at("cases").at(name); }
  std::vector<int32_t> prompt() const { return all_.at("prompt"); }
  // Known without the files: tests have names before they run.
  static std::vector<std::string> names() {
    return {"w8a8",
            "w8a8-static",
            "w8a8-asym",
            "w4a16",
            "w4a16-asym",
            "w4a8",
            "w6a16",
            "w3a16",
            "fp8-block",
            "fp8-kv",
            "deepseek-fp8",
            "modelopt-fp8",
            "bnb-int8",
            "bnb-nf4-double",
            "bnb-fp4",
            "phi3-w4a16-asym",
            "phi3-w8a8-static",
            "phi3-bnb-int8",
            "phi3-bnb-nf4-double"};
  }
  static std::string weights_file(const std::string& name) {
    return source_file(("tests/models/quantized/" + name + ".safetensors").c_str());
  }
  // The directory at `path`, with a tokenizer of three tokens.
  std::string write(const std::string& name, const std::string& path) const {
    std::filesystem::create_directories(path);
    put(path + "/config.json", of(name).at("config").dump());
    if (of(name).contains("hf_quant_config"))
      put(path + "/hf_quant_config.json", of(name).at("hf_quant_config").dump());
    put(path + "/tokenizer.json",
        R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": [],)"
        R"( "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},)"
        R"( "decoder": {"type": "ByteLevel"}})");
    std::filesystem::copy_file(weights_file(name), path + "/model.safetensors",
                               std::filesystem::copy_options::overwrite_existing);
    return path;
  }

 private:
  GoldenQuantized() : all_(nlohmann::json::parse(std::ifstream(source_file("tests/models/golden_quantized.json")))) {}
  static void put(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

  nlohmann::json all_;
};

}  // namespace quire
