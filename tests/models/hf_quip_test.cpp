// QuIP# directories: codes decode to what their layout says, and products are those of the dense matrices that the
// writer's transforms make of them.
#include <gtest/gtest.h>

#include <cmath>

#include "models/linear.h"
#include "tests/expect_error.h"
#include "tests/models/equal_formats.h"
#include "tests/models/quip_directory.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

// Orders that are powers of two, and 192 = 12 * 16, 384, 320 = 20 * 16 and 640, of matrices that are not symmetric.
const TinyModelOptions kPowers{.layers = 1, .hidden = 64, .ffn = 128, .heads = 4, .kv_heads = 2},
    kFactors{.layers = 1, .hidden = 192, .ffn = 320, .heads = 6, .kv_heads = 3, .head_dim = 32, .attention_bias = true};
const std::string kAttention = "model.layers.0.self_attn.", kMlp = "model.layers.0.mlp.";

class HfQuip : public testing::TestWithParam<int> {
 protected:
  std::string path() const { return dir_.file("q"); }
  TempDir dir_;
  Machines machines_;
};

TEST_P(HfQuip, CodesAreTheFilesOwn) {
  for (const double residual : {-1.0, 3.7}) {
    const TinyModel model = make_tiny_model(kFactors);
    QuipWriter writer(model, {GetParam(), residual});
    writer.write(path());
    const Checkpoint checkpoint = Checkpoint::open(path());
    const char* formats[] = {"e8p", "e8p_rvq3", "e8p_rvq4"};
    for (const auto& [module, part] : writer.parts) {
      const CheckpointTensor* t = checkpoint.find(module + ".weight");
      ASSERT_NE(t, nullptr) << module;
      EXPECT_EQ(to_string(format_of(t->tensor)), formats[GetParam() - 2]);
      EXPECT_EQ(first_difference(decoded(t->tensor), part.codes), "") << module;
    }
    for (const auto& [name, values] : writer.biases) EXPECT_EQ(decoded(checkpoint.get(name)), values) << name;
    const char* books[] = {"2 bits (E8P12)", "3 bits (E8P12RVQ3B)", "4 bits (E8P12RVQ4B)"};
    EXPECT_EQ(checkpoint.container(), std::string("safetensors, QuIP#, ") + books[GetParam() - 2]);
  }
}

// How far y[r] may be from the exact product: each value passes log2 + K sums of the first transform (whose factor is
// rounded too), k sums of the product, those of the second transform, and a few products by factors. Every term's
// magnitude is at most |SV| / sqrt(m n) times the sum of all |codes| and all |SU x| that meet in it.
double bound_of(const Hadamard& left, const Hadamard& right, double sv, const std::vector<double>& column_sums,
                double inputs) {
  double codes = 0.0;
  for (const double sum : column_sums) codes += sum;
  const double roundings = std::log2(double(left.power())) + double(left.k()) + std::log2(double(right.power())) +
                           double(right.k()) + double(column_sums.size()) + 12.0;
  return roundings * 0x1p-24 * std::abs(sv) * codes * inputs / std::sqrt(double(left.order() * right.order()));
}

