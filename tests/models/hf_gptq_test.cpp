// GPTQ and AWQ directories: what they decode to is what their layout says, and they compute what those values compute.
#include <gtest/gtest.h>

#include "models/linear.h"
#include "tests/expect_error.h"
#include "tests/models/equal_formats.h"
#include "tests/models/gptq_directory.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"

namespace quire {
namespace {

// Every module of a directory decodes to the drawn values, in the order its transform says.
void expect_values(const QuantizedDirectory& d) {
  const Checkpoint checkpoint = Checkpoint::open(d.path);
  std::vector<float> row;
  for (const auto& [module, m] : d.matrices) {
    const CheckpointTensor* t = checkpoint.find(module + ".weight");
    ASSERT_NE(t, nullptr);
    ASSERT_EQ(t->tensor.rows, m.rows);
    ASSERT_EQ(t->tensor.cols, m.cols);
    row.resize(size_t(m.cols));
    for (int64_t r = 0; r < m.rows; ++r) {
      info(t->tensor.codec).decode(t->tensor, r, 0, m.cols, row.data());
      for (int64_t c = 0; c < m.cols; ++c) {
        const int64_t at = t->input ? t->input->order[size_t(c)] : c;
        ASSERT_EQ(row[size_t(c)], m.value(r, at)) << module << " (" << r << ", " << at << ")";
      }
    }
  }
}

struct GptqCase {
  DrawOptions options;
  const char* format;
  const char* weights;  // the format it gets
};

TEST(HfGptq, KeepsCodesZerosAndScales) {
  const GptqCase cases[] = {
      {{4, 32, false, false}, "gptq", "int4z/g32"},    {{4, 32, false, false}, "gptq_v2", "int4z/g32"},
      {{4, 64, true, false}, "gptq", "int4"},          {{4, -1, false, false}, "gptq_v2", "int4z"},
      {{3, 32, false, false}, "gptq_v2", "int3z/g32"}, {{3, 32, true, false}, "gptq", "int3/g32"},
      {{2, 32, false, false}, "gptq_v2", "int2z/g32"}, {{2, -1, true, false}, "gptq", "int2"},
      {{8, 32, false, false}, "gptq_v2", "int8z/g32"}, {{8, 32, true, false}, "gptq", "int8/g32"},
      {{4, 32, false, true}, "gptq_v2", "int4z/g32"},  {{3, 32, true, true}, "gptq", "int3/g32"},
  };
  const TinyModel model = make_tiny_model(tiny());
  for (const GptqCase& c : cases) {
    const TempDir dir;
    const bool first = std::string(c.format) == "gptq";
    DrawOptions o = c.options;
    const auto d = write_quantized_hf(
        model, dir.file("q"), gptq_config(o, c.format), [&](const std::string&) { return o; },
        [&](SafetensorsWriter& w, const std::string& module, DrawnMatrix m) {
          write_gptq(w, module, m, first ? 1 : 0, o.act_order);
        });
    SCOPED_TRACE(d.path + " " + c.weights);
    // Version 1 cannot store a zero of 0: such cases draw symmetric ones or are of version 2, but for this.
    if (first && !o.symmetric) continue;
    expect_values(d);
    const Checkpoint checkpoint = Checkpoint::open(d.path);
    const Tensor& q = checkpoint.get("model.layers.0.self_attn.q_proj.weight");
    EXPECT_EQ(to_string(format_of(q)), c.weights);
  }
}

// Stored fields of all ones mean 16: field + 1, without a carry and without a mask.
TEST(HfGptq, VersionOneAddsOneToEachZero) {
  const TempDir dir;
  const DrawOptions o{4, 32, false, false};
  auto d = write_quantized_hf(
      make_tiny_model(tiny()), dir.file("q"), gptq_config(o), [&](const std::string&) { return o; },
      [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
        write_gptq(w, module, m, 1, false);
      });
  for (auto& [module, m] : d.matrices) {
    for (int& zero : m.zeros) zero = zero == 0 ? 16 : zero;
  }
  expect_values(d);
}

// The network computes, bit for bit, what the same values in f32 compute.
TEST(HfGptq, ComputesWhatItsValuesCompute) {
  const TinyModel model = make_tiny_model(tiny(2));
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {false, true}) {
      const TempDir dir;
      const DrawOptions o{bits, 32, symmetric, false};
      const auto d = write_quantized_hf(
          model, dir.file("q"), gptq_config(o, "gptq_v2"), [&](const std::string&) { return o; },
          [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
            write_gptq(w, module, m, 0, true);
          });
      SCOPED_TRACE(fmt::format("{} bits, symmetric {}", bits, symmetric));
      EXPECT_TRUE(equal_on_cpu(d.path, d.floats));
      expect_near_on_gpu(d.path);
      EXPECT_TRUE(equal_on_cpu(d.path, d.floats, "f32"));
    }
  }
}

