// The network over every scheme and cache: a token's logits depend on the tokens before it and nothing else, bit for
// bit; and on the f32 path they are what a plain loop over the written order of each op gives.
#include <gtest/gtest.h>

#include "models/decoder.h"
#include "tests/models/plain_network.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using Logits = std::vector<std::vector<float>>;  // a row for each token

class Network : public testing::Test {
 protected:
  Machines machines_;
  TempDir dir_;

  TinyModelOptions options(Codec matrices = id<F32>) {
    TinyModelOptions o;
    o.head_dim = 32;  // kv2 has groups of 32 channels
    o.matrices = matrices;
    return o;
  }
  Checkpoint gguf(const TinyModelOptions& o) { return gguf(make_tiny_model(o)); }
  Checkpoint gguf(const TinyModel& m) { return Checkpoint::open(write_tiny_gguf(m, dir_.file("tiny.gguf"))); }
  Checkpoint hf(const TinyModelOptions& o) {
    return Checkpoint::open(write_tiny_hf(make_tiny_model(o), dir_.file("tiny")));
  }

  static std::vector<int32_t> tokens(int64_t n, uint32_t seed) {
    Rng rng(seed);
    std::vector<int32_t> t;
    for (int64_t i = 0; i < n; ++i) t.push_back(int32_t(rng() % 300));
    return t;
  }

