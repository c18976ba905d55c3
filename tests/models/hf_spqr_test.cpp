// SpQR directories: codes, scales and outliers are the file's, and products what the written order makes of them.
#include <gtest/gtest.h>

#include "models/checkpoint_builder.h"
#include "models/decoder.h"
#include "tests/expect_error.h"
#include "tests/models/equal_formats.h"
#include "tests/models/quantized_values.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

using Ordered = nlohmann::ordered_json;

constexpr SpqrOutliers kAll[] = {SpqrOutliers::none, SpqrOutliers::few, SpqrOutliers::many, SpqrOutliers::one_row};

// A tiny model all of whose linears are SpQR's; with floats for gate and up, down may have a tile that is not full.
struct Directory {
  TempDir dir;
  std::string path = dir.file("q"), floats = path + "-floats";
  Values values;
  Ordered config;

  explicit Directory(const SpqrOptions& options, int64_t ffn = 96) {
    const TinyModel model = make_tiny_model({.layers = 1, .hidden = 64, .ffn = ffn});
    config = tiny_hf_config(model);
    config["quantization_config"] = {{"quant_method", "spqr"}, {"bits", 3}, {"beta1", 16}, {"beta2", 16}};
    Draw draw;
    values = write_directory(model, path, config,
                             [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
                               if (rows % 16 == 0) return put_spqr(w, module, rows, cols, draw, options);
                               std::vector<float> plain;
                               for (int64_t i = 0; i < rows * cols; ++i)
                                 plain.push_back(float(draw(200)) * 1e-3f - 0.1f);
                               w.tensor(module + ".weight", "F32", {rows, cols}, raw_bytes(plain));
                               return plain;
                             });
  }
};

// Column of x that column c of the matrix is for.
int64_t column_of(const CheckpointTensor& t, int64_t c) {
  return t.input && !t.input->order.empty() ? t.input->order[size_t(c)] : c;
}

// Values are those of the library, outliers added to them; there are as many outliers as listed, in order of columns.
TEST(HfSpqr, ValuesAndOutliersAreThoseOfTheFile) {
  for (const SpqrOutliers outliers : kAll) {
    for (const int way : {0, 1, 2, 3}) {
      const Directory d({way % 2 == 1, way / 2 == 1, outliers}, way == 1 ? 100 : 96);
      const Checkpoint checkpoint = Checkpoint::open(d.path);
      EXPECT_EQ(checkpoint.container(), "safetensors, SpQR, 3 bits in tiles of 16 x 16 and outliers");
      int64_t found = 0;
      for (const auto& [module, wanted] : d.values) {
        const CheckpointTensor& t = *checkpoint.find(module + ".weight");
        const SparseMatrix sparse = checkpoint.outliers(t.name);
        ASSERT_EQ(int64_t(sparse.begins.size()), t.tensor.rows + 1) << module;
        ASSERT_EQ(sparse.begins.back(), t.outliers) << module;
        ASSERT_EQ(int64_t(sparse.entries.size()), t.outliers) << module;
        found += t.outliers;
        EXPECT_EQ(to_string(format_of(t.tensor)), t.tensor.rows % 16 == 0 ? "spqr3" : "f32") << module;
        for (int64_t r = 0; r < t.tensor.rows; ++r) {
          ASSERT_LE(sparse.begins[size_t(r)], sparse.begins[size_t(r) + 1]);
          for (int32_t i = sparse.begins[size_t(r)] + 1; i < sparse.begins[size_t(r) + 1]; ++i) {
            ASSERT_LT(sparse.entries[size_t(i) - 1] & 0xFFFF, sparse.entries[size_t(i)] & 0xFFFF);
          }
          std::vector<float> row(size_t(t.tensor.cols), NAN);
          info(t.tensor.codec).decode(t.tensor, r, 0, t.tensor.cols, row.data());
          add_sparse_row(sparse.view(), r, row.data());
          for (int64_t c = 0; c < t.tensor.cols; ++c) {
            ASSERT_EQ(row[size_t(c)], wanted[size_t(r * t.tensor.cols + column_of(t, c))])
                << module << " row " << r << ", column " << c;
          }
        }
      }
      EXPECT_EQ(found > 0, outliers != SpqrOutliers::none);
      // Converted, the outliers are in the matrix; an order of columns changes the order of sums.
      EXPECT_TRUE(way / 2 == 1 || equal_on_cpu(d.path, d.floats, "f32"));
      EXPECT_TRUE(way / 2 == 1 || outliers != SpqrOutliers::none || equal_on_cpu(d.path, d.floats));
      expect_near_on_gpu(d.path);
    }
  }
}

