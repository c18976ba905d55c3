// QServe and QuaRot directories: what they decode to is what their layouts say, and inputs are transformed as
// their writers do.
#include <gtest/gtest.h>

#include <bit>

#include "models/linear.h"
#include "tests/expect_error.h"
#include "tests/models/equal_formats.h"
#include "tests/models/quantized_values.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

using Ordered = nlohmann::ordered_json;

void expect_values(const Values& values, const std::string& path) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  for (const auto& [module, wanted] : values) {
    const CheckpointTensor* t = checkpoint.find(module + ".weight");
    ASSERT_NE(t, nullptr) << module;
    const std::vector<float> got = decoded(t->tensor);
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t cols = size_t(t->tensor.cols), c = i % cols;
      const size_t at = t->input && !t->input->order.empty() ? i - c + size_t(t->input->order[c]) : i;
      ASSERT_EQ(got[i], wanted[at]) << module << " row " << i / cols << ", column " << at % cols;
    }
  }
}

// ---- QServe
// ----------------------------------------------------------------------------------------------------------

const TinyModelOptions kTiled{.layers = 1, .hidden = 128, .ffn = 256, .heads = 8, .kv_heads = 4, .head_dim = 16};

TEST(HfQserve, PerChannelAndPerGroup) {
  const TinyModel model = make_tiny_model(kTiled);
  for (const bool grouped : {false, true}) {
    const TempDir dir;
    Draw draw;
    const auto put = [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
      return grouped ? put_groups(w, module, rows, cols, draw, false) : put_channels(w, module, rows, cols, draw);
    };
    const std::string path = dir.file("q");
    expect_values(write_directory(model, path, tiny_hf_config(model), put), path);
    const Checkpoint checkpoint = Checkpoint::open(path);
    const CheckpointTensor& q = *checkpoint.find("model.layers.0.self_attn.q_proj.weight");
    EXPECT_EQ(to_string(format_of(q.tensor)), grouped ? "qoq4/g32" : "uint4o");
    EXPECT_EQ(to_string(q.activation.value()), "int8");
    EXPECT_EQ(checkpoint.container(), grouped ? "safetensors, QServe (QoQ), 4 bits, groups of 32"
                                              : "safetensors, QServe (QoQ), 4 bits, one scale a row");
    EXPECT_TRUE(equal_on_cpu(path, path + "-floats", "f32"));
    // As it is, activations are int8: the same codes whether the scheme says so or the file.
    EXPECT_TRUE(compute(*open_small(path)).logits.size() == 70u * 300u);
  }
}

TEST(HfQserve, TheOtherOrderOfSecondScales) {
  const TinyModel model = make_tiny_model(kTiled);
  for (const bool deep : {false, true}) {
    const TempDir dir;
    Draw draw;
    const std::string path = dir.file("q");
    Ordered config = tiny_hf_config(model);
    const auto put = [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
      return put_groups(w, module, rows, cols, draw, deep);
    };
    const char *right = deep ? "deepcompressor" : "omniserve", *wrong = deep ? "omniserve" : "deepcompressor";
    config["quantization_config"] = {{"quant_method", "qserve"}, {"s2_order", right}};
    expect_values(write_directory(model, path, config, put), path);
    config["quantization_config"]["s2_order"] = wrong;
    write_file(path + "/config.json", config.dump());
    expect_error([&] { Checkpoint::open(path); }, {"order", right});
    config["quantization_config"]["s2_order"] = "marlin";
    write_file(path + "/config.json", config.dump());
    expect_error([&] { Checkpoint::open(path); }, {"'marlin'", "omniserve"});
  }
}

// W8A8, of sizes that no tile divides.
TEST(HfQserve, BytesWithAScaleARow) {
  const TinyModel model = make_tiny_model({.layers = 2, .hidden = 48, .ffn = 80, .heads = 3, .kv_heads = 1});
  for (const bool named : {false, true}) {  // by a configuration, or by the entries alone
    const TempDir dir;
    Draw draw;
    const auto put = [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
      return put_bytes(w, module, rows, cols, draw);
    };
    const std::string path = dir.file("q");
    Ordered config = tiny_hf_config(model);
    if (named) config["quantization_config"] = {{"quant_method", "qserve"}};
    expect_values(write_directory(model, path, config, put), path);
    const Checkpoint checkpoint = Checkpoint::open(path);
    const CheckpointTensor& q = *checkpoint.find("model.layers.1.self_attn.q_proj.weight");
    EXPECT_EQ(to_string(format_of(q.tensor)), "int8");
    EXPECT_EQ(to_string(q.activation.value()), "int8");
    EXPECT_EQ(checkpoint.container(), "safetensors, QServe (W8A8), one scale a row");
    EXPECT_TRUE(equal_on_cpu(path, path + "-floats", "f32"));
    EXPECT_EQ(compute(*open_small(path)).logits.size(), 70u * 300u);
  }
}

