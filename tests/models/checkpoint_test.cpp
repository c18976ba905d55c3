// Checkpoints: what the default model must look like, and that containers agree.
#include "models/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/gguf.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using testing::ElementsAre;

class RealModel : public testing::Test {
 protected:
  void SetUp() override { QUIRE_NEEDS_FILE(test_model()); }
};

TEST_F(RealModel, HasItsKnownConfiguration) {
  const Checkpoint checkpoint = Checkpoint::open(test_model());
  const ModelConfig& c = checkpoint.config();
  EXPECT_EQ(checkpoint.container(), "GGUF v3");
  EXPECT_EQ(checkpoint.metadata().size(), 33u);
  EXPECT_EQ(c.family, "llama");
  EXPECT_THAT((std::vector<int64_t>{c.layers, c.hidden, c.ffn, c.heads, c.kv_heads, c.head_dim, c.rope_dim, c.vocab,
                                    c.context}),
              ElementsAre(30, 576, 1536, 9, 3, 64, 64, 49152, 8192));
  EXPECT_EQ(c.rope_theta, 100000.0);
  EXPECT_EQ(c.norm_eps, double(1e-5f));
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_FALSE(c.mlp_bias);
}

TEST_F(RealModel, HasItsKnownTensors) {
  const Checkpoint checkpoint = Checkpoint::open(test_model());
  EXPECT_EQ(checkpoint.tensors().size(), 272u);
  int64_t parameters = 0;
  int q8 = 0, q4 = 0, f32 = 0;
  for (const CheckpointTensor& t : checkpoint.tensors()) {
    parameters += t.tensor.rows * t.tensor.cols;
    q8 += t.tensor.codec == id<Q8_0>;
    q4 += t.tensor.codec == id<Q4_1>;
    f32 += t.tensor.codec == id<F32>;
  }
  EXPECT_EQ(parameters, 134515008);
  EXPECT_THAT((std::vector<int>{q8, q4, f32}), ElementsAre(1, 210, 61));
  EXPECT_EQ(describe(checkpoint.get("model.layers.29.mlp.down_proj.weight")), "q4_1 (576, 1536)");
  EXPECT_EQ(checkpoint.find("lm_head.weight"), nullptr);
  EXPECT_THROW(checkpoint.get("lm_head.weight"), Error);
}

// Rows of q and k lie as neighbours that are rotated together; under HuggingFace names they are half a head apart.
TEST_F(RealModel, QueryAndKeyRowsAreInHalves) {
  const Checkpoint checkpoint = Checkpoint::open(test_model());
  const GgufFile file{MappedFile(test_model())};
  for (const auto& [name, source] : {std::pair("model.layers.7.self_attn.q_proj.weight", "blk.7.attn_q.weight"),
                                     std::pair("model.layers.7.self_attn.k_proj.weight", "blk.7.attn_k.weight")}) {
    const Tensor& t = checkpoint.get(name);
    const GgufTensor* raw = nullptr;
    for (const GgufTensor& g : file.tensors()) {
      if (g.name == source) raw = &g;
    }
    ASSERT_NE(raw, nullptr);
    const size_t pitch = raw->bytes.size() / size_t(t.rows);
    ASSERT_EQ(size_t(t.data.pitch), pitch);
    for (int64_t head = 0; head < t.rows / 64; ++head) {
      for (int64_t i = 0; i < 64; ++i) {
        const int64_t in_file = head * 64 + (i < 32 ? 2 * i : 2 * (i - 32) + 1);
        ASSERT_EQ(std::memcmp(t.data.row<std::byte>(head * 64 + i), raw->bytes.data() + size_t(in_file) * pitch, pitch),
                  0);
      }
    }
  }
}

TEST_F(RealModel, HasItsKnownTokenizer) {
  const Checkpoint checkpoint = Checkpoint::open(test_model());
  const TokenizerData& t = checkpoint.tokenizer();
  EXPECT_EQ(t.model, "bpe");
  EXPECT_EQ(t.tokens.size(), 49152u);
  EXPECT_EQ(t.merges.size(), 48900u);
  EXPECT_EQ(t.bos, 1);
  EXPECT_EQ(t.pad, 2);
  EXPECT_EQ(t.unknown, 0);
  EXPECT_THAT(t.eos, ElementsAre(2));
  EXPECT_FALSE(t.add_bos);
  EXPECT_FALSE(t.add_prefix_space);
  EXPECT_EQ(t.tokens[1], "<|im_start|>");
  for (size_t i = 0; i < t.kinds.size(); ++i)
    EXPECT_EQ(t.kinds[i], i < 17 ? TokenKind::control : TokenKind::normal) << i;
  EXPECT_EQ(t.chat_template.compare(0, 28, "{% for message in messages %"), 0);
}