// Products of every linear, fused or not: one chain over the columns as they lie, then that of the row's outliers.
TEST(HfSpqr, LinearsComputeInTheWrittenOrder) {
  Machines machines;
  Rng rng(7);
  const std::string at = "model.layers.0.";
  for (const SpqrOutliers outliers : kAll) {
    for (const bool permuted : {false, true}) {
      const Directory d({false, permuted, outliers}, permuted ? 96 : 100);
      const Checkpoint checkpoint = Checkpoint::open(d.path);
      for (const std::vector<std::string>& names :
           {std::vector<std::string>{at + "self_attn.q_proj", at + "self_attn.k_proj", at + "self_attn.v_proj"},
            {at + "self_attn.o_proj"},
            {at + "mlp.down_proj"}}) {
        for (const Context& ctx : machines.all()) {
          const Linear linear = Linear::load(ctx, checkpoint, names, parse_scheme("own"), {});
          EXPECT_EQ(linear.parts().size(), 1u);
          EXPECT_EQ(linear.bytes(), plan_linear(ctx, checkpoint, names, parse_scheme("own"), {})[0].bytes());
          const int64_t m = between(rng, 1, 20), k = linear.k(), n = linear.n();
          std::vector<float> x = normal(rng, m * k), y(size_t(m * n), NAN), residual = normal(rng, m * n);
          linear.run(ctx, f32_view(x, m, k), f32_view(y, m, n), residual.data());
          int64_t first = 0;
          for (const std::string& name : names) {
            const CheckpointTensor& t = *checkpoint.find(name + ".weight");
            const SparseMatrix sparse = checkpoint.outliers(t.name);
            const std::vector<float> dense = decoded(t.tensor);
            for (int64_t r = 0; r < t.tensor.rows; ++r) {
              const int32_t begin = sparse.begins[size_t(r)], end = sparse.begins[size_t(r) + 1];
              for (int64_t i = 0; i < m; ++i) {
                const float* row = x.data() + i * k;
                float sum = 0.0f, beside = 0.0f;
                for (int64_t c = 0; c < k; ++c) sum = std::fmaf(row[column_of(t, c)], dense[size_t(r * k + c)], sum);
                for (int32_t e = begin; e < end; ++e) {
                  const uint32_t entry = sparse.entries[size_t(e)];
                  beside = std::fmaf(row[column_of(t, entry & 0xFFFF)], f16_to_f32(uint16_t(entry >> 16)), beside);
                }
                sum = sum + residual[size_t(i * n + first + r)];
                if (end > begin) sum = sum + beside;
                ASSERT_EQ(y[size_t(i * n + first + r)], sum) << name << " on " << to_string(ctx.isa) << " row " << r;
              }
              std::vector<float> whole(size_t(k), NAN), wanted(dense.begin() + r * k, dense.begin() + (r + 1) * k);
              linear.decode_row(first + r, whole.data());
              add_sparse_row(sparse.view(), r, wanted.data());
              ASSERT_EQ(whole, wanted) << name;
            }
            first += t.tensor.rows;
          }
        }
      }
    }
  }
}

// The same network with its dense values in f32 and the outliers beside them.
Checkpoint with_floats(const Checkpoint& checkpoint, std::vector<OwnedTensor>& memory) {
  CheckpointBuilder builder("floats");
  builder.state().config = checkpoint.config();
  builder.state().tokenizer = checkpoint.tokenizer();
  for (const CheckpointTensor& t : checkpoint.tensors()) {
    memory.push_back(make_tensor({id<F32>, 0}, t.tensor.rows, t.tensor.cols));
    for (int64_t r = 0; r < t.tensor.rows; ++r) {
      info(t.tensor.codec).decode(t.tensor, r, 0, t.tensor.cols, memory.back().tensor.data.row<float>(r));
    }
    builder.add(t.name, t.name, memory.back()).input = t.input;
    if (t.outliers == 0) continue;
    const SparseMatrix sparse = checkpoint.outliers(t.name);
    builder.add_outliers(t.outliers, {}, [sparse] { return sparse; });
  }
  return builder.finish();
}

std::vector<float> logits_of(const Context& ctx, const Checkpoint& checkpoint) {
  const Decoder decoder = Decoder::load(ctx, checkpoint, parse_scheme("own"), 64);
  const ModelConfig& c = decoder.config();
  KvCacheConfig config;
  config.layers = c.layers, config.kv_heads = c.kv_heads, config.head_dim = c.head_dim;
  config.slots = config.pages = 1;
  config.max_tokens = 64;
  KvCache cache(config);
  const int32_t slot = cache.open();
  EXPECT_TRUE(cache.reserve(slot, 40));
  Batch batch;
  batch.sequences.push_back({slot, 0, 40, 0});
  for (int32_t i = 0; i < 40; ++i) {
    batch.tokens.push_back(3 + i * 37 % 290);
    batch.positions.push_back(i);
    batch.logits_rows.push_back(i);
  }
  const OwnedTensor logits = make_tensor({id<F32>, 0}, 40, c.vocab);
  decoder.forward(ctx, batch, cache, logits);
  return decoded(logits);
}