// With act-order the columns are summed in another order: within rounding of exact sums.
TEST(HfGptq, ActOrderIsUndoneOnTheActivation) {
  const TempDir dir;
  const TinyModel model = make_tiny_model(tiny());
  const DrawOptions o{4, 32, false, true};
  const auto d = write_quantized_hf(
      model, dir.file("q"), gptq_config(o, "gptq_v2"), [&](const std::string&) { return o; },
      [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
        write_gptq(w, module, m, 0, true);
      });
  const Checkpoint checkpoint = Checkpoint::open(d.path);
  Machines machines;
  std::vector<Context> all = machines.all();
  if (gpu_is_here()) all.push_back(machines.gpu());
  Rng rng(3);
  for (const Context& ctx : all) {
    for (const std::vector<std::string>& names :
         {std::vector<std::string>{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}}) {
      std::vector<std::string> modules;
      for (const std::string& name : names) modules.push_back("model.layers.0." + name);
      const Linear linear = Linear::load(ctx, checkpoint, modules, parse_scheme(""), {});
      const int64_t t = 3, k = linear.k(), n = linear.n();
      // Tensor cores take x in halfs, and round each sum up to four times as coarsely.
      const bool halfs = linear.parts()[0].weight.problem.x.codec == id<F16>;
      const double rounding = double(k) * (halfs ? 0x1p-22 : 0x1p-24) + (halfs ? 0x1p-11 : 0);
      std::vector<float> x = normal(rng, t * k), y(size_t(t * n), NAN);
      const OwnedTensor in = tensor_on(ctx.device, f32_view(x.data(), t, k), ctx.stream);
      const OwnedTensor out = tensor_on(ctx.device, f32_view(y.data(), t, n), ctx.stream);
      EXPECT_TRUE(linear.input() == (Format{id<F32>, 0}));
      linear.run(ctx, in, out);
      const OwnedTensor back = tensor_on(Device::cpu, out, ctx.stream);
      if constexpr (kCuda) {
        if (ctx.device == Device::cuda) cuda::synchronize(ctx.stream);
      }
      int64_t at = 0;
      for (const std::string& module : modules) {
        const DrawnMatrix& m = d.matrices.at(module);
        for (int64_t i = 0; i < t; ++i) {
          for (int64_t r = 0; r < m.rows; ++r) {
            double sum = 0, magnitude = 0;
            for (int64_t c = 0; c < k; ++c) {
              const double p = double(x[size_t(i * k + c)]) * double(m.value(r, c));
              sum += p, magnitude += std::abs(p);
            }
            EXPECT_NEAR(back.tensor.data.row<const float>(i)[at + r], sum, rounding * magnitude);
          }
        }
        at += m.rows;
      }
    }
  }
}

TEST(HfGptq, MatricesShareAnActivationOnlyIfTheirOrdersAgree) {
  const TempDir dir;
  const TinyModel model = make_tiny_model(tiny());
  const DrawOptions o{4, 32, true, true};
  std::optional<DrawnMatrix> first;  // q and k have one order, v another
  const auto d = write_quantized_hf(
      model, dir.file("q"), gptq_config(o), [&](const std::string&) { return o; },
      [&](SafetensorsWriter& w, const std::string& module, DrawnMatrix m) {
        if (module.ends_with("q_proj")) first = m;
        if (module.ends_with("k_proj")) m.group_of = first->group_of;
        write_gptq(w, module, m, 1, true);
      });
  const Checkpoint checkpoint = Checkpoint::open(d.path);
  Machines machines;
  const std::string at = "model.layers.0.self_attn.";
  const std::vector<std::string> qkv = {at + "q_proj", at + "k_proj", at + "v_proj"};
  const std::vector<PartPlan> parts = plan_linear(machines.context(), checkpoint, qkv, parse_scheme(""), {});
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].names, (std::vector<std::string>{at + "q_proj", at + "k_proj"}));
}

