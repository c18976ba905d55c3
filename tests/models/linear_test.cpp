// Fused linears are loaded slice by slice; what they hold is what converting each matrix whole gives.
#include "models/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>

#include "kernels/convert.h"
#include "models/decoder.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

// Rows of `linear` against those of the named matrices in `format`, one after the other.
void expect_rows(const Context& ctx, const Linear& linear, const Checkpoint& checkpoint,
                 const std::vector<std::string>& names, Format format) {
  int64_t at = 0;
  std::vector<float> expected(static_cast<size_t>(linear.k())), got(expected);
  for (const std::string& name : names) {
    const Tensor& src = checkpoint.get(name + ".weight");
    const OwnedTensor whole = make_tensor(format, src.rows, src.cols);
    convert(ctx, src, whole);
    for (int64_t r = 0; r < src.rows; ++r) {
      info(format.codec).decode(whole, r, 0, src.cols, expected.data());
      linear.decode_row(at + r, got.data());
      ASSERT_EQ(std::memcmp(expected.data(), got.data(), expected.size() * 4), 0) << name << " row " << r;
    }
    at += src.rows;
  }
  EXPECT_EQ(linear.n(), at);
}

TEST(Linear, SlicesGiveWhatWholeMatricesGive) {
  const TempDir dir;
  // gate and up: 2 x 20001 rows of 64, more than two slices, and the second begins in the middle of one.
  const TinyModelOptions options{.layers = 1, .ffn = 20001, .matrices = id<F16>};
  const std::string path = write_tiny_gguf(make_tiny_model(options), dir.file("wide.gguf"));
  const std::string at = "model.layers.0.";
  Machines machines;
  for (const Isa isa : {Isa::baseline, default_isa()}) {
    const Context ctx = machines.context(isa);
    for (const char* words : {"own", "f32", "w8a8", "w4a8", "w4a16"}) {
      const Scheme scheme = parse_scheme(words);
      const Format format = scheme.native ? Format{id<F16>, 0} : scheme.weight;
      const Checkpoint checkpoint = Checkpoint::open(path);
      for (const std::vector<std::string>& names :
           {std::vector<std::string>{at + "mlp.gate_proj", at + "mlp.up_proj"},
            {at + "mlp.down_proj"},
            {at + "self_attn.q_proj", at + "self_attn.k_proj", at + "self_attn.v_proj"}}) {
        const Linear linear = Linear::load(ctx, checkpoint, names, scheme, scheme.weight);
        expect_rows(ctx, linear, checkpoint, names, format);
      }
    }
  }
}

// A block's scale that is NaN or infinite is found when the weight is packed, wherever it lies.
TEST(Linear, ScalesOfBlocksMustBeFinite) {
  const TempDir dir;
  Machines machines;
  const Context ctx = machines.context();
  const std::string name = "model.layers.0.self_attn.v_proj";
  const std::tuple<Codec, int, uint8_t> cases[] = {{id<Q8_0>, 1, 0x7e},   {id<Q5_1>, 3, 0xfc},  {id<Q4_K>, 3, 0x7c},
                                                   {id<Q6_K>, 209, 0x7e}, {id<Q2_K>, 81, 0xff}, {id<MXFP4>, 0, 0xff}};
  for (const auto& [codec, at, byte] : cases) {
    TinyModelOptions o{.layers = 1, .hidden = 256, .ffn = 256, .heads = 2, .kv_heads = 1};
    o.mixed = {{"v_proj", codec}};
    const TinyModel model = make_tiny_model(o);
    const Checkpoint good = Checkpoint::open(write_tiny_gguf(model, dir.file("good.gguf")));
    EXPECT_NO_THROW(Linear::load(ctx, good, {name}, parse_scheme("own"), {}));
    const Tensor& t = model.get(name + ".weight");
    t.data.row<uint8_t>(9)[t.data.pitch - info(codec).row_bytes(1, 1).data + at] = byte;  // the last block of row 9
    const Checkpoint bad = Checkpoint::open(write_tiny_gguf(model, dir.file("bad.gguf")));
    for (const char* scheme : {"own", "w8a8"}) {
      expect_error(
          [&] {
            Linear::load(ctx, bad, {name}, parse_scheme(scheme), {id<Int8>, 0});
          },
          {"v_proj.weight' (" + std::string(info(codec).name), "not finite in row 9"});
    }
  }
}

// The same of an embedding that no matmul packs: used as it lies in the file, or converted.
TEST(Linear, ScalesOfAnEmbeddingsBlocksMustBeFinite) {
  const TempDir dir;
  Machines machines;
  const TinyModel model = make_tiny_model({.layers = 1, .hidden = 64, .ffn = 96, .tied = false, .embedding = id<Q8_0>});
  const Checkpoint good = Checkpoint::open(write_tiny_gguf(model, dir.file("good.gguf")));
  model.get("model.embed_tokens.weight").data.row<uint8_t>(9)[1] = 0x7e;  // a NaN in f16
  const Checkpoint bad = Checkpoint::open(write_tiny_gguf(model, dir.file("bad.gguf")));
  for (const char* scheme : {"own", "w8a8"}) {
    EXPECT_NO_THROW(Decoder::load(machines.context(), good, parse_scheme(scheme), 64));
    expect_error([&] { Decoder::load(machines.context(), bad, parse_scheme(scheme), 64); },
                 {"embed_tokens.weight' (q8_0", "not finite in row 9"});
  }
}

