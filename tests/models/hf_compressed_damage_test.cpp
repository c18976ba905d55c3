// Damaged directories of compressed-tensors, fp8, ModelOpt and bitsandbytes: each ends in one error, or is read.
#include <gtest/gtest.h>

#include <cstring>

#include "models/linear.h"
#include "tests/decode_all.h"
#include "tests/expect_error.h"
#include "tests/models/golden_quantized.h"
#include "tests/models/safetensors_writer.h"

namespace quire {
namespace {

const GoldenQuantized& golden() { return GoldenQuantized::get(); }

class Damaged : public testing::Test {
 protected:
  void start(const std::string& name) {
    path_ = golden().write(name, dir_.file(name));
    config_ = golden().of(name).at("config");
    const std::string file = read(path_ + "/model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    header_ = nlohmann::ordered_json::parse(file.substr(8, length));
    data_ = file.substr(8 + length);
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name, std::ios::binary | std::ios::trunc) << text;
  }
  void put_weights() const { put("model.safetensors", SafetensorsWriter::file_of(header_.dump(), data_)); }
  void refused(std::initializer_list<std::string> parts) const {
    expect_error([&] { Checkpoint::open(path_); }, parts);
  }
  // The bytes of an entry.
  char* bytes(const std::string& name) {
    return data_.data() + header_.at(name).at("data_offsets").at(0).get<size_t>();
  }
  void config_refused(const char* pointer, const nlohmann::json& value, std::initializer_list<std::string> parts) {
    nlohmann::json config = config_;
    config["quantization_config"][nlohmann::json::json_pointer(pointer)] = value;
    put("config.json", config.dump());
    SCOPED_TRACE(std::string(pointer) + " " + value.dump());
    refused(parts);
    put("config.json", config_.dump());
  }