TEST(HfGptq, RulesForSingleModules) {
  const TempDir dir;
  const TinyModel model = make_tiny_model(tiny(2));
  Ordered config = gptq_config({4, 32, true, false});
  config["dynamic"] = {{R"(-:.*\.layers\.0\.mlp\.(gate|up)_proj)", Ordered::object()},
                       {R"(+:.*down_proj$)", {{"bits", 8}, {"group_size", -1}}},
                       {R"(.*o_proj)", {{"bits", 2}}}};
  const auto options_of = [](const std::string& module) -> std::optional<DrawOptions> {
    if (module == "model.layers.0.mlp.gate_proj" || module == "model.layers.0.mlp.up_proj") return std::nullopt;
    if (module.ends_with("down_proj")) return DrawOptions{8, -1, true, false};
    if (module.ends_with("o_proj")) return DrawOptions{2, 32, true, false};
    return DrawOptions{4, 32, true, false};
  };
  const auto d = write_quantized_hf(model, dir.file("q"), config, options_of,
                                    [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
                                      write_gptq(w, module, m, 1, false);
                                    });
  expect_values(d);
  EXPECT_EQ(Checkpoint::open(d.path).container(), "safetensors, GPTQ, 4 bits, groups of 32, rules for single modules");
  EXPECT_TRUE(equal_on_cpu(d.path, d.floats));
  expect_near_on_gpu(d.path);
}

// Of rules that match the same module the first in the file counts, not the first by its text.
TEST(HfGptq, TheFirstRuleOfTheFileCounts) {
  const TinyModel model = make_tiny_model(tiny());
  const std::pair<const char*, int> rules[] = {{R"(.*down_proj$)", 8}, {R"(+:.*\.mlp\..*)", 2}};
  for (const bool turned : {false, true}) {
    for (const bool side_file : {false, true}) {
      const TempDir dir;
      Ordered config = gptq_config({4, 32, true, false});
      for (const int i : {0, 1}) {
        const auto& [text, bits] = rules[turned ? 1 - i : i];
        config["dynamic"][text] = {{"bits", bits}};
      }
      const auto options_of = [&](const std::string& module) -> std::optional<DrawOptions> {
        if (module.find(".mlp.") == std::string::npos) return DrawOptions{4, 32, true, false};
        return DrawOptions{!turned && module.ends_with("down_proj") ? 8 : 2, 32, true, false};
      };
      const auto d = write_quantized_hf(model, dir.file("q"), side_file ? Ordered() : config, options_of,
                                        [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
                                          write_gptq(w, module, m, 1, false);
                                        });
      if (side_file) write_file(d.path + "/quantize_config.json", config.dump());
      SCOPED_TRACE(config.dump());
      expect_values(d);
    }
  }
}

TEST(HfAwq, KeepsCodesZerosAndScales) {
  const TinyModel model = make_tiny_model({.layers = 2, .hidden = 128, .ffn = 256, .heads = 8, .kv_heads = 4});
  for (const char* version : {"gemm", "GEMV"}) {
    for (const int64_t group : {int64_t{32}, int64_t{64}, int64_t{128}, int64_t{-1}}) {
      const TempDir dir;
      const DrawOptions o{4, group, false, false};
      const Ordered config = {
          {"quant_method", "awq"}, {"bits", 4}, {"group_size", group}, {"zero_point", true}, {"version", version}};
      const auto d = write_quantized_hf(
          model, dir.file("q"), config, [&](const std::string&) { return o; },
          [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
            if (std::string(version) == "gemm") return write_awq_gemm(w, module, m);
            const int64_t times = group == 32 ? 4 : group == 64 ? 2 : 1, base = (m.cols / m.group + 7) / 8;
            write_awq_gemv(w, module, m, (base + times - 1) / times * times);
          });
      SCOPED_TRACE(fmt::format("{} {}", version, group));
      expect_values(d);
      EXPECT_TRUE(equal_on_cpu(d.path, d.floats));
      expect_near_on_gpu(d.path);
    }
  }
}

