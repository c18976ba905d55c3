// Quantized directories of Phi 3, whose modules are fused: the network's matrices are rows of them, bit for bit, where
// no part begins on a whole block of what the method packs.
#include <gtest/gtest.h>

#include <cmath>

#include "models/linear.h"
#include "models/network_tensors.h"
#include "tests/expect_error.h"
#include "tests/models/equal_formats.h"
#include "tests/models/fused_model.h"
#include "tests/models/quantized_values.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

using Ordered = nlohmann::ordered_json;

// Rows: q 32, k 16, v 16; gate 96, up 96.
const TinyModelOptions kSizes{.layers = 2, .hidden = 64, .ffn = 96, .heads = 2, .kv_heads = 1, .head_dim = 16};
constexpr int64_t kGroup = 16;

// ---- Modules as their writers put them: entries of drawn codes, and the values they mean.

using Put = std::vector<float> (*)(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                   Draw& draw);

std::vector<float> values_of(const DrawnMatrix& m) {
  std::vector<float> values;
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) values.push_back(m.value(r, c));
  }
  return values;
}

template <int bits, bool act_order>
std::vector<float> put_gptq(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  const DrawnMatrix m = draw_matrix(draw, rows, cols, {bits, kGroup, false, act_order});
  write_gptq(w, module, m, 0, act_order);
  return values_of(m);
}

std::vector<float> put_awq(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  const DrawnMatrix m = draw_matrix(draw, rows, cols, {4, kGroup, false, false});
  write_awq_gemm(w, module, m);
  return values_of(m);
}

std::vector<float> put_floats(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  std::vector<float> values;
  for (int64_t i = 0; i < rows * cols; ++i) values.push_back((float(draw(2001)) - 1000.0f) / 4000.0f);
  w.tensor(module + ".weight", "F32", {rows, cols}, raw_bytes(values));
  return values;
}

// Groups and 'ignore' name the fused modules.
std::vector<float> put_packed(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  if (module == "model.layers.1.mlp.gate_up_proj") return put_floats(w, module, rows, cols, draw);
  const int bits = module.ends_with("qkv_proj") ? 3 : 4;
  const DrawnMatrix m = draw_matrix(draw, rows, cols, {bits, kGroup, false, false});
  const int64_t words = (cols * bits + 31) / 32, zero_words = (rows * bits + 31) / 32;
  Words packed(rows * words), zeros(zero_words * m.groups());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) put_stream(packed, r * words, 1, c, bits, m.code(r, c));
    for (int64_t g = 0; g < m.groups(); ++g) put_stream(zeros, g, m.groups(), r, bits, m.zero(r, g));
  }
  w.tensor(module + ".weight_packed", "I32", {rows, words}, packed.bytes());
  w.tensor(module + ".weight_scale", "F16", {rows, m.groups()}, raw_bytes(m.scales));
  w.tensor(module + ".weight_zero_point", "I32", {zero_words, m.groups()}, zeros.bytes());
  w.tensor(module + ".weight_shape", "I64", {2}, raw_bytes(std::vector<int64_t>{rows, cols}));
  return values_of(m);
}

// One scale a row: `scale_name` F32 `shape`, of which the value's is `times`.
std::vector<float> put_rows_of_int8(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                    Draw& draw, const char* scale_name, const std::vector<int64_t>& shape,
                                    float times) {
  std::string codes;
  std::vector<float> scales, values;
  for (int64_t r = 0; r < rows; ++r) {
    scales.push_back(float(1 + draw(1000)) * 1e-3f);
    for (int64_t c = 0; c < cols; ++c) {
      codes.push_back(char(int(draw(255)) - 127));
      values.push_back(scales.back() * times * float(int8_t(codes.back())));
    }
  }
  w.tensor(module + ".weight", "I8", {rows, cols}, codes);
  w.tensor(module + scale_name, "F32", shape, raw_bytes(scales));
  return values;
}
std::vector<float> put_channels_of_int8(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                        Draw& draw) {
  return put_rows_of_int8(w, module, rows, cols, draw, ".weight_scale", {rows, 1}, 1.0f);
}
std::vector<float> put_llm_int8(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                Draw& draw) {
  return put_rows_of_int8(w, module, rows, cols, draw, ".SCB", {rows}, 1.0f / 127.0f);
}