  // Runs sequences side by side, each in pieces of its chunk (0: all at once), and returns the logits of every token.
  static std::vector<Logits> run(const Context& ctx, const Decoder& d, const Scheme& scheme,
                                 const std::vector<std::vector<int32_t>>& sequences,
                                 const std::vector<int64_t>& chunks) {
    const ModelConfig& c = d.config();
    KvCacheConfig config;
    config.layers = c.layers, config.kv_heads = c.kv_heads, config.head_dim = c.head_dim;
    config.scheme = scheme.kv;
    config.slots = int64_t(sequences.size());
    config.max_tokens = 128;
    config.pages = 2 * config.slots;
    config.device = ctx.device;
    config.stream = ctx.stream;
    KvCache cache(config);
    std::vector<int32_t> slots;
    for (size_t i = 0; i < sequences.size(); ++i) slots.push_back(cache.open());
    std::vector<Logits> out(sequences.size());
    for (;;) {
      Batch batch;
      std::vector<size_t> whose;
      for (size_t i = 0; i < sequences.size(); ++i) {
        const int64_t at = cache.length(slots[i]), left = int64_t(sequences[i].size()) - at;
        const int64_t n = chunks[i] > 0 ? std::min(chunks[i], left) : left;
        if (n == 0) continue;
        EXPECT_TRUE(cache.reserve(slots[i], n));
        batch.sequences.push_back({slots[i], batch.size(), n, at});
        for (int64_t p = at; p < at + n; ++p) {
          batch.logits_rows.push_back(int32_t(batch.size()));
          batch.tokens.push_back(sequences[i][size_t(p)]);
          batch.positions.push_back(int32_t(p));
          whose.push_back(i);
        }
      }
      if (batch.size() == 0) return out;
      const OwnedTensor there = make_tensor({id<F32>, 0}, batch.size(), c.vocab, {.device = ctx.device});
      d.forward(ctx, batch, cache, there);
      const OwnedTensor logits = OnGpu(ctx).back(there);
      for (size_t r = 0; r < whose.size(); ++r) {
        const float* row = logits.tensor.data.row<const float>(int64_t(r));
        out[whose[r]].emplace_back(row, row + c.vocab);
      }
    }
  }
  Logits run_alone(const Checkpoint& checkpoint, const std::string& scheme_text, const std::vector<int32_t>& sequence) {
    const Context ctx = machines_.context();
    const Scheme scheme = parse_scheme(scheme_text);
    const Decoder d = Decoder::load(ctx, checkpoint, scheme, 128);
    return run(ctx, d, scheme, {sequence}, {0})[0];
  }
  static void expect_equal(const Logits& got, const Logits& expected, const std::string& what) {
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(first_difference(got[i], expected[i]), "") << what << ", token " << i;
    }
  }
  static void expect_sensible(const Logits& logits) {
    float least = 1e30f, most = -1e30f;
    for (const std::vector<float>& row : logits) {
      for (const float x : row) {
        ASSERT_TRUE(std::isfinite(x));
        least = std::min(least, x), most = std::max(most, x);
      }
    }
    EXPECT_GT(most - least, 0.5f);
  }

  // Batch, chunks, threads and instruction set do not matter.
  void expect_independent(const Checkpoint& checkpoint, const std::string& scheme_text) {
    const Scheme scheme = parse_scheme(scheme_text);
    const std::vector<std::vector<int32_t>> sequences = {tokens(70, 1), tokens(9, 2), tokens(1, 3)};
    const Context best = machines_.context();
    const Decoder d = Decoder::load(best, checkpoint, scheme, 128);
    std::vector<Logits> expected;
    for (const std::vector<int32_t>& s : sequences) expected.push_back(run(best, d, scheme, {s}, {0})[0]);
    expect_sensible(expected[0]);
    const auto compare = [&](const std::vector<Logits>& got, const std::string& what) {
      for (size_t i = 0; i < sequences.size(); ++i) expect_equal(got[i], expected[i], scheme_text + " " + what);
    };
    compare(run(best, d, scheme, sequences, {0, 0, 0}), "batched");
    compare(run(best, d, scheme, sequences, {13, 1, 1}), "chunked");
    compare(run(machines_.context(default_isa(), 1), d, scheme, sequences, {64, 4, 1}), "on one thread");
    expect_equal(run(best, d, scheme, {sequences[0]}, {1})[0], expected[0], scheme_text + " token by token");
    for (const Isa isa : {Isa::baseline, Isa::avx2}) {
      if (isa >= default_isa()) continue;
      const Context ctx = machines_.context(isa);
      const Decoder other = Decoder::load(ctx, checkpoint, scheme, 128);  // packed for what this one reads
      expect_equal(run(ctx, other, scheme, {sequences[1]}, {5})[0], expected[1], scheme_text + " on " + to_string(isa));
    }
    if (!gpu_is_here()) return;
    const Context gpu = machines_.gpu();
    const Decoder there = Decoder::load(gpu, checkpoint, scheme, 128);
    const std::vector<Logits> got = run(gpu, there, scheme, sequences, {13, 1, 1});
    const double unit = half_activations(there);
    if (unit == 0) return compare(got, "on the GPU");
    for (size_t i = 0; i < sequences.size(); ++i) {
      expect_close(got[i], expected[i], double(4 * there.config().layers + 1) * unit, scheme_text + " on the GPU");
      expect_equal(run(gpu, there, scheme, {sequences[i]}, {0})[0], got[i], scheme_text + " alone on the GPU");
    }
  }
  // What rounding activations to halfs may change of a value (relative); 0: they stay floats or are int8.
  static double half_activations(const Decoder& d) {
    double unit = 0;
    for (const std::string& line : d.description()) {
      if (line.find(" x f16") != std::string::npos) unit = std::max(unit, 0x1p-11);
      if (line.find(" x bf16") != std::string::npos) unit = std::max(unit, 0x1p-8);
    }
    return unit;
  }
  // Each matmul bounds its own error (tests/models/linear_test.cpp); what a network makes of these has no useful bound
  // in the worst case. But a rounding is independent of the weights that multiply it, so in the mean square a matmul
  // passes its relative size on, and `roundings` of them, one after the other, add up at most. 2: the products of
  // attention and of the gated unit have two factors each.
  static void expect_close(const Logits& got, const Logits& expected, double roundings, const std::string& what) {
    ASSERT_EQ(got.size(), expected.size());
    double error = 0, size = 0;  // in the mean over all tokens: one token's context may make more of it
    for (size_t i = 0; i < got.size(); ++i) {
      for (size_t v = 0; v < got[i].size(); ++v) {
        error += std::pow(double(got[i][v]) - expected[i][v], 2);
        size += std::pow(double(expected[i][v]), 2);
      }
    }
    ASSERT_LE(std::sqrt(error), 2 * roundings * std::sqrt(size)) << what;
  }
};