TEST(HfSpqr, ANetworkComputesWhatItsValuesInFloatsCompute) {
  Machines machines;
  for (const SpqrOutliers outliers : kAll) {
    for (const bool permuted : {false, true}) {
      const Directory d({permuted, permuted, outliers}, permuted ? 96 : 100);
      const Checkpoint checkpoint = Checkpoint::open(d.path);
      std::vector<OwnedTensor> memory;
      const Checkpoint floats = with_floats(checkpoint, memory);
      const std::vector<float> wanted = logits_of(machines.context(Isa::baseline), floats);
      for (const Context& ctx : machines.all()) {
        ASSERT_EQ(first_difference(logits_of(ctx, checkpoint), wanted), "") << to_string(ctx.isa);
      }
    }
  }
}

// Rounded to another format, written or not.
TEST(HfSpqr, QuantizedAgainItHasItsOutliers) {
  const Directory d({true, false, SpqrOutliers::many});
  const std::string path = d.dir.file("w8");
  quantize(d.path, "w8a16", path);
  EXPECT_TRUE(compute(*open_small(path)) == compute(*open_small(d.path, "w8a16")));
  EXPECT_TRUE(equal_on_cpu(d.path, d.path, "w8a16") == false);
  EXPECT_TRUE(compute(*open_small(d.path, "w8a16", "", "cpu")) == compute(*open_small(d.floats, "w8a16", "", "cpu")));
}

TEST(HfSpqr, BitsAreThoseThatCanBeRead) {
  Directory d({});
  d.config["quantization_config"]["bits"] = 4;
  write_file(d.path + "/config.json", d.config.dump());
  expect_error([&] { Checkpoint::open(d.path); }, {"bits is 4"});
}

TEST(HfSpqr, RefusesWhatCannotBe) {
  const TinyModel model = make_tiny_model({.layers = 1, .hidden = 64, .ffn = 96});
  const auto expect_refused = [&](std::initializer_list<std::string> parts, uint64_t word, std::vector<int32_t> offsets,
                                  std::vector<uint32_t> entries, std::vector<uint16_t> perm = {}) {
    const TempDir dir;
    Draw draw;
    Ordered config = tiny_hf_config(model);
    config["quantization_config"] = {{"quant_method", "spqr"}};
    write_directory(model, dir.file("q"), config,
                    [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
                      if (!module.ends_with("k_proj")) return put_spqr(w, module, rows, cols, draw);
                      offsets.resize(33, offsets.back());
                      w.tensor(module + ".dense_weights", "I64", {128}, raw_bytes(std::vector<uint64_t>(128, word)));
                      w.tensor(module + ".row_offsets", "I32", {33}, raw_bytes(offsets));
                      w.tensor(module + ".col_vals", "I32", {int64_t(entries.size())}, raw_bytes(entries));
                      if (!perm.empty()) w.tensor(module + ".in_perm", "I32", {32}, raw_bytes(perm));
                      return std::vector<float>(size_t(rows * cols));
                    });
    expect_error([&] { Checkpoint::open(dir.file("q")); }, parts);
  };
  expect_refused({"k_proj", "out of range"}, 0, {0, 5}, {0, 0});
  expect_refused({"k_proj", "out of range"}, 0, {0, 2, 1}, {0, 0});
  expect_refused({"k_proj", "out of range"}, 0, {0, -1}, {0, 0});
  expect_refused({"k_proj", "begin after 0"}, 0, {1, 2}, {0, 0});
  expect_refused({"k_proj", "beyond its columns"}, 0, {0, 1}, {64});
  expect_refused({"k_proj", "not finite"}, 0, {0, 1}, {0x7C000000u});
  expect_refused({"k_proj", "leave F16"}, 0x7Cull << 54, {0}, {});
  // 65504, the last of F16, and dense values of up to 512 beside it.
  expect_refused({"k_proj", "leave F16"}, 0x40ull << 54, {0, 1}, {0x7BFF0000u});
  expect_refused({"k_proj", "no order of 64"}, 0, {0}, {}, std::vector<uint16_t>(64, 3));
  expect_refused({"k_proj", "no order of 64"}, 0, {0}, {}, std::vector<uint16_t>(64, 64));
}

}  // namespace
}  // namespace quire