// Older writers' ways to say it: a side file, a file named after the settings, biases of zeros.
TEST(HfGptq, OlderDirectories) {
  const TempDir dir;
  const DrawOptions o{4, 32, true, false};
  const auto d = write_quantized_hf(
      make_tiny_model(tiny()), dir.file("q"), nullptr, [&](const std::string&) { return o; },
      [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
        write_gptq(w, module, m, 1, true);
        w.tensor(module + ".bias", "F16", {m.rows}, std::string(size_t(m.rows) * 2, '\0'));
      });
  write_file(d.path + "/quantize_config.json", R"({"bits": 4, "group_size": 32, "desc_act": false, "sym": true})");
  std::filesystem::rename(d.path + "/model.safetensors", d.path + "/gptq_model-4bit-32g.safetensors");
  expect_values(d);
}

std::string from_hex(const std::string& text) {
  std::string out;
  for (size_t i = 0; i + 1 < text.size(); i += 2) out += char(std::stoi(text.substr(i, 2), nullptr, 16));
  return out;
}

// FNV-1a of the bytes of values rounded to f16.
uint64_t hash_of_halves(const std::vector<float>& values) {
  uint64_t hash = 14695981039346656037u;
  for (const float v : values) {
    const uint16_t h = f32_to_f16(v);
    for (const int byte : {h & 255, h >> 8}) hash = (hash ^ uint64_t(byte)) * 1099511628211u;
  }
  return hash;
}

// Matrices packed by AutoGPTQ and AutoAWQ themselves decode to those packages' own values, rounded to their f16.
TEST(HfGptq, MatricesOfTheirOwnPackages) {
  const TinyModel model = make_tiny_model(tiny());
  const Ordered golden = Ordered::parse(read_text_file(source_file("tests/models/golden_gptq.json"), 1 << 20));
  const std::string module = "model.layers.0.self_attn.k_proj";
  ASSERT_EQ(golden["kinds"].size(), 10u);
  for (const Ordered& kind : golden["kinds"]) {
    SCOPED_TRACE(kind["name"].get<std::string>());
    const TempDir dir;
    write_tiny_hf(model, dir.path());
    SafetensorsWriter w;
    for (const TinyTensor& t : model.tensors) {
      const Tensor& x = t.weight.tensor;
      std::vector<int64_t> shape = {x.cols};
      if (x.rows > 1) shape.insert(shape.begin(), x.rows);
      if (t.name != module + ".weight") w.tensor(t.name, safetensors_type_of(x.codec), shape, bytes_of(x));
    }
    for (const auto& [name, t] : kind["tensors"].items())
      w.tensor(module + "." + name, t["dtype"], t["shape"], from_hex(t["data"]));
    Ordered config = tiny_hf_config(model);
    config["quantization_config"] = kind["config"];
    write_file(dir.file("config.json"), config.dump());
    write_file(dir.file("model.safetensors"), w.file());
    const Checkpoint checkpoint = Checkpoint::open(dir.path());
    const CheckpointTensor& t = *checkpoint.find(module + ".weight");
    EXPECT_EQ(t.input != nullptr, kind["config"].value("desc_act", false));
    std::vector<float> values(size_t(t.tensor.rows * t.tensor.cols)), row(size_t(t.tensor.cols));
    for (int64_t r = 0; r < t.tensor.rows; ++r) {
      info(t.tensor.codec).decode(t.tensor, r, 0, t.tensor.cols, row.data());
      for (int64_t c = 0; c < t.tensor.cols; ++c)
        values[size_t(r * t.tensor.cols + (t.input ? t.input->order[size_t(c)] : c))] = row[size_t(c)];
    }
    EXPECT_EQ(fmt::format("{:016x}", hash_of_halves(values)), kind["values"].get<std::string>());
  }
}

}  // namespace
}  // namespace quire