float e4m3(int code) {
  const int c = code & 127;
  const float v = c < 8 ? float(c) * 0x1p-9f : std::ldexp(1.0f + float(c % 8) / 8.0f, c / 8 - 7);
  return code < 128 ? v : -v;
}
constexpr int64_t kBlockRows = 40, kBlockCols = 32;
template <bool blocks>
std::vector<float> put_e4m3(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  const int64_t high = blocks ? kBlockRows : rows, wide = blocks ? kBlockCols : cols;
  const int64_t down = (rows + high - 1) / high, across = (cols + wide - 1) / wide;
  std::vector<float> scales, values;
  for (int64_t i = 0; i < down * across; ++i) scales.push_back(float(1 + draw(1000)) * 1e-6f);
  std::string codes;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int code = int(draw(127) + 128 * draw(2));
      codes.push_back(char(code));
      values.push_back(scales[size_t(r / high * across + c / wide)] * e4m3(code));
    }
  }
  w.tensor(module + ".weight", "F8_E4M3", {rows, cols}, codes);
  if (blocks) {
    w.tensor(module + ".weight_scale_inv", "F32", {down, across}, raw_bytes(scales));
  } else {
    w.tensor(module + ".weight_scale", "F32", {1}, raw_bytes(scales));
    w.tensor(module + ".input_scale", "F32", {1}, raw_bytes(std::vector<float>{0.03f}));
  }
  return values;
}

std::vector<float> put_nf4(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  constexpr int64_t kBlock = 16;
  std::vector<float> table, most, values;
  for (int i = 0; i < 16; ++i) table.push_back((float(draw(2001)) - 1000.0f) / 1000.0f);
  for (int64_t i = 0; i < rows * cols / kBlock; ++i) most.push_back(float(1 + draw(1000)) * 1e-3f);
  std::string codes(size_t(rows * cols / 2), '\0');
  for (int64_t i = 0; i < rows * cols; ++i) {
    const uint32_t code = draw(16);
    codes[size_t(i / 2)] |= char(code << (i % 2 == 0 ? 4 : 0));
    values.push_back(table[code] * most[size_t(i / kBlock)]);
  }
  const std::string state = Ordered{{"quant_type", "nf4"}, {"blocksize", kBlock}, {"shape", {rows, cols}}}.dump();
  w.tensor(module + ".weight", "U8", {rows * cols / 2, 1}, codes);
  w.tensor(module + ".weight.absmax", "F32", {int64_t(most.size())}, raw_bytes(most));
  w.tensor(module + ".weight.quant_map", "F32", {16}, raw_bytes(table));
  w.tensor(module + ".weight.quant_state.bitsandbytes__nf4", "U8", {int64_t(state.size())}, state);
  return values;
}

std::vector<float> put_qserve(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  return put_groups(w, module, rows, cols, draw, false);
}
std::vector<float> put_tiles(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols, Draw& draw) {
  return put_spqr(w, module, rows, cols, draw);
}

// ---- The methods

Ordered ct_weights(int bits, const char* type, bool symmetric, const char* strategy) {
  Ordered weights = {{"num_bits", bits}, {"type", type}, {"symmetric", symmetric}, {"strategy", strategy}};
  if (std::string(strategy) == "group") weights["group_size"] = kGroup;
  return weights;
}
Ordered ct_config(const char* format, const Ordered& groups) {
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"config_groups", groups},
          {"ignore", {"re:.*layers[.]1[.]mlp[.]gate_up_proj", "lm_head"}}};
}
Ordered ct_group(const char* target, const Ordered& weights) {
  return {{"targets", {target}}, {"weights", weights}, {"input_activations", nullptr}};
}

struct Method {
  const char* name;
  Ordered quantization;
  Put put;
  bool in_order = true;  // columns are summed as they are
};

std::vector<Method> methods() {
  const auto gptq = [](int bits, bool act_order) {
    return Ordered{{"quant_method", "gptq"},
                   {"bits", bits},
                   {"group_size", kGroup},
                   {"desc_act", act_order},
                   {"checkpoint_format", "gptq_v2"}};
  };
  const Ordered packed = {{"group_0", ct_group("Linear", ct_weights(4, "int", false, "group"))},
                          {"group_1", ct_group("re:.*[.]qkv_proj$", ct_weights(3, "int", false, "group"))}};
  Ordered integers =
      ct_config("int-quantized", {{"group_0", ct_group("Linear", ct_weights(8, "int", true, "channel"))}});
  integers["ignore"] = {"lm_head"};
  Ordered statics = {{"group_0", ct_group("Linear", ct_weights(8, "float", true, "tensor"))}};
  statics["group_0"]["input_activations"] = ct_weights(8, "float", true, "tensor");
  Ordered floats = ct_config("float-quantized", statics);
  floats["ignore"] = {"lm_head"};
  return {
      {"gptq-4", gptq(4, false), put_gptq<4, false>},
      {"gptq-3", gptq(3, false), put_gptq<3, false>},
      {"gptq-act-order", gptq(4, true), put_gptq<4, true>, false},
      {"awq", {{"quant_method", "awq"}, {"bits", 4}, {"group_size", kGroup}, {"version", "gemm"}}, put_awq},
      {"pack-quantized", ct_config("pack-quantized", packed), put_packed},
      {"int-quantized", integers, put_channels_of_int8},
      {"float-quantized", floats, put_e4m3<false>},
      {"fp8", {{"quant_method", "fp8"}, {"weight_block_size", {kBlockRows, kBlockCols}}}, put_e4m3<true>},
      {"modelopt", {{"quant_method", "modelopt"}, {"quant_algo", "FP8"}}, put_e4m3<false>},
      {"bnb-int8", {{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}}, put_llm_int8},
      {"bnb-nf4", {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}}, put_nf4},
      {"qserve", {{"quant_method", "qserve"}}, put_qserve},
      {"spqr", {{"quant_method", "spqr"}}, put_tiles, false},  // outliers after the others
  };
}

