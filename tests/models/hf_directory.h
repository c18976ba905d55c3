// A HuggingFace directory of a tiny model, to be spoiled.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "models/checkpoint.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {

using Ordered = nlohmann::ordered_json;

class HfDirectory : public testing::Test {
 protected:
  HfDirectory() { write_tiny_hf(model_, path()); }
  std::string path() const { return dir_.file("model"); }
  void write(const std::string& name, const std::string& content) const { write_file(path() + "/" + name, content); }
  void remove(const std::string& name) const { std::filesystem::remove(path() + "/" + name); }
  Checkpoint open() const { return Checkpoint::open(path()); }
  void expect_refused(std::initializer_list<std::string> parts) const {
    expect_error([&] { open(); }, parts);
  }
  Checkpoint open_with(const std::string& key, const Ordered& value) const {
    Ordered config = tiny_hf_config(model_);
    config[key] = value;
    write("config.json", config.dump());
    return open();
  }
  void expect_config_refused(const std::string& key, const Ordered& value,
                             std::initializer_list<std::string> parts) const {
    SCOPED_TRACE(key);
    expect_error([&] { open_with(key, value); }, parts);
  }
  // change: edits the parsed tokenizer.json.
  template <class Change>
  TokenizerData tokenizer_with(Change&& change) const {
    Ordered json = tiny_hf_tokenizer(model_);
    change(json);
    write("tokenizer.json", json.dump());
    return open().tokenizer();
  }
  template <class Change>
  void expect_tokenizer_refused(Change&& change, std::initializer_list<std::string> parts) const {
    expect_error([&] { tokenizer_with(change); }, parts);
  }

  TempDir dir_;
  TinyModel model_ =
      make_tiny_model({.layers = 1, .hidden = 32, .ffn = 32, .heads = 2, .kv_heads = 1, .matrices = id<BF16>});
};

}  // namespace quire