TEST(HfQserve, RefusesBytesThatCannotBe) {
  const TinyModel model = make_tiny_model({.layers = 1});
  const auto expect_refused = [&](std::initializer_list<std::string> parts, const WriteValues& spoiled) {
    const TempDir dir;
    Draw draw;
    write_directory(model, dir.file("q"), tiny_hf_config(model),
                    [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
                      if (!module.ends_with("k_proj")) return put_bytes(w, module, rows, cols, draw);
                      return spoiled(w, module, rows, cols);
                    });
    expect_error([&] { Checkpoint::open(dir.file("q")); }, parts);
  };
  using Shape = std::vector<int64_t>;
  const auto put = [&](const char* type, const Shape& less, int64_t scales, uint16_t scale) -> WriteValues {
    return [=](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
      const int64_t r = rows - less[0], c = cols - less[1];
      const int64_t size = std::string(type) == "I8" ? 1 : 2;
      w.tensor(m + ".weight", type, {r, c}, std::string(size_t(r * c * size), '\1'));
      w.tensor(m + ".dequant_scale", "F16", {scales + rows},
               raw_bytes(std::vector<uint16_t>(size_t(scales + rows), scale)));
      return std::vector<float>(size_t(rows * cols));
    };
  };
  expect_refused({"k_proj.weight", "I8"}, put("F16", {0, 0}, 0, 0x2000));
  expect_refused({"k_proj.weight", "I8"}, put("I8", {1, 0}, 0, 0x2000));
  expect_refused({"k_proj.weight", "I8"}, put("I8", {0, 16}, 0, 0x2000));
  expect_refused({"k_proj.dequant_scale", "scales for"}, put("I8", {0, 0}, -1, 0x2000));
  expect_refused({"k_proj.dequant_scale", "scales for"}, put("I8", {0, 0}, 1, 0x2000));
  for (const uint16_t scale : {0x7C00, 0xFC00, 0x7E01})
    expect_refused({"k_proj", "not finite"}, put("I8", {0, 0}, 0, scale));
  expect_refused({"k_proj.weight", "missing"},
                 [](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
                   w.tensor(m + ".dequant_scale", "F16", {rows}, std::string(size_t(2 * rows), '\1'));
                   return std::vector<float>(size_t(rows * cols));
                 });
  // Without its scales nothing says what the bytes mean.
  expect_refused({"k_proj.weight", "I8"}, [](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
    w.tensor(m + ".weight", "I8", {rows, cols}, std::string(size_t(rows * cols), '\1'));
    return std::vector<float>(size_t(rows * cols));
  });
  expect_refused({"k_proj.dequant_scale", "I32"},
                 [](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
                   w.tensor(m + ".weight", "I8", {rows, cols}, std::string(size_t(rows * cols), '\1'));
                   w.tensor(m + ".dequant_scale", "I32", {rows}, std::string(size_t(4 * rows), '\1'));
                   return std::vector<float>(size_t(rows * cols));
                 });
}

TEST(HfQserve, RefusesWhatCannotBe) {
  const TinyModel model = make_tiny_model(kTiled);
  const auto expect_refused = [&](std::initializer_list<std::string> parts,
                                  const std::function<void(SafetensorsWriter&, const std::string&, Draw&)>& spoil) {
    const TempDir dir;
    Draw draw;
    write_directory(model, dir.file("q"), tiny_hf_config(model),
                    [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
                      if (module.ends_with("k_proj")) {
                        spoil(w, module, draw);
                        return std::vector<float>(size_t(rows * cols));
                      }
                      return put_groups(w, module, rows, cols, draw, false);
                    });
    expect_error([&] { Checkpoint::open(dir.file("q")); }, parts);
  };
  const auto plane = [](int64_t n, int value) { return std::string(size_t(n), char(value)); };
  const auto put = [&](SafetensorsWriter& w, const std::string& m, int code, uint16_t s1, int s2, int b) {
    w.tensor(m + ".qweight", "I8", {64, 64}, plane(64 * 64, code | code << 4));
    w.tensor(m + ".s1_scales", "F16", {64}, raw_bytes(std::vector<uint16_t>(64, s1)));
    w.tensor(m + ".s2_scales", "I8", {4, 64}, plane(4 * 64, s2));
    w.tensor(m + ".s2_zeros", "I8", {4, 64}, plane(4 * 64, b));
  };
  expect_refused({"k_proj", "leaves int8"}, [&](auto& w, auto& m, auto&) { put(w, m, 15, 0x2000, 10, 0); });
  expect_refused({"k_proj", "not finite"}, [&](auto& w, auto& m, auto&) { put(w, m, 1, 0x7C00, 1, 0); });
  expect_refused({"k_proj", "-1"}, [&](auto& w, auto& m, auto&) { put(w, m, 0, 0x2000, 255, 0); });
  expect_refused({"k_proj", "s1_szeros"}, [&](auto& w, auto& m, auto&) {
    w.tensor(m + ".qweight", "I8", {64, 64}, plane(64 * 64, 0));
    w.tensor(m + ".s1_scales", "F16", {64}, plane(128, 0));
  });
  expect_refused({"k_proj", "missing"}, [&](auto&, auto&, auto&) {});
}