Method method_of(const std::string& name) {
  for (const Method& m : methods()) {
    if (name == m.name) return m;
  }
  fail("no method " + name);
}

Values write_phi3(const Method& method, const TinyModel& model, const std::string& path, const WriteValues& put) {
  Ordered config = phi3_config(model);
  config["quantization_config"] = method.quantization;
  Values values = write_directory(model, path, config, put);
  config.erase("quantization_config");
  write_file(path + "-floats/config.json", config.dump());
  return values;
}
Values write_phi3(const Method& method, const std::string& path) {
  Draw draw;
  return write_phi3(method, make_fused_model(kSizes), path,
                    [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
                      return method.put(w, module, rows, cols, draw);
                    });
}

void expect_values(const Values& values, const Checkpoint& checkpoint) {
  for (const auto& [module, wanted] : values) {
    size_t at = 0;
    for (const std::string& part : parts_of(module)) {
      const CheckpointTensor* t = checkpoint.find(part + ".weight");
      ASSERT_NE(t, nullptr) << part;
      EXPECT_EQ(t->source_name, module + ".weight");
      const size_t cols = size_t(t->tensor.cols);
      std::vector<float> got = decoded(t->tensor);
      const SparseMatrix beside = checkpoint.outliers(t->name);
      EXPECT_EQ(t->outliers, int64_t(beside.entries.size())) << part;
      for (int64_t r = 0; r < t->tensor.rows; ++r) add_sparse_row(beside.view(), r, got.data() + r * t->tensor.cols);
      for (size_t i = 0; i < got.size(); ++i) {
        const size_t c = i % cols, column = t->input ? size_t(t->input->order[c]) : c;
        ASSERT_EQ(got[i], wanted.at(at + i - c + column)) << part << " at " << i;
      }
      at += got.size();
    }
    EXPECT_EQ(at, wanted.size()) << module;
  }
}

class Fused : public testing::TestWithParam<Method> {
 protected:
  TempDir dir_;
};

TEST_P(Fused, PartsAreRowsOfTheModule) {
  const std::string path = dir_.file("q");
  const Values values = write_phi3(GetParam(), path);
  const Checkpoint checkpoint = Checkpoint::open(path);
  expect_values(values, checkpoint);
  // One of them dropped: the others stay as they are, and it is made again.
  checkpoint.release("model.layers.0.self_attn.q_proj.weight");
  expect_values(values, checkpoint);
  for (const CheckpointTensor& t : checkpoint.list()) checkpoint.release(t.name);
  expect_values(values, checkpoint);
}

// What one module has for its x, all its parts have: q, k, v and gate, up stay one matmul each.
TEST_P(Fused, PartsRunTogether) {
  write_phi3(GetParam(), dir_.file("q"));
  const Checkpoint checkpoint = Checkpoint::open(dir_.file("q"));
  Machines machines;
  for (const char* module : {"model.layers.0.self_attn.qkv_proj", "model.layers.0.mlp.gate_up_proj"}) {
    const auto plans = plan_linear(machines.context(), checkpoint, parts_of(module), parse_scheme(""), {});
    EXPECT_EQ(plans.size(), 1u) << module;
  }
}

// The network computes with float activations, bit for bit, what the same values in f32 compute.
class FusedInOrder : public Fused {};
TEST_P(FusedInOrder, ComputesWhatItsValuesCompute) {
  const std::string path = dir_.file("q");
  write_phi3(GetParam(), path);
  EXPECT_TRUE(equal_on_cpu(path, path + "-floats", "a16"));
  EXPECT_TRUE(equal_on_cpu(path, path + "-floats", "f32"));
}