// On a GPU float activations become halfs: |error| of each at most u |x| (2^-11 for f16, 2^-8 for bf16; u 2^-14 below
// f16's normal numbers). Then the tensor core cuts each of 17 terms a step off at 2^-23 of the largest, and the
// reference rounds K sums: tests/kernels/matmul_test.cpp.
TEST(Linear, HalfActivationsOnAGpuStayWithinTheirRounding) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  const TempDir dir;
  const TinyModelOptions options{.layers = 1, .hidden = 320, .ffn = 544, .attention_bias = true, .matrices = id<F32>};
  const std::string path = write_tiny_gguf(make_tiny_model(options), dir.file("tiny.gguf"));
  const std::string at = "model.layers.0.";
  const std::vector<std::vector<std::string>> all = {{at + "self_attn.q_proj", at + "self_attn.k_proj"},
                                                     {at + "mlp.gate_proj", at + "mlp.up_proj"},
                                                     {at + "mlp.down_proj"}};
  Machines machines;
  Rng rng(1);
  const Context cpu = machines.context(), gpu = machines.gpu();
  for (const char* words : {"f16", "bf16", "w8a16", "w4a16", "w4g128a16", "w4rowa16", "wfp8a16"}) {
    const Scheme scheme = parse_scheme(words);
    const bool bf16 = scheme.weight.codec == id<BF16>;
    for (const std::vector<std::string>& names : all) {
      const Checkpoint checkpoint = Checkpoint::open(path);
      const Linear here = Linear::load(cpu, checkpoint, names, scheme, scheme.weight);
      const Linear there = Linear::load(gpu, checkpoint, names, scheme, scheme.weight);
      ASSERT_EQ(there.input(), (Format{bf16 ? id<BF16> : id<F16>, 0})) << words;
      const int64_t m = 9, n = here.n(), k = here.k();
      std::vector<float> x = normal(rng, m * k), residual = normal(rng, m * n);
      x[3] = 1.0e-6f;
      if (!bf16) x[5] = 1.0e6f, x[size_t(k)] = -std::numeric_limits<float>::infinity();  // saturate
      OnGpu on(gpu);
      std::vector<float> expected(size_t(m * n)), got(expected);
      const Tensor y = on.in(f32_view(got, m, n));
      there.run(gpu, on.in(f32_view(x, m, k)), y, on.in(residual));
      got = decoded(on.back(y));
      if (!bf16) {
        for (float& v : x) v = std::clamp(v, -65504.0f, 65504.0f);
      }
      here.run(cpu, f32_view(x, m, k), f32_view(expected, m, n), residual.data());
      const double u = bf16 ? 0x1p-8 : 0x1p-11, least = bf16 ? 0.0 : 0x1p-14;
      std::vector<float> w(static_cast<size_t>(k));
      for (int64_t c = 0; c < n; ++c) {
        here.decode_row(c, w.data());
        for (int64_t r = 0; r < m; ++r) {
          double rounding = 0, magnitude = 0;
          for (int64_t i = 0; i < k; ++i) {
            const double v = std::fabs(double(x[size_t(r * k + i)])), wi = std::fabs(double(w[size_t(i)]));
            rounding += u * std::max(v, least) * wi;
            magnitude += v * wi;
          }
          const size_t i = size_t(r * n + c);
          const std::vector<float>& bias = here.parts()[0].bias;
          const double extra = std::fabs(residual[i]) + (bias.empty() ? 0.0 : std::fabs(bias[size_t(c)]));
          const double sums = ((3.125 * double(k) + 16) * (magnitude + rounding) + 4 * extra) * 0x1.0p-24;
          ASSERT_LE(std::fabs(double(got[i]) - expected[i]), rounding + sums) << words << " [" << r << ", " << c << "]";
        }
      }
    }
  }
}

TEST(Linear, WhatWasReleasedComesBack) {
  const TempDir dir;
  const TinyModel model = make_tiny_model({.attention_bias = true, .matrices = id<Q4_0>});
  const Checkpoint checkpoint = Checkpoint::open(write_tiny_gguf(model, dir.file("tiny.gguf")));
  for (int i = 0; i < 2; ++i) {
    for (const TinyTensor& t : model.tensors) {
      EXPECT_EQ(bytes_of(checkpoint.get(t.name)), bytes_of(t.weight.tensor)) << t.name;
      checkpoint.release(t.name);
    }
  }
  ASSERT_EQ(checkpoint.list().size(), model.tensors.size());
  for (const CheckpointTensor& listed : checkpoint.list())
    EXPECT_EQ(describe(listed.tensor), describe(model.get(listed.name))) << listed.name;
  for (const CheckpointTensor& t : checkpoint.tensors())
    EXPECT_EQ(bytes_of(t.tensor), bytes_of(model.get(t.name))) << t.name;
  checkpoint.release("no such tensor");
}

}  // namespace
}  // namespace quire
