// GPTQ and AWQ directories that cannot be: each is refused by name.
#include <gtest/gtest.h>

#include "models/checkpoint.h"
#include "tests/expect_error.h"
#include "tests/models/gptq_directory.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

// A good directory, to be spoiled.
class SpoiledGptq : public testing::Test {
 protected:
  void expect_refused(const Ordered& change, std::initializer_list<std::string> parts,
                      const std::function<void(SafetensorsWriter&, const std::string&, DrawnMatrix&)>& spoil = {}) {
    const TempDir dir;
    const DrawOptions o{4, 32, false, false};
    Ordered config = gptq_config(o, "gptq_v2");
    if (!change.is_null()) config.update(change);
    const auto d = write_quantized_hf(
        model_, dir.file("q"), config, [&](const std::string&) { return o; },
        [&](SafetensorsWriter& w, const std::string& module, DrawnMatrix m) {
          const bool last = module == "model.layers.0.mlp.down_proj";
          if (last && spoil) spoil(w, module, m);
          if (!w.header.contains(module + ".qweight")) write_gptq(w, module, m, 0, true);
        });
    expect_error([&] { Checkpoint::open(d.path); }, parts);
  }
  const TinyModel model_ = make_tiny_model(tiny());
};

TEST_F(SpoiledGptq, SettingsThatCannotBe) {
  expect_refused({{"bits", 5}}, {"5 bits"});
  expect_refused({{"bits", 8}}, {"qweight", "I32"});
  expect_refused({{"group_size", 0}}, {"group_size is 0"});
  expect_refused({{"group_size", 64}}, {"qzeros"});
  expect_refused({{"checkpoint_format", "marlin"}}, {"'marlin'", "gptq_v2"});
  expect_refused({{"is_marlin_format", true}}, {"'marlin'"});
  expect_refused({{"pack_dtype", "int8"}}, {"int8", "int32"});
  expect_refused({{"dynamic", {{"-:.*", Ordered::object()}}}}, {"dynamic", "not quantized"});
  expect_refused({{"dynamic", {{"(", Ordered::object()}}}}, {"'('", "not a regular expression"});
  expect_refused({{"dynamic", {{"(.|.)*(.|.)*[#!]", Ordered::object()}}}}, {"cannot be matched"});
  expect_refused({{"adapter", {{"name", "eora"}}}}, {"adapter"});
  Ordered rules;
  for (int i = 0; i < 1001; ++i) rules[std::to_string(i)] = Ordered::object();
  expect_refused({{"dynamic", rules}}, {"dynamic", "1001 rules", "1000"});
}

TEST_F(SpoiledGptq, ActOrderNeedsTheGroupOfEachInput) {
  const auto without = [](SafetensorsWriter& w, const std::string& module, DrawnMatrix& m) {
    write_gptq(w, module, m, 0, false);
  };
  expect_refused({{"desc_act", true}}, {"down_proj.g_idx", "missing", "desc_act"}, without);
  expect_refused({{"dynamic", {{".*down_proj", {{"desc_act", true}}}}}}, {"down_proj.g_idx", "missing"}, without);
}

TEST_F(SpoiledGptq, TensorsThatCannotBe) {
  const auto down = [](const char* what) { return fmt::format("model.layers.0.mlp.down_proj{}", what); };
  expect_refused({}, {down(".g_idx"), "as many"}, [](auto&, auto&, DrawnMatrix& m) { m.group_of[5] = 99; });
  expect_refused({}, {down(".g_idx"), "group -1"}, [](auto&, auto&, DrawnMatrix& m) { m.group_of[5] = -1; });
  expect_refused({}, {down(".g_idx"), "as many"}, [](auto&, auto&, DrawnMatrix& m) { m.group_of[95] = 0; });
  for (const uint16_t bad : {0x7C00, 0xFC00, 0x7E00}) {
    expect_refused({}, {down(""), "not finite"}, [=](auto&, auto&, DrawnMatrix& m) { m.scales[7] = bad; });
  }
  expect_refused({}, {down(".qzeros"), "missing"}, [](SafetensorsWriter& w, const std::string& module, auto&) {
    w.tensor(module + ".qweight", "I32", {12, 64}, std::string(12 * 64 * 4, '\0'));
  });
  expect_refused({}, {down(".qweight"), "F32"}, [](SafetensorsWriter& w, const std::string& module, auto&) {
    w.tensor(module + ".qweight", "F32", {12, 64}, std::string(12 * 64 * 4, '\0'));
  });
  expect_refused({}, {down(".extra")}, [](SafetensorsWriter& w, const std::string& module, auto&) {
    w.tensor(module + ".extra", "F32", {1}, std::string(4, '\0'));
  });
  // Beside the packed one, also in floats.
  expect_refused({}, {down(".weight"), "twice"}, [](SafetensorsWriter& w, const std::string& module, auto&) {
    w.tensor(module + ".weight", "F16", {64, 96}, std::string(64 * 96 * 2, '\0'));
  });
  expect_refused({}, {down(".bias")}, [](SafetensorsWriter& w, const std::string& module, auto&) {
    w.tensor(module + ".bias", "F16", {64}, std::string(128, '\1'));
  });
}

TEST(HfQuantized, AConfigurationWithoutWeightsIsRefused) {
  const TempDir dir;
  const TinyModel model = make_tiny_model(tiny());
  for (const char* method : {"gptq", "awq"}) {
    write_tiny_hf(model, dir.file(method));
    Ordered config = tiny_hf_config(model);
    config["quantization_config"] = {{"quant_method", method}, {"bits", 4}};
    write_file(dir.file(method) + "/config.json", config.dump());
    expect_error([&] { Checkpoint::open(dir.file(method)); }, {"no '.qweight'"});
  }
}

}  // namespace
}  // namespace quire