TEST_P(Fused, DamagedModulesAreNamed) {
  const TinyModel model = make_fused_model(kSizes);
  for (const char* fused : {"self_attn.qkv_proj", "mlp.gate_up_proj"}) {
    const std::string damaged = fmt::format("model.layers.0.{}", fused);
    for (const int64_t less : {int64_t(-1), int64_t(32)}) {
      const std::string path = dir_.file(fmt::format("{}{}", fused, less));
      Draw draw;
      const Method& method = GetParam();
      write_phi3(method, model, path, [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
        if (module != damaged) return method.put(w, module, rows, cols, draw);
        return less < 0 ? std::vector<float>(size_t(rows * cols)) : method.put(w, module, rows - less, cols, draw);
      });
      expect_error([&] { Checkpoint::open(path); }, {path, fused});
    }
  }
}

std::string test_name(const testing::TestParamInfo<Method>& info) {
  std::string name = info.param.name;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}
INSTANTIATE_TEST_SUITE_P(Methods, Fused, testing::ValuesIn(methods()), test_name);
std::vector<Method> in_order() {
  std::vector<Method> all = methods();
  std::erase_if(all, [](const Method& m) { return !m.in_order; });
  return all;
}
INSTANTIATE_TEST_SUITE_P(Methods, FusedInOrder, testing::ValuesIn(in_order()), test_name);

// Act-order sums columns in another order: as a Llama's of the same codes, whose modules are not fused.
TEST(HfFused, ActOrderComputesWhatSplitModulesCompute) {
  const TempDir dir;
  const Method method = method_of("gptq-act-order");
  const TinyModel model = make_tiny_model(kSizes);
  std::map<std::string, DrawnMatrix> parts;
  Draw draw;
  const auto put = [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
    const DrawnMatrix m = draw_matrix(draw, rows, cols, {4, kGroup, false, true});
    int64_t row = 0;
    for (const std::string& part : parts_of(module)) {
      DrawnMatrix& p = parts[part] = m;
      p.rows = network_tensor(model.config, part + ".weight")->rows;
      p.codes = {m.codes.begin() + row * cols, m.codes.begin() + (row + p.rows) * cols};
      p.zeros = {m.zeros.begin() + row * m.groups(), m.zeros.begin() + (row + p.rows) * m.groups()};
      p.scales = {m.scales.begin() + row * m.groups(), m.scales.begin() + (row + p.rows) * m.groups()};
      row += p.rows;
    }
    write_gptq(w, module, m, 0, true);
    return values_of(m);
  };
  write_phi3(method, make_fused_model(kSizes), dir.file("fused"), put);
  Ordered config = tiny_hf_config(model);
  config["quantization_config"] = method.quantization;
  write_directory(model, dir.file("split"), config,
                  [&](SafetensorsWriter& w, const std::string& module, int64_t, int64_t) {
                    write_gptq(w, module, parts.at(module), 0, true);
                    return values_of(parts.at(module));
                  });
  EXPECT_TRUE(equal_on_cpu(dir.file("fused"), dir.file("split")));
}

// Phi 3's files have no others.
TEST(HfFused, SplitModulesAreRefused) {
  const TempDir dir;
  Draw draw;
  write_phi3(method_of("gptq-4"), make_tiny_model(kSizes), dir.file("q"),
             [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
               return put_gptq<4, false>(w, module, rows, cols, draw);
             });
  expect_error([&] { Checkpoint::open(dir.file("q")); }, {dir.file("q"), ".mlp.gate_proj."});
}

// Where vLLM looks for them too.
TEST(HfFused, TheCachesScalesMayBeTheFusedModules) {
  const TempDir dir;
  const Method method = method_of("modelopt");
  Draw draw;
  write_phi3(method, make_fused_model(kSizes), dir.file("q"),
             [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
               if (module.ends_with("qkv_proj")) {
                 w.tensor(module + ".k_scale", "F32", {1}, raw_bytes(std::vector<float>{0.25f}));
                 w.tensor(module + ".v_scale", "F32", {1}, raw_bytes(std::vector<float>{0.5f}));
               }
               return method.put(w, module, rows, cols, draw);
             });
  const Checkpoint checkpoint = Checkpoint::open(dir.file("q"));
  ASSERT_EQ(checkpoint.cache_scales().size(), 2u);
  EXPECT_EQ(checkpoint.cache_scales()[1].k, 0.25f);
  EXPECT_EQ(checkpoint.cache_scales()[1].v, 0.5f);
}

}  // namespace
}  // namespace quire