TEST_P(HfQuip, ProductsAreThoseOfTheDenseMatrices) {  // G7
  for (const TinyModelOptions& options : {kPowers, kFactors}) {
    const TinyModel model = make_tiny_model(options);
    QuipWriter writer(model, {GetParam()});
    writer.write(path());
    const Checkpoint checkpoint = Checkpoint::open(path());
    Rng rng(5);
    const std::pair<std::string, std::vector<std::string>> groups[] = {
        {kAttention + "qkv_proj", {kAttention + "q_proj", kAttention + "k_proj", kAttention + "v_proj"}},
        {kAttention + "o_proj", {kAttention + "o_proj"}},
        {kMlp + "upgate_proj", {kMlp + "gate_proj", kMlp + "up_proj"}},  // as the network asks for them
        {kMlp + "down_proj", {kMlp + "down_proj"}}};
    for (const auto& [module, names] : groups) {
      std::vector<Context> all = machines_.all();
      if (gpu_is_here()) all.push_back(machines_.gpu());
      std::vector<float> first;
      int64_t n = 0;
      for (const std::string& name : names) n += writer.parts[name].rows;
      const int64_t k = writer.parts[names[0]].cols;
      std::vector<float> x = normal(rng, 5 * k), residual = normal(rng, 5 * n);
      for (const Context& ctx : all) {
        const Linear linear = Linear::load(ctx, checkpoint, names, parse_scheme("a16"), {});
        ASSERT_EQ(linear.parts().size(), 1u) << module;
        EXPECT_EQ(to_string(linear.input()), "f32");
        std::vector<float> y = residual;
        const OwnedTensor in = tensor_on(ctx.device, f32_view(x, 5, k), ctx.stream);
        const OwnedTensor out = tensor_on(ctx.device, f32_view(y, 5, n), ctx.stream);
        linear.run(ctx, in, out, out.tensor.data.row<const float>(0));
        const OwnedTensor back = tensor_on(Device::cpu, out, ctx.stream);
        if constexpr (kCuda) {
          if (ctx.device == Device::cuda) cuda::synchronize(ctx.stream);
        }
        const std::vector<float> got = decoded(back);
        if (first.empty()) first = got;
        if (ctx.device == Device::cpu) {
          EXPECT_EQ(first_difference(got, first), "") << module << " on " << to_string(ctx.isa);
        }
        const Hadamard left(int64_t(writer.SV[module].size())), right(k);
        std::vector<double> column_sums(size_t(k), 0.0);
        for (const std::string& name : names) {
          const std::vector<float>& codes = writer.parts[name].codes;
          for (size_t i = 0; i < codes.size(); ++i) column_sums[i % size_t(k)] += std::abs(double(codes[i]));
        }
        for (int64_t t = 0; t < 5; ++t) {
          double inputs = 0.0;
          for (int64_t c = 0; c < k; ++c)
            inputs += std::abs(double(x[size_t(t * k + c)]) * double(writer.SU[module][size_t(c)]));
          int64_t column = t * n;
          for (const std::string& name : names) {
            const QuipPart& part = writer.parts[name];
            for (int64_t r = 0; r < part.rows; ++r, ++column) {
              double sum = double(residual[size_t(column)]);
              for (int64_t c = 0; c < k; ++c) sum += part.matrix[size_t(r * k + c)] * double(x[size_t(t * k + c)]);
              if (!writer.biases[name + ".bias"].empty()) sum += double(writer.biases[name + ".bias"][size_t(r)]);
              const double sv = double(writer.SV[module][size_t(part.row0 + r)]);
              const double most = bound_of(left, right, sv, column_sums, inputs) + 0x1p-22 * std::abs(sum);
              ASSERT_NEAR(double(got[size_t(column)]), sum, most) << name << " row " << r << " token " << t;
            }
          }
        }
      }
    }
  }
}

// The whole network: keys and values that lie near the border between two halfs may become the other one, as in
// expect_near_on_gpu.
TEST_P(HfQuip, TheNetworkIsThatOfTheDenseMatrices) {
  const TinyModel model = make_tiny_model(kFactors);
  QuipWriter writer(model, {GetParam()});
  writer.write(path());
  const std::vector<float> got = compute(*open_small(path(), "", "", "cpu")).logits,
                           expected = compute(*open_small(path() + "-floats", "", "", "cpu")).logits;
  ASSERT_EQ(got.size(), 70u * 300u);
  ASSERT_EQ(got.size(), expected.size());
  double error = 0.0, size = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double(got[i]) - double(expected[i]), 2);
    size += std::pow(double(expected[i]), 2);
  }
  EXPECT_GT(size, 0.0);
  EXPECT_LE(std::sqrt(error), 2.0 * 5.0 * 0x1p-11 * std::sqrt(size));
  // Other weights in the same transforms: as near as 8 bits come.
  EXPECT_EQ(compute(*open_small(path(), "w8a16", "", "cpu")).logits.size(), expected.size());
}

INSTANTIATE_TEST_SUITE_P(Bits, HfQuip, testing::Values(2, 3, 4));

// A good directory, to be spoiled.
class SpoiledQuip : public testing::Test {
 protected:
  void expect_refused(const nlohmann::ordered_json& change, std::initializer_list<std::string> parts,
                      const std::function<void(QuipWriter&)>& spoil = {}) {
    QuipWriter writer(model_, {});
    for (const auto& [key, value] : change.items()) writer.config["quip_params"][key] = value;
    if (spoil) spoil(writer);
    writer.write(path());
    expect_error([&] { Checkpoint::open(path()); }, parts);
  }
  // The module's entry as something else.
  void expect_entry_refused(const std::string& module, const std::string& entry, const char* type,
                            const std::vector<int64_t>& shape, const std::string& bytes,
                            std::initializer_list<std::string> parts) {
    SCOPED_TRACE(module + entry);
    expect_refused({}, parts, [&](QuipWriter& w) {
      w.skipped = [=](const std::string& name) { return name.ends_with(module + entry); };
      w.more = [=](SafetensorsWriter& out, const std::string& name) {
        if (name.ends_with(module)) out.tensor(name + entry, type, shape, bytes);
      };
    });
  }
  std::string path() const { return dir_.file("q"); }
  TempDir dir_;
  const TinyModel model_ = make_tiny_model(kPowers);
};