class Schemes : public Network, public testing::WithParamInterface<const char*> {};
TEST_P(Schemes, NothingElseMatters) { expect_independent(hf(options()), GetParam()); }
INSTANTIATE_TEST_SUITE_P(Words, Schemes,
                         testing::Values("own", "f32", "f16", "bf16", "w8a16", "w8a8", "w8a8g64", "w6a16", "wfp8a16",
                                         "w4a16", "w4a8", "w4a8g64", "w4g128a8", "w4rowa16", "w4rowa8", "w3a16",
                                         "w3a8g64", "w2a16", "w2a8", "a8", "w8a8kv8", "w8a8g64kv4", "w4a8kv2"),
                         [](const auto& i) { return std::string(i.param); });

class Caches : public Network, public testing::WithParamInterface<const char*> {};
TEST_P(Caches, NothingElseMatters) { expect_independent(hf(options()), std::string("f32") + GetParam()); }
INSTANTIATE_TEST_SUITE_P(Words, Caches,
                         testing::Values("kv8", "kvfp8", "k8v4", "kv4", "kv2", "kv4row", "kv3row", "kv2row"),
                         [](const auto& i) { return std::string(i.param); });

class OwnFormats : public Network, public testing::WithParamInterface<int> {};
TEST_P(OwnFormats, NothingElseMatters) {
  const Codec codec = Codec(GetParam());
  TinyModelOptions o = options(codec);
  o.embedding = codec;
  if (info(codec).align > 32) {  // rows of whole blocks
    o.layers = 1, o.hidden = o.ffn = 256, o.heads = 8;
  }
  const Checkpoint checkpoint = gguf(o);
  expect_independent(checkpoint, "own");
  if (info(codec).integer) {
    expect_independent(checkpoint, "a16");
    expect_independent(checkpoint, "a8");
    expect_independent(checkpoint, "a8g64");
    expect_independent(checkpoint, "w4a8");  // quantized again
  }
}
INSTANTIATE_TEST_SUITE_P(Codecs, OwnFormats,
                         testing::Values(int(id<F32>), int(id<F16>), int(id<BF16>), int(id<Q8_0>), int(id<Q4_0>),
                                         int(id<Q4_1>), int(id<Q5_0>), int(id<Q5_1>), int(id<IQ4_NL>), int(id<MXFP4>),
                                         int(id<Q2_K>), int(id<Q3_K>), int(id<Q4_K>), int(id<Q5_K>), int(id<Q6_K>),
                                         int(id<IQ4_XS>)),
                         [](const auto& i) { return std::string(quire::info(Codec(i.param)).name); });

// Files mix formats: then q, k and v are not one matrix, and some of them may not read the same activations.
TEST_F(Network, MixedFormatsInOneFile) {
  TinyModel model = make_tiny_model(options(id<Q4_0>));
  for (const auto& [codec, part] : {std::pair{id<Q8_0>, "layers.0.self_attn.v_proj"},
                                    {id<F32>, "layers.1.self_attn.k_proj"},
                                    {id<F16>, "layers.1.mlp.up_proj"},
                                    {id<Q4_1>, "layers.1.mlp.down_proj"}}) {
    TinyModel other = make_tiny_model(options(codec));
    for (size_t i = 0; i < model.tensors.size(); ++i) {
      if (model.tensors[i].name == std::string("model.") + part + ".weight")
        model.tensors[i] = std::move(other.tensors[i]);
    }
  }
  const Checkpoint checkpoint = gguf(model);
  expect_independent(checkpoint, "own");
  expect_independent(checkpoint, "a8");
  expect_independent(checkpoint, "w8a8");
}