// ---- QuaRot
// ----------------------------------------------------------------------------------------------------------

TEST(HfQuarot, RotatesWhatItsWriterRotates) {
  const TempDir dir;
  const TinyModel model = make_tiny_model({.layers = 1, .hidden = 64, .ffn = 96, .heads = 4, .kv_heads = 2});
  Ordered config = tiny_hf_config(model);
  config["architectures"] = {"QuarotLlamaForCausalLM"};
  config["model_type"] = "llama_quarot";
  config["auto_map"] = {{"AutoConfig", "quarot.LlamaConfig"}};
  const Hadamard known(96);
  ASSERT_EQ(known.k(), 12);
  std::vector<uint16_t> signs;  // transposed, so not the one that is known here
  for (int i = 0; i < 144; ++i) signs.push_back(f32_to_f16(float(known.sign(i % 12, i / 12))));
  Draw draw;
  const auto put = [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
    if (module.ends_with("down_proj")) w.tensor(module + ".0.had_rem_dim", "F16", {12, 12}, raw_bytes(signs));
    const bool down = module.ends_with("down_proj"), o = module.ends_with("o_proj");
    return put_quarot(w, module + (down ? ".2" : o ? ".1" : ""), rows, cols, draw);
  };
  const auto kept = [](const std::string& name) { return name.find("layernorm") == std::string::npos; };
  const std::string path = dir.file("q");
  const Values values = write_directory(model, path, config, put, kept);
  expect_values(values, path);

  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_EQ(decoded(checkpoint.get("model.layers.0.input_layernorm.weight")), std::vector<float>(64, 1.0f));
  Machines machines;
  std::vector<Context> all = {machines.context()};
  if (gpu_is_here()) all.push_back(machines.gpu());
  Rng rng(5);
  for (const Context& ctx : all) {
    for (const bool down : {true, false}) {
      const std::string module = std::string("model.layers.0.") + (down ? "mlp.down_proj" : "self_attn.o_proj");
      const Linear linear = Linear::load(ctx, checkpoint, {module}, parse_scheme("a16"), {});
      const int64_t k = linear.k(), n = linear.n(), order = down ? 96 : 4, blocks = k / order;
      // Tensor cores take x in halfs, and round each sum up to four times as coarsely.
      const bool halfs = linear.parts()[0].weight.problem.x.codec == id<F16>;
      // k roundings of the product, order + 2 of the transform (its factor is rounded too).
      const double rounding = double(k + order + 4) * (halfs ? 0x1p-22 : 0x1p-24) + (halfs ? 0x1p-11 : 0);
      std::vector<float> x = normal(rng, k), y(size_t(n), NAN);
      const OwnedTensor in = tensor_on(ctx.device, f32_view(x.data(), 1, k), ctx.stream);
      const OwnedTensor out = tensor_on(ctx.device, f32_view(y.data(), 1, n), ctx.stream);
      linear.run(ctx, in, out);
      const OwnedTensor back = tensor_on(Device::cpu, out, ctx.stream);
      if constexpr (kCuda) {
        if (ctx.device == Device::cuda) cuda::synchronize(ctx.stream);
      }
      // x'[i * blocks + block] = sum over j of H[i][j] x[j * blocks + block]
      std::vector<double> turned(size_t(k), 0.0), magnitude(size_t(k), 0.0);
      for (int64_t block = 0; block < blocks; ++block) {
        for (int64_t i = 0; i < order; ++i) {
          for (int64_t j = 0; j < order; ++j) {
            const int64_t power = down ? 8 : 4;  // K of down: 12, of o: 1
            const int walsh = std::popcount(uint64_t(i % power & j % power)) % 2 ? -1 : 1;
            const int sign = walsh * (down ? known.sign(j / power, i / power) : 1);
            const double v = double(x[size_t(j * blocks + block)]) / std::sqrt(double(order));
            turned[size_t(i * blocks + block)] += sign * v;
            magnitude[size_t(i * blocks + block)] += std::abs(v);
          }
        }
      }
      const std::vector<float>& w = values.at(module);
      for (int64_t r = 0; r < n; ++r) {
        double sum = 0, most = 0;
        for (int64_t c = 0; c < k; ++c) {
          sum += double(w[size_t(r * k + c)]) * turned[size_t(c)];
          most += std::abs(double(w[size_t(r * k + c)])) * magnitude[size_t(c)];
        }

        EXPECT_NEAR(back.tensor.data.row<const float>(0)[r], sum, rounding * most) << module;
      }
    }
  }
  EXPECT_EQ(compute(*open_small(path)).logits.size(), 70u * 300u);
}

}  // namespace
}  // namespace quire