TEST_F(SpoiledQuip, SettingsThatCannotBe) {
  expect_refused({{"codebook", "D4"}}, {"'D4'", "E8P12", "E8P12RVQ3B", "E8P12RVQ4B"});
  expect_refused({{"codebook", "E8P12RVQ3B"}}, {"codebook_version", "E8P12RVQ3B"});
  expect_refused({{"codebook_version", 0}}, {"codebook_version' 0"});
  expect_refused({{"codebook_version", nullptr}}, {"codebook_version' 0"});
  expect_refused({{"lora_rank", 16}}, {"lora_rank"});
  expect_refused({{"rescale_WH", true}}, {"rescale_WH", "scaleWH"});
  expect_refused({{"outlier_channel_split", true}}, {"outlier_channel_split"});
  expect_refused({{"codesz", 4}}, {"codesz"});
  expect_refused({{"pack_out", true}}, {"pack_out"});
  expect_refused({{"codebook", "E8P12RVQ4B"}, {"resid_scale_override", 1e-300}}, {"resid_scale_override"});
}

TEST_F(SpoiledQuip, TensorsThatCannotBe) {
  const auto plane = [](int64_t n) { return std::string(size_t(n), '\0'); };
  const auto halfs = [](int64_t n, uint16_t value) { return raw_bytes(std::vector<uint16_t>(size_t(n), value)); };
  expect_entry_refused("qkv_proj", ".Qidxs", "I32", {128, 4}, plane(128 * 4 * 4), {"qkv_proj.Qidxs", "I64"});
  expect_entry_refused("qkv_proj", ".Qidxs", "I64", {128, 1}, plane(128 * 8), {"qkv_proj.Qidxs", "[128,2]"});
  expect_entry_refused("down_proj", ".SU", "F16", {64}, halfs(64, 0), {"down_proj.SU", "[128]"});
  expect_entry_refused("down_proj", ".SU", "I32", {128}, plane(512), {"down_proj.SU", "F16"});
  expect_entry_refused("down_proj", ".SU", "F16", {128}, halfs(128, 0x7E00), {"down_proj.SU", "not finite at 0"});
  expect_entry_refused("o_proj", ".SV", "F16", {64}, halfs(64, 0xFC00), {"o_proj.SV", "not finite at 0"});
  expect_entry_refused("o_proj", ".Wscale", "F32", {2}, plane(8), {"o_proj.Wscale", "[2]"});
  expect_entry_refused("o_proj", ".Wscale", "F32", {}, raw_bytes(std::vector<float>{NAN}), {"o_proj.Wscale"});
  expect_refused({}, {"o_proj.SV times Wscale", "not finite"}, [&](QuipWriter& w) {
    w.skipped = [](const std::string& name) { return name.ends_with("o_proj.SV") || name.ends_with("o_proj.Wscale"); };
    w.more = [](SafetensorsWriter& out, const std::string& name) {
      if (!name.ends_with("o_proj")) return;
      out.tensor(name + ".SV", "F32", {64}, raw_bytes(std::vector<float>(64, 1e30f)));
      out.tensor(name + ".Wscale", "F32", {1}, raw_bytes(std::vector<float>{1e30f}));
    };
  });
  expect_entry_refused("o_proj", ".codebook_id", "I64", {}, raw_bytes(std::vector<int64_t>{17}),
                       {"o_proj.codebook_id", "17", "E8P12 is 7"});
  expect_entry_refused("o_proj", ".codebook_id", "I32", {}, plane(4), {"o_proj.codebook_id", "I32"});
  expect_entry_refused("upgate_proj", ".fuse_scales", "F32", {3}, plane(12), {"upgate_proj.fuse_scales", "[2]"});
  expect_entry_refused("upgate_proj", ".scaleWH", "F16", {64}, halfs(64, 0x3C00), {"upgate_proj.scaleWH"});
  for (const char* entry : {".Qidxs", ".SU", ".SV", ".Wscale", ".codebook_id", ".fuse_scales"}) {
    expect_refused({}, {std::string("qkv_proj") + entry, "missing"}, [&](QuipWriter& w) {
      w.skipped = [=](const std::string& name) { return name.ends_with(std::string("qkv_proj") + entry); };
    });
  }
}

