// Fused linears are loaded slice by slice; what they hold is what converting each matrix whole gives.
#include "models/linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/convert.h"
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