// As llama.cpp's Q4_K_M: most of it in one k-quant, some in a finer one, narrow rows in blocks of 32.
TEST_F(Network, MixedBlocksOfGguf) {
  TinyModelOptions o = options(id<Q4_K>);
  o.hidden = o.ffn = 256, o.heads = 8;
  o.embedding = id<Q6_K>;
  o.mixed = {{"v_proj", id<Q6_K>}, {"down_proj", id<Q5_0>}, {"o_proj", id<Q8_0>}, {"up_proj", id<Q3_K>}};
  const Checkpoint checkpoint = gguf(o);
  for (const char* scheme : {"own", "a8", "w8a8"}) expect_independent(checkpoint, scheme);
}

TEST_F(Network, ContainersAreEqual) {
  for (const Codec codec : {id<F32>, id<F16>, id<BF16>}) {
    for (const bool tied : {true, false}) {
      for (const bool biases : {false, true}) {
        TinyModelOptions o = options(codec);
        o.embedding = codec;
        o.tied = tied;
        o.attention_bias = o.mlp_bias = biases;
        const Checkpoint a = gguf(o), b = hf(o);
        for (const char* scheme : {"own", "w8a8"}) {
          expect_equal(run_alone(a, scheme, tokens(12, 4)), run_alone(b, scheme, tokens(12, 4)),
                       fmt::format("{} {} tied {} biases {}", info(codec).name, scheme, tied, biases));
        }
      }
    }
  }
}

// Formats that hold the file's numbers exactly change nothing.
TEST_F(Network, ExactFormatsAreEqual) {
  const std::vector<int32_t> t = tokens(20, 5);
  const Checkpoint wide = hf(options());
  expect_equal(run_alone(wide, "f32", t), run_alone(wide, "own", t), "f32");
  TempDir other;
  TinyModelOptions o = options(id<F16>);
  o.embedding = id<F16>;
  const Checkpoint half = Checkpoint::open(write_tiny_hf(make_tiny_model(o), other.file("half")));
  expect_equal(run_alone(half, "f16", t), run_alone(half, "own", t), "f16");
  expect_equal(run_alone(half, "f32", t), run_alone(half, "own", t), "f32 of f16");
}

// A tied head is the embedding, whether it is read from the file or decoded from the packed head.
TEST_F(Network, TiedIsUntiedWithACopy) {
  TinyModelOptions o = options();
  const TinyModel tied = make_tiny_model(o);
  o.tied = false;
  TinyModel untied = make_tiny_model(o);
  for (TinyTensor& t : untied.tensors) {
    if (t.name != "lm_head.weight") continue;
    const Tensor& embedding = tied.get("model.embed_tokens.weight");
    std::memcpy(t.weight.tensor.data.ptr, embedding.data.ptr, size_t(embedding.rows * embedding.data.pitch));
  }
  TempDir other;
  const Checkpoint a = gguf(tied), b = Checkpoint::open(write_tiny_gguf(untied, other.file("untied.gguf")));
  for (const char* scheme : {"own", "f32", "f16", "w8a16", "w8a8", "w4a8"}) {
    expect_equal(run_alone(a, scheme, tokens(12, 6)), run_alone(b, scheme, tokens(12, 6)), scheme);
  }
}

TEST_F(Network, BiasesMatter) {
  TinyModelOptions o = options();
  const Logits plain = run_alone(hf(o), "own", tokens(3, 7));
  o.attention_bias = true;
  const Logits attention = run_alone(hf(o), "own", tokens(3, 7));
  EXPECT_NE(first_difference(attention[2], plain[2]), "");
}

TEST_F(Network, EqualsPlainLoops) {
  for (const bool tied : {true, false}) {
    for (const bool biases : {false, true}) {
      TinyModelOptions o = options();
      o.layers = 3, o.heads = 6, o.kv_heads = 2, o.tied = tied;
      o.attention_bias = o.mlp_bias = biases;
      const TinyModel model = make_tiny_model(o);
      const std::vector<int32_t> t = tokens(18, 8);
      PlainNetwork plain{model, {}, {}};
      Logits expected;
      for (size_t i = 0; i < t.size(); ++i) expected.push_back(plain.next(t[i], int64_t(i)));
      expect_equal(run_alone(gguf(model), "f32", t), expected, fmt::format("tied {} biases {}", tied, biases));
    }
  }
}

}  // namespace
}  // namespace quire