TEST_F(SpoiledQuip, SizesWithoutAMatrix) {
  // 64 * 11 inputs; H(44) is known here, but not to QuIP#.
  const TinyModel model = make_tiny_model({.layers = 1, .hidden = 64, .ffn = 704, .heads = 4, .kv_heads = 4});
  write_tiny_hf(model, path());
  nlohmann::ordered_json config = tiny_hf_config(model);
  config["quip_params"] = {{"codebook", "E8P12"}, {"codebook_version", 1}};
  write_file(path() + "/config.json", config.dump());
  // q + k + v: 192 = 12 * 16 can be; without its entries that is the first thing to miss.
  expect_error([&] { Checkpoint::open(path()); }, {"qkv_proj.Qidxs", "missing"});
  config["num_key_value_heads"] = 2;
  config["num_attention_heads"] = 2;
  config["head_dim"] = 80;  // 3 * 160 = 480 = 60 * 8, 160 inputs
  write_file(path() + "/config.json", config.dump());
  expect_error([&] { Checkpoint::open(path()); }, {"qkv_proj.Qidxs", "missing"});
  config["head_dim"] = 8;  // 3 * 16 outputs
  config["hidden_size"] = 704;
  write_file(path() + "/config.json", config.dump());
  expect_error([&] { Checkpoint::open(path()); }, {"qkv_proj", "order 704", "172"});
  config["hidden_size"] = 96;
  write_file(path() + "/config.json", config.dump());
  expect_error([&] { Checkpoint::open(path()); }, {"qkv_proj", "64 n inputs"});
}

TEST_F(SpoiledQuip, PartsCannotRunAlone) {
  QuipWriter writer(model_, {});
  writer.write(path());
  const Checkpoint checkpoint = Checkpoint::open(path());
  Machines machines;
  const Context ctx = machines.context();
  const Scheme scheme = parse_scheme("a16");
  expect_error([&] { Linear::load(ctx, checkpoint, {kAttention + "q_proj"}, scheme, {}); },
               {"q_proj", "128 rows", "without the others"});
  expect_error(
      [&] {
        Linear::load(ctx, checkpoint, {kAttention + "q_proj", kAttention + "v_proj"}, scheme, {});
      },
      {"without the others"});
  const Linear whole =
      Linear::load(ctx, checkpoint, {kAttention + "v_proj", kAttention + "q_proj", kAttention + "k_proj"}, scheme, {});
  std::vector<float> row(64);
  expect_error([&] { whole.decode_row(3, row.data()); }, {"mixed"});
  expect_error([&] { quantize(path(), "w8a8", dir_.file("out")); }, {"quantize", "QuIP#"});
  const std::string text =
      plan_linear(ctx, checkpoint, {kMlp + "gate_proj", kMlp + "up_proj"}, scheme, {})[0].description();
  EXPECT_NE(text.find("up_proj+gate_proj: e8p x f32"), std::string::npos) << text;
  EXPECT_NE(text.find("(scaled, Hadamard of 64) (outputs by a Hadamard of 256, scaled)"), std::string::npos) << text;
}

TEST_F(SpoiledQuip, FilesCutShortAndFlippedBytes) {
  QuipWriter writer(model_, {3});
  writer.write(path());
  const std::string name = path() + "/model.safetensors", file = read_text_file(name, 1 << 28);
  size_t tried = 0;
  for (size_t size = 0; size<file.size(); size += file.size()> 65536 && size > 16384 ? 64 * 61 : 64, ++tried) {
    write_file(name, std::string_view(file).substr(0, size));
    EXPECT_THROW(Checkpoint::open(path()), Error) << size;
  }
  EXPECT_GT(tried, 250u);
  Draw draw;
  int accepted = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::string spoiled = file;
    spoiled[size_t(draw(uint32_t(file.size())))] ^= char(1 + draw(255));
    write_file(name, spoiled);
    try {
      const Checkpoint checkpoint = Checkpoint::open(path());
      for (const CheckpointTensor& t : checkpoint.tensors()) {
        if (t.tensor.codec != id<E8pRvq3>) continue;
        for (const float v : decoded(t.tensor)) ASSERT_TRUE(std::isfinite(v)) << t.name;
      }
      ++accepted;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(accepted, 0);  // a code is as good as another
}

}  // namespace
}  // namespace quire
