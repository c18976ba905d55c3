// The first two layers of the real model: every part of it, at a size that the sanitizers can run.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/gguf.h"
#include "tests/engine_logits.h"
#include "tests/models/gguf_writer.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"

namespace quire {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The file with all of its metadata, but only `layers` blocks.
std::string cut(const std::string& source, uint32_t layers, const std::string& path) {
  const GgufFile file{MappedFile(source)};
  GgufWriter writer;
  for (const GgufValue& v : file.metadata()) {
    std::string value(text_of(v.bytes));
    if (v.type == GgufType::string) value = GgufWriter::string_of(value);
    if (v.type == GgufType::array)
      value = GgufWriter::bytes_of(uint32_t(v.element)) + GgufWriter::bytes_of(v.count) + value;
    if (v.key == "llama.block_count") value = GgufWriter::bytes_of(layers);
    writer.raw(v.key, uint32_t(v.type), value);
  }
  for (const GgufTensor& t : file.tensors()) {
    if (t.name.starts_with("blk.") && std::stoul(t.name.substr(4)) >= layers) continue;
    writer.tensor(t.name, {t.dims.begin(), t.dims.end()}, t.type, text_of(t.bytes));
  }
  std::ofstream(path, std::ios::binary) << writer.file();
  return path;
}

class CutModel : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!std::filesystem::exists(test_model())) return;
    std::ifstream file(source_file("tests/models/golden_cut.json"));
    golden_ = nlohmann::json::parse(file);
    dir_ = std::make_unique<TempDir>();
    cut(test_model(), golden_["layers"], dir_->file("cut.gguf"));
  }
  static void TearDownTestSuite() { dir_.reset(); }
  void SetUp() override { QUIRE_NEEDS_FILE(test_model()); }

  // The logits after each token of the golden text (T, V).
  static std::vector<std::vector<float>> logits(const char* scheme, int64_t chunk) {
    EngineOptions options;
    options.model = dir_->file("cut.gguf");
    options.scheme = scheme;
    options.threads = 2;
    options.context = options.cache_tokens = 128;
    options.max_batch = 1;
    options.chunk = chunk;
    options.memory_limit = int64_t{1} << 30;
    return logits_of(std::move(options), golden_["tokens"].get<std::vector<int32_t>>());
  }

  static nlohmann::json golden_;
  static std::unique_ptr<TempDir> dir_;
};
nlohmann::json CutModel::golden_;
std::unique_ptr<TempDir> CutModel::dir_;

TEST_F(CutModel, LogitsAreThoseOfNumPy) {
  const auto rows = logits("f32", 512);
  const std::vector<double> nll = golden_["nll"];
  const std::vector<int32_t> tokens = golden_["tokens"], likeliest = golden_["likeliest"];
  ASSERT_EQ(rows.size(), tokens.size());
  // A logit is a sum of 576 products whose magnitudes sum to at most the golden file's `magnitude`; a negative
  // log-probability is the difference of two.
  const double tolerance = 2.0 * 576 * 0x1p-24 * golden_["magnitude"].get<double>();
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto top = std::max_element(rows[i].begin(), rows[i].end());
    EXPECT_EQ(top - rows[i].begin(), likeliest[i]) << i;
    if (i + 1 == rows.size()) break;
    double sum = 0.0;
    for (const float x : rows[i]) sum += std::exp(double(x) - double(*top));
    EXPECT_NEAR(double(*top) + std::log(sum) - double(rows[i][size_t(tokens[i + 1])]), nll[i], tolerance) << i;
  }
}

TEST_F(CutModel, ChunksGiveTheSameBits) {
  for (const char* scheme : {"", "w8a8kv8", "w4a8kv4"}) {
    const auto whole = logits(scheme, 512), pieces = logits(scheme, 5);
    EXPECT_EQ(whole.size(), golden_["tokens"].size());
    EXPECT_EQ(whole, pieces) << scheme;  // no NaN, either
  }
}

}  // namespace
}  // namespace quire