// Every tensor the model was made of is there, bit for bit, with the codec it was written in.
void expect_same_tensors(const Checkpoint& checkpoint, const TinyModel& model) {
  EXPECT_EQ(checkpoint.tensors().size(), model.tensors.size());
  for (const TinyTensor& t : model.tensors) {
    const CheckpointTensor* found = checkpoint.find(t.name);
    ASSERT_NE(found, nullptr) << t.name;
    const Tensor &x = found->tensor, &y = t.weight.tensor;
    EXPECT_EQ(describe(x), describe(y)) << t.name;
    ASSERT_EQ(x.data.pitch, y.data.pitch) << t.name;
    EXPECT_EQ(std::memcmp(x.data.ptr, y.data.ptr, size_t(x.rows * x.data.pitch)), 0) << t.name;
  }
}

TEST(TinyGguf, GivesBackWhatWasWritten) {
  for (const Codec codec : {id<F32>, id<F16>, id<BF16>, id<Q8_0>, id<Q4_0>, id<Q4_1>, id<Q5_0>, id<Q5_1>, id<IQ4_NL>,
                            id<Q2_K>, id<Q3_K>, id<Q4_K>, id<Q5_K>, id<Q6_K>, id<IQ4_XS>}) {
    const TempDir dir;
    const int64_t wide = info(codec).align;  // rows of whole blocks
    const TinyModel model = make_tiny_model({.hidden = std::max<int64_t>(64, wide),
                                             .ffn = std::max<int64_t>(96, wide),
                                             .head_dim = std::max<int64_t>(16, wide / 4),
                                             .tied = codec != id<F16>,
                                             .attention_bias = true,
                                             .mlp_bias = true,
                                             .matrices = codec});
    const Checkpoint checkpoint = Checkpoint::open(write_tiny_gguf(model, dir.file("tiny.gguf")));
    SCOPED_TRACE(info(codec).name);
    expect_same_tensors(checkpoint, model);
  }
}

void expect_same_tokenizer(const TokenizerData& a, const TokenizerData& b) {
  EXPECT_EQ(a.model, b.model);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.kinds, b.kinds);
  EXPECT_EQ(a.merges, b.merges);
  EXPECT_EQ(a.bos, b.bos);
  EXPECT_EQ(a.unknown, b.unknown);
  EXPECT_EQ(a.pad, b.pad);
  EXPECT_EQ(a.eos, b.eos);
  EXPECT_EQ(a.add_bos, b.add_bos);
  EXPECT_EQ(a.add_prefix_space, b.add_prefix_space);
  EXPECT_EQ(a.whole_pieces, b.whole_pieces);
  EXPECT_EQ(a.chat_template, b.chat_template);
}

void expect_same_config(const ModelConfig& a, const ModelConfig& b) {
  EXPECT_EQ(a.family, b.family);
  EXPECT_EQ(a.name, b.name);
  EXPECT_THAT((std::vector<int64_t>{a.layers, a.hidden, a.ffn, a.heads, a.kv_heads, a.head_dim, a.vocab, a.context,
                                    a.rope_dim}),
              ElementsAre(b.layers, b.hidden, b.ffn, b.heads, b.kv_heads, b.head_dim, b.vocab, b.context, b.rope_dim));
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.tied_embeddings, b.tied_embeddings);
  EXPECT_EQ(a.attention_bias, b.attention_bias);
  EXPECT_EQ(a.mlp_bias, b.mlp_bias);
}

TEST(TinyModels, ContainersAgree) {
  for (const Codec codec : {id<F32>, id<F16>, id<BF16>}) {
    const TempDir dir;
    const bool biased = codec == id<F32>;
    const TinyModel model = make_tiny_model({.tied = codec != id<F16>,
                                             .attention_bias = biased,
                                             .mlp_bias = biased,
                                             .embedding = codec,
                                             .matrices = codec});
    const Checkpoint gguf = Checkpoint::open(write_tiny_gguf(model, dir.file("tiny.gguf")));
    const Checkpoint whole = Checkpoint::open(write_tiny_hf(model, dir.file("whole")));
    const Checkpoint sharded = Checkpoint::open(write_tiny_hf(model, dir.file("sharded"), 3));
    EXPECT_EQ(whole.container(), "safetensors");
    for (const Checkpoint* c : {&gguf, &whole, &sharded}) {
      SCOPED_TRACE(c->container() + " " + info(codec).name);
      expect_same_tensors(*c, model);
      expect_same_config(c->config(), model.config);
      expect_same_tokenizer(c->tokenizer(), model.tokenizer);
      EXPECT_EQ(c->tokenizer().split_patterns, gguf.tokenizer().split_patterns);
      EXPECT_EQ(c->tokenizer().split_patterns.size(), 2u);
    }
  }
}

}  // namespace
}  // namespace quire