  TempDir dir_;
  std::string path_, data_;
  nlohmann::json config_;
  nlohmann::ordered_json header_;
};

// What writers of other versions say in other words.
TEST_F(Damaged, OtherSpellingsAreRead) {
  start("w8a8");
  const std::string module = "model.layers.0.mlp.up_proj.weight";
  const auto bytes_of = [&](const Checkpoint& c) {
    const Tensor& t = c.get(module);
    return std::string(t.data.row<const char>(0), size_t(t.rows * t.cols));
  };
  const std::string expected = bytes_of(Checkpoint::open(path_));
  const auto reopened = [&] {
    put("config.json", config_.dump());
    return bytes_of(Checkpoint::open(path_));
  };
  nlohmann::json& o = config_["quantization_config"];
  o["config_groups"] = {{"W8A8", {"Linear"}}};  // a preset
  EXPECT_EQ(reopened(), expected);
  o["config_groups"] = {{"w8a8", {"re:model.*_proj$"}}};
  EXPECT_EQ(reopened(), expected);
  o["format"] = "naive-quantized";
  EXPECT_EQ(reopened(), expected);
  start("fp8-block");
  const std::string blocks = bytes_of(Checkpoint::open(path_));
  nlohmann::json& block = config_["quantization_config"]["config_groups"]["group_0"]["weights"]["block_structure"];
  block = "48x32";
  EXPECT_EQ(reopened(), blocks);
  block = "48x";
  put("config.json", config_.dump());
  refused({"block_structure", "48x"});
}

// Columns whose groups do not lie together are put in the order of their groups, and so is x.
TEST_F(Damaged, ActOrder) {
  start("w4a16");
  const std::string module = "model.layers.0.self_attn.o_proj";
  const Checkpoint plain = Checkpoint::open(path_);
  const Tensor a = plain.get(module + ".weight");  // made now: its file is written anew
  std::string groups;
  for (int32_t c = 0; c < 64; ++c) {
    const int32_t g = c % 2;
    groups.append(reinterpret_cast<const char*>(&g), 4);
  }
  header_[module + ".weight_g_idx"] = {
      {"dtype", "I32"}, {"shape", {64}}, {"data_offsets", {data_.size(), data_.size() + groups.size()}}};
  data_ += groups;
  put_weights();
  const Checkpoint moved = Checkpoint::open(path_);
  const Tensor b = moved.get(module + ".weight");
  const CheckpointTensor& found = *moved.find(module + ".weight");
  ASSERT_TRUE(found.input);
  ASSERT_EQ(found.input->order.size(), 64u);
  std::vector<float> row(64);
  for (int64_t r = 0; r < b.rows; ++r) {
    info(b.codec).decode(b, r, 0, 64, row.data());
    for (int64_t c = 0; c < 64; ++c) {
      const int64_t from = found.input->order[size_t(c)];
      EXPECT_EQ(from % 2, c / 32);
      const float scale = b.scale.row<const float>(r)[c / 32];
      EXPECT_EQ(scale, a.scale.row<const float>(r)[c / 32]);
      EXPECT_EQ(row[size_t(c)], scale * float(int(Int4::field(a, r, from)) - 8));
    }
  }
  bytes(module + ".weight_g_idx")[0] = 1;  // 33 columns in group 1
  put_weights();
  refused({module + ".weight_g_idx"});
}

// The closest target decides, whatever the groups' order: a name, then a pattern, then a class.
TEST_F(Damaged, GroupsThatOverlap) {
  start("w8a8");
  const std::string at = "model.layers.0.mlp.";
  const nlohmann::json whole = config_["quantization_config"]["config_groups"]["group_0"];
  const auto group = [&](std::vector<std::string> targets, bool inputs) {
    nlohmann::json g = whole;
    g["targets"] = targets;
    if (!inputs) g["input_activations"] = nullptr;
    return g;
  };
  // Whether the activations of down_proj and up_proj are quantized.
  const auto expect_inputs = [&](const nlohmann::json& first, const nlohmann::json& second, bool down, bool up) {
    for (const bool turned : {false, true}) {
      config_["quantization_config"]["config_groups"] = {{"group_0", turned ? second : first},
                                                         {"group_1", turned ? first : second}};
      put("config.json", config_.dump());
      SCOPED_TRACE(config_["quantization_config"]["config_groups"].dump());
      const Checkpoint checkpoint = Checkpoint::open(path_);
      EXPECT_EQ(checkpoint.find(at + "down_proj.weight")->activation.has_value(), down);
      EXPECT_EQ(checkpoint.find(at + "up_proj.weight")->activation.has_value(), up);
    }
  };
  expect_inputs(group({"Linear"}, true), group({"re:.*down_proj"}, false), false, true);
  expect_inputs(group({"Linear"}, false), group({"re:.*down_proj"}, true), true, false);
  expect_inputs(group({"Linear", "re:.*down_proj"}, true), group({at + "down_proj"}, false), false, true);
  expect_inputs(group({"Linear", "re:.*_proj"}, true), group({"re:.*mlp.*"}, false), true, true);  // by their texts
  config_refused("/config_groups", {{"group_0", group({"Linear"}, true)}, {"group_1", group({"Linear"}, false)}},
                 {"'group_0'", "'group_1'", "'Linear'"});
}

// Matrices with unequal scales of static activations read x each in its own.
TEST_F(Damaged, UnequalStaticScalesAreNotJoined) {
  const std::string at = "model.layers.0.self_attn.";
  const std::vector<std::string> modules = {at + "q_proj", at + "k_proj", at + "v_proj"};
  const auto parts = [&](const char* scheme) {
    return plan_linear(Context(), Checkpoint::open(path_), modules, parse_scheme(scheme), {});
  };
  for (const char* name : {"w8a8-static", "fp8-kv"}) {
    start(name);
    for (const std::string& m : modules) std::memcpy(bytes(m + ".input_scale"), bytes(modules[0] + ".input_scale"), 2);
    put_weights();
    EXPECT_EQ(parts("").size(), 1u);
    *bytes(modules[1] + ".input_scale") ^= 1;  // the lowest bit
    put_weights();
    EXPECT_EQ(parts("").size(), 3u) << name;
    EXPECT_EQ(parts("a16").size(), 1u);
  }
}

// E4M3 has two codes for NaN; they are met when the matrix is made.
TEST_F(Damaged, Fp8CodesThatAreNotNumbers) {
  for (const char* name : {"fp8-kv", "fp8-block", "modelopt-fp8"}) {
    for (const uint8_t code : {0x7F, 0xFF}) {
      start(name);
      const std::string matrix = "model.layers.0.mlp.down_proj.weight";
      EXPECT_NO_THROW(Checkpoint::open(path_).get(matrix));
      bytes(matrix)[header_.at(matrix).at("shape").at(1).get<size_t>()] = char(code);
      put_weights();
      const Checkpoint checkpoint = Checkpoint::open(path_);
      expect_error([&] { checkpoint.get(matrix); }, {path_, matrix, "NaN in row 1"});
    }
  }
}

TEST_F(Damaged, CutAnywhere) {
  for (const char* name : {"w4a16-asym", "fp8-kv", "bnb-nf4-double"}) {
    start(name);
    const std::string file = read(path_ + "/model.safetensors");
    for (size_t size = 0; size < file.size(); size += 64) {
      put("model.safetensors", file.substr(0, size));
      refused({path_});
    }
  }
}

TEST_F(Damaged, FlippedBytesAreReadOrRefused) {
  for (const std::string& name : GoldenQuantized::names()) {
    start(name);
    const std::string file = read(path_ + "/model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    uint64_t state = 12345;
    int read_well = 0;
    for (int i = 0; i < 60; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      std::string damaged = file;
      const size_t at = (state >> 33) % (i % 2 == 0 ? 8 + length : file.size());
      damaged[at] = char(damaged[at] ^ (1 << (state >> 29) % 8));
      put("model.safetensors", damaged);
      try {
        decode_all(Checkpoint::open(path_));
        ++read_well;
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()), "");
      }
    }
    EXPECT_GT(read_well, 0) << "flips among the codes are not seen: " << name;
  }
}

// Each entry in another type, with another shape, or not there: an error that names it.
TEST_F(Damaged, EveryEntryIsChecked) {
  for (const std::string& name : GoldenQuantized::names()) {
    start(name);
    const nlohmann::ordered_json whole = header_;
    for (const auto& [entry, value] : whole.items()) {
      if (entry == "__metadata__") continue;
      SCOPED_TRACE(name + " " + entry);
      const std::string dtype = value.at("dtype");
      header_ = whole;
      header_[entry]["dtype"] = dtype == "U8"                         ? "BOOL"
                                : dtype == "I8" || dtype == "F8_E4M3" ? "U8"
                                : dtype == "I64"                      ? "F64"
                                : dtype == "BF16"                     ? "I16"
                                                                      : "U32";
      put_weights();
      refused({path_});
      header_ = whole;
      const bool optional = entry.ends_with("weight_format") || entry.ends_with("input_zero_point");
      std::vector<int64_t> shape = value.at("shape");
      shape.push_back(2);
      header_[entry]["shape"] = shape;
      put_weights();
      refused({path_});
      if (entry.ends_with("_proj.weight") || entry.ends_with("weight_packed")) {  // as many, but not in these rows
        int64_t values = 1;
        for (const int64_t d : value.at("shape").get<std::vector<int64_t>>()) values *= d;
        header_[entry]["shape"] = std::vector<int64_t>{values};
        put_weights();
        refused({path_});
      }
      header_ = whole;
      header_.erase(entry);
      put_weights();
      if (!optional) refused({path_});
    }
  }
}

TEST_F(Damaged, ScalesThatAreNotFinite) {
  const std::pair<const char*, const char*> entries[] = {{"w8a8", "self_attn.q_proj.weight_scale"},
                                                         {"w4a16", "mlp.up_proj.weight_scale"},
                                                         {"fp8-block", "mlp.down_proj.weight_scale"},
                                                         {"deepseek-fp8", "mlp.down_proj.weight_scale_inv"},
                                                         {"w8a8-static", "mlp.gate_proj.input_scale"},
                                                         {"fp8-kv", "self_attn.k_scale"},
                                                         {"modelopt-fp8", "self_attn.v_proj.v_scale"},
                                                         {"bnb-int8", "self_attn.o_proj.SCB"},
                                                         {"bnb-fp4", "mlp.up_proj.weight.absmax"},
                                                         {"bnb-fp4", "mlp.up_proj.weight.quant_map"},
                                                         {"bnb-nf4-double", "mlp.up_proj.weight.nested_absmax"},
                                                         {"bnb-nf4-double", "mlp.up_proj.weight.nested_quant_map"}};
  for (const auto& [name, entry] : entries) {
    start(name);
    const std::string full = "model.layers.0." + std::string(entry);
    const bool half = header_.at(full).at("dtype") == "BF16";
    const uint32_t nan = 0x7fc00000;
    const uint16_t half_nan = 0x7fc0;
    std::memcpy(bytes(full), half ? static_cast<const void*>(&half_nan) : &nan, half ? 2 : 4);
    put_weights();
    SCOPED_TRACE(full);
    refused({path_, "model.layers.0."});
  }
  start("fp8-kv");
  const uint16_t zero = 0;
  std::memcpy(bytes("model.layers.0.self_attn.k_scale"), &zero, 2);
  put_weights();
  refused({"k_scale", "must be positive"});
}

TEST_F(Damaged, ConfigurationsThatCannotBeRunAreRefusedByName) {
  start("w4a16");
  const char* const kWeights = "/config_groups/group_0/weights/";
  const auto weights = [&](const char* key) { return std::string(kWeights) + key; };
  config_refused("/quant_method", "hqq", {"hqq", "compressed-tensors"});
  config_refused("/config_groups/group_0/format", "nvfp4-pack-quantized", {"nvfp4-pack-quantized", "pack-quantized"});
  config_refused("/config_groups/group_0/format", "marlin-24", {"marlin-24"});
  config_refused("/config_groups", nullptr, {"config_groups"});
  config_refused("/config_groups/group_0/weights", nullptr, {"without quantized weights"});
  config_refused(weights("num_bits").c_str(), 9, {"9 bits"});
  config_refused(weights("num_bits").c_str(), 3, {"weight_packed", "3 bits"});
  config_refused(weights("num_bits").c_str(), 1ull << 40, {"num_bits"});
  config_refused(weights("type").c_str(), "float", {"floats of 4 bits"});
  config_refused(weights("strategy").c_str(), "tensor_group", {"tensor_group"});
  config_refused(weights("strategy").c_str(), "token", {"token"});
  config_refused(weights("group_size").c_str(), 7, {"weight_scale"});
  config_refused(weights("group_size").c_str(), 0, {"group_size"});
  config_refused(weights("dynamic").c_str(), true, {"dynamic"});
  config_refused(weights("symmetric").c_str(), false, {"weight_zero_point"});
  config_refused(weights("actorder").c_str(), "upside-down", {"upside-down"});
  config_refused(weights("actorder").c_str(), "group", {"weight_g_idx", "missing", "actorder"});
  const char* const kInputs = "/config_groups/group_0/input_activations/";
  config_refused((std::string(kInputs) + "num_bits").c_str(), 4, {"4 bits"});
  config_refused((std::string(kInputs) + "symmetric").c_str(), false, {"symmetric"});
  config_refused((std::string(kInputs) + "dynamic").c_str(), "local", {"local"});
  config_refused((std::string(kInputs) + "dynamic").c_str(), false, {"static"});
  config_refused("/config_groups/group_0/output_activations", {{"num_bits", 8}}, {"outputs"});
  config_refused("/kv_cache_scheme", {{"num_bits", 8}, {"type", "int"}, {"symmetric", true}, {"strategy", "tensor"}},
                 {"kv_cache_scheme", "int8"});
  config_refused("/transform_config", {{"config_groups", {{"R1", {{"type", "hadamard"}}}}}}, {"transforms"});
  config_refused("/sparsity_config", {{"format", "sparse-24-bitmask"}}, {"sparse-24-bitmask"});
  config_refused("/ignore", {"lm_head", "re:.*q_proj"}, {"q_proj"});  // but it is packed
  config_refused("/ignore", {3}, {"string"});
  config_refused("/config_groups/group_0/targets", {"re:(unclosed"}, {"unclosed"});
  config_refused("/config_groups/group_0/targets", {"Linear", "re:.*embed_tokens"}, {"embed_tokens"});  // but it is not
  // A pattern that would take 2^50 steps.
  config_refused("/config_groups/group_0/targets", {"re:([a-z._0-9]+)+([a-z._0-9]+)+[^a-z._0-9]"},
                 {"cannot be matched"});
  nlohmann::json many = nlohmann::json::array();
  for (int i = 0; i < 65; ++i) many.push_back("re:" + std::to_string(i));
  config_refused("/ignore", many, {"patterns"});
  nlohmann::json groups;
  for (int i = 0; i < 65; ++i) groups[std::to_string(i)] = {"Linear"};
  config_refused("/config_groups", groups, {"65 groups"});
  config_refused("/config_groups", {{"W5A5", {"Linear"}}}, {"W5A5", "W4A16"});
  start("deepseek-fp8");
  config_refused("/weight_block_size", {0, 128}, {"weight_block_size"});
  config_refused("/weight_block_size", {48, 1ull << 40}, {"weight_block_size"});
  config_refused("/weight_block_size", {16, 16}, {"weight_scale_inv"});
  config_refused("/activation_scheme", "static", {"input_scale", "missing"});
  config_refused("/fmt", "e5m2", {"e5m2"});
}

TEST_F(Damaged, ModelOptAndBitsAndBytes) {
  start("modelopt-fp8");
  const auto with = [&](const char* key, const char* value) {
    nlohmann::json side = golden().of("modelopt-fp8").at("hf_quant_config");
    side["quantization"][key] = value;
    put("hf_quant_config.json", side.dump());
  };
  with("quant_algo", "NVFP4");
  refused({"NVFP4", "FP8"});
  with("kv_cache_quant_algo", "INT8");
  refused({"INT8"});
  start("bnb-int8");
  const std::string format = "model.layers.0.self_attn.q_proj.weight_format";
  if (header_.contains(format)) {
    *bytes(format) = 2;
    put_weights();
    refused({"weight_format"});
  }
  start("bnb-fp4");
  const std::string state = "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__fp4";
  const std::string text(bytes(state), header_.at(state).at("shape").at(0).get<size_t>());
  const auto spoiled = [&](const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    std::memcpy(bytes(state), text.data(), text.size());
    std::memcpy(bytes(state) + at, to.data(), to.size());
    put_weights();
  };
  spoiled("\"blocksize\": 64", "\"blocksize\": 48");
  refused({"blocks of 48"});
  spoiled("\"blocksize\": 64", "\"blocksize\": -4");
  refused({"blocks of -4"});
  spoiled("[64, 64]", "[64, 32]");
  refused({"shape"});
  spoiled("{", "[");
  refused({"quant_state"});
}

}  // namespace
}  // namespace quire
