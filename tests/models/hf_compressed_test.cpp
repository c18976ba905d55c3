// compressed-tensors, fp8, ModelOpt and bitsandbytes directories: files that those programs wrote, against what they
// make of them, and damaged ones.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/convert.h"
#include "models/decoder.h"
#include "tests/expect_error.h"
#include "tests/models/golden_quantized.h"
#include "tests/op_test.h"

namespace quire {
namespace {

const GoldenQuantized& golden() { return GoldenQuantized::get(); }

// As tools/make_quantized.py: FNV-1a of the values' bytes.
std::string hash_of(const Tensor& t) {
  const std::vector<float> values = decoded(t);
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < values.size() * 4; ++i) h = (h ^ bytes[i]) * 0x100000001b3u;
  return fmt::format("{:016x}", h);
}

struct Machine {
  ThreadPool pool{2};
  Scratch scratch;
  Context ctx;
  explicit Machine(Isa isa = default_isa()) {
    ctx.pool = &pool;
    ctx.scratch = &scratch;
    ctx.isa = isa;
  }
};

// Logits of the last token of the golden prompt.
std::vector<float> logits_of(const Checkpoint& checkpoint, const Scheme& scheme, Isa isa = default_isa()) {
  Machine m(isa);
  const ModelConfig& c = checkpoint.config();
  const std::vector<int32_t> prompt = golden().prompt();
  const Decoder decoder = Decoder::load(m.ctx, checkpoint, scheme, 64);
  KvCacheConfig config;
  config.layers = c.layers, config.kv_heads = c.kv_heads, config.head_dim = c.head_dim;
  config.scheme = scheme.kv;
  config.max_tokens = 64;
  config.pages = 1;
  config.scales = checkpoint.cache_scales();
  KvCache cache(config);
  const int32_t slot = cache.open();
  EXPECT_TRUE(cache.reserve(slot, int64_t(prompt.size())));
  Batch batch;
  batch.sequences.push_back({slot, 0, int64_t(prompt.size()), 0});
  for (size_t i = 0; i < prompt.size(); ++i) {
    batch.tokens.push_back(prompt[i]);
    batch.positions.push_back(int32_t(i));
  }
  batch.logits_rows.push_back(int32_t(prompt.size() - 1));
  const OwnedTensor logits = make_tensor({id<F32>, 0}, 1, c.vocab);
  decoder.forward(m.ctx, batch, cache, logits);
  return decoded(logits);
}

class GoldenCase : public testing::TestWithParam<std::string> {
 protected:
  Checkpoint open() const { return Checkpoint::open(golden().write(GetParam(), dir_.file("model"))); }
  TempDir dir_;
};

// Codes, scales and zeros are read as their writer reads them: each value is the writer's own, bit for bit.
TEST_P(GoldenCase, EachMatrixIsWhatItsWriterMakesOfIt) {
  const Checkpoint checkpoint = open();
  const nlohmann::json& matrices = golden().of(GetParam()).at("matrices");
  EXPECT_GE(matrices.size(), 6u);
  for (const auto& [module, hash] : matrices.items()) {
    const Tensor& t = checkpoint.get(module + ".weight");
    EXPECT_LE(info(t.codec).bits, 8) << module;
    EXPECT_EQ(hash_of(t), hash.get<std::string>()) << module << " in " << describe(t);
  }
}

// With float activations and weights as they are packed: transformers' logits, to rounding.
TEST_P(GoldenCase, LogitsAreThoseOfTransformers) {
  const Checkpoint checkpoint = open();
  const std::vector<double> expected = golden().of(GetParam()).at("logits"),
                            bounds = golden().of(GetParam()).at("bounds");
  for (const Isa isa : {Isa::baseline, default_isa()}) {
    const std::vector<float> got = logits_of(checkpoint, parse_scheme("a16"), isa);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(double(got[i]), expected[i], bounds[i]) << "logit " << i;
  }
}

// As its writer wants it run, activations and cache included: the same on every instruction set, and other numbers than
// with float activations only where the writer quantized those.
TEST_P(GoldenCase, RunsAsItsWriterMeantIt) {
  const Checkpoint checkpoint = open();
  const Scheme native = choose_scheme("", "", checkpoint.stored_scheme());
  const std::vector<float> here = logits_of(checkpoint, native),
                           reference = logits_of(checkpoint, native, Isa::baseline);
  EXPECT_EQ(std::memcmp(here.data(), reference.data(), here.size() * 4), 0);
  bool quantized = native.kv.name != "kvf16";
  for (const CheckpointTensor& t : checkpoint.list()) quantized = quantized || t.activation;
  const std::vector<float> floats = logits_of(checkpoint, parse_scheme("a16"));
  EXPECT_EQ(here != floats, quantized);
  for (const float x : here) EXPECT_TRUE(std::isfinite(x));
}

// y of one matrix for x (5, K), as its writer wants it run.
std::vector<float> product(const Context& ctx, const Checkpoint& checkpoint, const std::string& module,
                           std::vector<float>& x, int64_t n, int64_t k) {
  const Linear linear = Linear::load(ctx, checkpoint, {module}, parse_scheme(""), {});
  const OwnedTensor y = make_tensor({id<F32>, 0}, 5, n);
  const Tensor host = f32_view(x, 5, k);
  if (ctx.device == Device::cpu) {
    linear.run(ctx, host, y);
    return decoded(y);
  }
  OnGpu gpu(ctx);
  const OwnedTensor there = make_tensor({id<F32>, 0}, 5, n, {.device = Device::cuda});
  linear.run(ctx, gpu.in(host), there);
  copy_tensor(there, y, ctx.stream);
  if constexpr (kCuda) cuda::synchronize(ctx.stream);
  return decoded(y);
}

// Integers are equal. Of floats the sums differ as tests/kernels/matmul_test.cpp says; on tensor cores float
// activations are halfs too: |error| of each at most 2^-11 |x|, 2^-25 below f16's normal numbers.
TEST_P(GoldenCase, ProductsOnAGpuAreThoseOfTheCpu) {
  if (!gpu_is_here()) GTEST_SKIP() << "no GPU";
  Machines machines;
  Rng rng(5);
  const Checkpoint checkpoint = open();
  for (const auto& [module, hash] : golden().of(GetParam()).at("matrices").items()) {
    const CheckpointTensor& t = *checkpoint.find(module + ".weight");
    const int64_t n = t.tensor.rows, k = t.tensor.cols;
    const bool integers = t.activation && t.activation->codec == id<Int8>;
    std::vector<float> x = normal(rng, 5 * k);
    for (int64_t i = 3; t.outlier_threshold > 0 && i < 5 * k; i += 29) x[size_t(i)] *= 2.0f * t.outlier_threshold;
    const std::vector<float> w = decoded(t.tensor);
    const std::vector<float> here = product(machines.context(), checkpoint, module, x, n, k);
    const std::vector<float> there = product(machines.gpu(), checkpoint, module, x, n, k);
    if (integers) {
      EXPECT_EQ(first_difference(here, there), "") << module;
      continue;
    }
    const PartPlan plan = plan_linear(machines.gpu(), checkpoint, {module}, parse_scheme(""), {})[0];
    const bool halfs = plan.problem.x.codec == id<F16>;
    EXPECT_TRUE(halfs || plan.problem.x.codec == id<F32> || plan.problem.x.codec == id<E4M3>) << module;
    // What is multiplied: x as it is, or in E4M3.
    const Linear linear = Linear::load(machines.context(), checkpoint, {module}, parse_scheme(""), {});
    const Context ctx = machines.context();
    const Tensor in = linear.input_tensor(ctx, 5);
    convert(ctx, f32_view(x, 5, k), in);
    const std::vector<float> taken = decoded(in);
    for (int64_t i = 0; i < 5 * n; ++i) {
      double magnitude = 0, rounding = 0;
      for (int64_t c = 0; c < k; ++c) {
        const double xc = std::abs(taken[size_t(i / n * k + c)]), wc = std::abs(w[size_t(i % n * k + c)]);
        magnitude += xc * wc;
        if (halfs) rounding += std::max(xc, 0x1p-14) * wc * 0x1p-11;
      }
      const double sums = (3.125 * double(k) + 16) * 0x1p-24 * (magnitude + rounding);
      EXPECT_NEAR(here[size_t(i)], there[size_t(i)], sums + rounding) << module;
    }
  }
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}
INSTANTIATE_TEST_SUITE_P(Writers, GoldenCase, testing::ValuesIn(GoldenQuantized::names()), test_name);

TEST(HfCompressed, FormatsAreAsFewAsPossible) {
  const std::pair<const char*, const char*> expected[] = {
      {"w8a8", "int8"},          {"w8a8-asym", "int8z"},   {"w4a16", "int4/g32"},  {"w4a16-asym", "int4z/g32"},
      {"w4a8", "int8/g32"},      {"w6a16", "int8/g32"},    {"w3a16", "int3z/g32"}, {"fp8-kv", "e4m3"},
      {"fp8-block", "e4m3/g32"}, {"modelopt-fp8", "e4m3"}, {"bnb-int8", "int8"},   {"bnb-nf4-double", "lut4"},
  };
  for (const auto& [name, format] : expected) {
    const TempDir dir;
    const Checkpoint checkpoint = Checkpoint::open(golden().write(name, dir.file("model")));
    EXPECT_EQ(to_string(format_of(checkpoint.get("model.layers.0.mlp.up_proj.weight"))), format) << name;
    EXPECT_EQ(to_string(format_of(checkpoint.get("lm_head.weight"))), "bf16") << name;
  }
}

// One scale for all activations, the file's: y = (sum * sx) * scale, exactly.
TEST(HfCompressed, StaticActivationsTakeTheFilesScale) {
  const TempDir dir;
  const Checkpoint checkpoint = Checkpoint::open(golden().write("w8a8-static", dir.file("model")));
  const std::string module = "model.layers.0.mlp.down_proj";
  const CheckpointTensor* found = checkpoint.find(module + ".weight");
  ASSERT_TRUE(found && found->activation.has_value());
  EXPECT_EQ(to_string(*found->activation), "int8");
  ASSERT_GT(found->input_scale, 0.0f);
  const Tensor w = found->tensor;
  std::vector<float> x(size_t(3 * w.cols));
  for (size_t i = 0; i < x.size(); ++i) x[i] = (float(i * 37 % 101) - 50.0f) * found->input_scale * 3.0f;  // some clip
  std::vector<float> expected;
  const float inv = 1.0f / found->input_scale;
  for (int64_t m = 0; m < 3; ++m) {
    for (int64_t n = 0; n < w.rows; ++n) {
      int32_t sum = 0;
      for (int64_t k = 0; k < w.cols; ++k) {
        const float q = std::nearbyint(std::min(127.0f, std::max(-127.0f, x[size_t(m * w.cols + k)] * inv)));
        sum += int32_t(q) * int8_t(w.data.row<const uint8_t>(n)[k]);
      }
      expected.push_back((float(sum) * found->input_scale) * *w.scale.row<const float>(n));
    }
  }
  for (const Isa isa : {Isa::baseline, default_isa()}) {
    Machine machine(isa);
    const Linear linear = Linear::load(machine.ctx, checkpoint, {module}, parse_scheme(""), {});
    EXPECT_EQ(to_string(linear.input()), "int8");
    const Tensor in = linear.input_tensor(machine.ctx, 3);
    const Tensor floats = f32_view(x, 3, w.cols);
    convert(machine.ctx, floats, in);
    const OwnedTensor y = make_tensor({id<F32>, 0}, 3, w.rows);
    linear.run(machine.ctx, in, y);
    EXPECT_EQ(decoded(y), expected);
    linear.run(machine.ctx, floats, y);  // converted on the way
    EXPECT_EQ(decoded(y), expected);
    const PartPlan plan = plan_linear(machine.ctx, checkpoint, {module}, parse_scheme(""), {})[0];
    EXPECT_NE(plan.description().find("int8 x int8 in "), std::string::npos);
    EXPECT_NE(plan.description().find("(static scale)"), std::string::npos);
  }
}

// The nearest number of E4M3; of two as near, that of the even code.
float nearest_e4m3(float x) {
  const double magnitude = std::abs(double(x));
  float best = 0;
  for (int code = 0; code <= 0x7E; ++code) {
    const float v = code < 8 ? float(code) * 0x1p-9f : std::ldexp(1.0f + float(code % 8) / 8.0f, code / 8 - 7);
    const double here = std::abs(magnitude - v), there = std::abs(magnitude - best);
    if (here < there || (here == there && code % 2 == 0)) best = v;
  }
  return std::copysign(best, x);
}

// Static activations by tensor in the file's scale, dynamic ones by token in that of their largest; then plain sums.
TEST(HfCompressed, Fp8ActivationsAreTheNearestOfTheirScale) {
  const std::string module = "model.layers.0.mlp.down_proj";
  for (const bool is_static : {true, false}) {
    const TempDir dir;
    nlohmann::json config = golden().of("fp8-kv").at("config");
    nlohmann::json& inputs = config["quantization_config"]["config_groups"]["group_0"]["input_activations"];
    if (!is_static) inputs["dynamic"] = true, inputs["strategy"] = "token";
    const std::string path = golden().write("fp8-kv", dir.file("model"));
    std::ofstream(path + "/config.json") << config.dump();
    const Checkpoint checkpoint = Checkpoint::open(path);
    const CheckpointTensor* found = checkpoint.find(module + ".weight");
    ASSERT_TRUE(found && found->activation.has_value());
    EXPECT_EQ(to_string(*found->activation), "e4m3");
    EXPECT_EQ(found->input_scale > 0.0f, is_static);
    const int64_t rows = found->tensor.rows, k = found->tensor.cols;
    const float step = is_static ? found->input_scale * 12.0f : 0.01f;  // static: some clip
    std::vector<float> x(size_t(3 * k)), q(x.size()), scale;
    for (size_t i = 0; i < x.size(); ++i) x[i] = (float(i * 37 % 101) - 50.0f) * step * float(1 + i / size_t(k));
    for (int64_t m = 0; m < 3; ++m) {
      float most = 0;
      for (int64_t c = 0; c < k; ++c) most = std::max(most, std::abs(x[size_t(m * k + c)]));
      scale.push_back(is_static ? found->input_scale : most / 448.0f);
      const float inv = 1.0f / scale.back();
      for (int64_t c = 0; c < k; ++c) q[size_t(m * k + c)] = nearest_e4m3(x[size_t(m * k + c)] * inv);
    }
    const std::vector<float> w = decoded(found->tensor);
    for (const Isa isa : {Isa::baseline, default_isa()}) {
      Machine machine(isa);
      const Linear linear = Linear::load(machine.ctx, checkpoint, {module}, parse_scheme(""), {});
      EXPECT_EQ(to_string(linear.input()), "e4m3");
      const OwnedTensor y = make_tensor({id<F32>, 0}, 3, rows);
      linear.run(machine.ctx, f32_view(x, 3, k), y);
      const std::vector<float> got = decoded(y);
      for (int64_t i = 0; i < 3 * rows; ++i) {
        double sum = 0, magnitude = 0;
        for (int64_t c = 0; c < k; ++c) {
          const double p = double(q[size_t(i / rows * k + c)]) * scale[size_t(i / rows)] * w[size_t(i % rows * k + c)];
          sum += p, magnitude += std::abs(p);
        }
        // K roundings of sums, those of two scales, and that of w above.
        EXPECT_NEAR(double(got[size_t(i)]), sum, double(k + 3) * 0x1p-24 * magnitude) << "y " << i;
      }
    }
  }
}

// LLM.int8() as its library computes it for one token: the scale is that of the elements below the threshold, products
// of integers are multiplied by SCA SCB / 127^2; the others are halfs, times the decoded column. 0: there are none.
TEST(HfCompressed, BitsandbytesInt8KeepsLargeActivations) {
  const std::string module = "model.layers.0.mlp.down_proj";
  for (const double threshold : {6.0, 1.0, 0.0}) {
    const TempDir dir;
    nlohmann::json config = golden().of("bnb-int8").at("config");
    config["quantization_config"]["llm_int8_threshold"] = threshold;
    const std::string path = golden().write("bnb-int8", dir.file("model"));
    std::ofstream(path + "/config.json") << config.dump();
    const Checkpoint checkpoint = Checkpoint::open(path);
    const OwnedTensor copy = tensor_on(Device::cpu, checkpoint.get(module + ".weight"));  // loading releases it
    const Tensor w = copy;
    std::vector<float> x(size_t(3 * w.cols));
    for (size_t i = 0; i < x.size(); ++i) x[i] = (float(i * 37 % 101) - 50.0f) * (i % 13 == 0 ? 0.31f : 0.037f);
    for (const Isa isa : {Isa::baseline, default_isa()}) {
      Machine machine(isa);
      const Linear linear = Linear::load(machine.ctx, checkpoint, {module}, parse_scheme(""), {});
      EXPECT_EQ(to_string(linear.input()), threshold > 0 ? "f32" : "int8");
      const OwnedTensor y = make_tensor({id<F32>, 0}, 3, w.rows), floats = make_tensor({id<F32>, 0}, 3, w.rows);
      linear.run(machine.ctx, f32_view(x, 3, w.cols), y);
      const std::string text = plan_linear(machine.ctx, checkpoint, {module}, parse_scheme(""), {})[0].description();
      EXPECT_EQ(text.find(", x from 6 in halfs") != std::string::npos, threshold == 6.0) << text;
      const Linear plain = Linear::load(machine.ctx, checkpoint, {module}, parse_scheme("a16"), {});
      plain.run(machine.ctx, f32_view(x, 3, w.cols), floats);
      EXPECT_NE(decoded(y), decoded(floats));
      int64_t taken = 0;
      for (int64_t m = 0; m < 3; ++m) {
        const float* row = x.data() + m * w.cols;
        const auto large = [&](float v) { return threshold > 0 && std::abs(v) >= threshold; };
        float most = 0;
        for (int64_t k = 0; k < w.cols; ++k) most = large(row[k]) ? most : std::max(most, std::abs(row[k]));
        for (int64_t n = 0; n < w.rows; ++n) {
          const double scb = double(*w.scale.row<const float>(n)) * 127.0;
          int64_t sum = 0;
          double beside = 0, magnitude = 0;
          for (int64_t k = 0; k < w.cols; ++k) {
            const int code = w.data.row<const int8_t>(n)[k];
            if (large(row[k])) {
              const double product = double(f16_to_f32(f32_to_f16(row[k]))) * code * scb / 127.0;
              beside += product, magnitude += std::abs(product), ++taken;
            } else {
              sum += int64_t(std::nearbyint(row[k] * (127.0f / most))) * code;
            }
          }
          const double integers = double(sum) * most * scb / (127.0 * 127.0);
          // Of integers: two scales, two products. Of halfs: a product and a sum each, and the decoded weight.
          const double bound = 6 * 0x1p-24 * std::abs(integers) + double(2 * w.cols + 4) * 0x1p-24 * magnitude +
                               0x1p-24 * std::abs(integers + beside);
          EXPECT_NEAR(decoded(y)[size_t(m * w.rows + n)], integers + beside, bound) << threshold;
        }
      }
      EXPECT_EQ(taken > 0, threshold > 0);
    }
  }
  const TempDir dir;
  nlohmann::json config = golden().of("bnb-int8").at("config");
  config["quantization_config"]["llm_int8_threshold"] = -1;
  const std::string path = golden().write("bnb-int8", dir.file("model"));
  std::ofstream(path + "/config.json") << config.dump();
  expect_error([&] { Checkpoint::open(path); }, {"llm_int8_threshold is -1"});
}

// Older writers pack the weights of W4A8 as those of W4A16.
TEST(HfCompressed, PackedWeightsMeetInt8Activations) {
  const TempDir dir;
  nlohmann::json config = golden().of("w4a16").at("config");
  config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {
      {"num_bits", 8}, {"type", "int"}, {"symmetric", true}, {"strategy", "token"}, {"dynamic", true}};
  const std::string path = golden().write("w4a16", dir.file("model"));
  std::ofstream(path + "/config.json") << config.dump();
  const Checkpoint checkpoint = Checkpoint::open(path);
  Machine machine;
  const Decoder decoder = Decoder::load(machine.ctx, checkpoint, parse_scheme(""), 64);
  EXPECT_NE(decoder.description()[0].find("q_proj+k_proj+v_proj: int4/g32 x int8 in "), std::string::npos)
      << decoder.description()[0];
  EXPECT_NE(logits_of(checkpoint, parse_scheme("")), logits_of(checkpoint, parse_scheme("a16")));
}

TEST(HfCompressed, TheCachesScalesAreTheFiles) {
  for (const char* name : {"fp8-kv", "modelopt-fp8"}) {
    const TempDir dir;
    const Checkpoint checkpoint = Checkpoint::open(golden().write(name, dir.file("model")));
    ASSERT_EQ(checkpoint.cache_scales().size(), 1u) << name;
    EXPECT_GT(checkpoint.cache_scales()[0].k, 0.0f);
    EXPECT_LT(checkpoint.cache_scales()[0].v, 1.0f);
    EXPECT_EQ(choose_scheme("", "", checkpoint.stored_scheme()).kv.name, "kvfp8");
    EXPECT_EQ(choose_scheme("", "kvf16", checkpoint.stored_scheme()).kv.name, "kvf16");
    EXPECT_TRUE(choose_scheme("", "kv8", checkpoint.stored_scheme()).native);
  }
}

}  // namespace
}  // namespace quire
