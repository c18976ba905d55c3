#include "apps/kl_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "base/error.h"
#include "kernels/sample.h"
#include "quant/scalar.h"

namespace quire {
namespace {

constexpr KlShape kShape{8, 50, 2, 3};

struct KlFile : ::testing::Test {
  std::string path = (std::filesystem::temp_directory_path() / ("quire-kl-" + std::to_string(getpid()))).string();
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> rows;

  KlFile() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, 3.0f);
    for (int i = 0; i < 16; ++i) tokens.push_back(i * 3);
    rows.assign(6, std::vector<float>(50));
    for (auto& row : rows) {
      for (float& logit : row) logit = normal(random);
    }
  }
  ~KlFile() override { std::filesystem::remove(path); }
  void write() {
    KlWriter writer(path, kShape, tokens);
    for (int64_t i = 5; i >= 0; --i) {  // any order
      const auto& row = rows[size_t(i)];
      writer.write_row(i / 3, i % 3, row, log_sum_exp(row));
    }
    writer.finish();
  }
};

TEST_F(KlFile, TheReferenceAgreesWithItself) {
  write();
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  const KlReader reader(path, kShape, tokens);
  for (int64_t i = 0; i < 6; ++i) {
    const auto& row = rows[size_t(i)];
    const double shift = log_sum_exp(row);
    const KlRow kl = reader.compare(i / 3, i % 3, row, shift, 7);
    // f16 moves a log-probability by d <= |l| / 2048, |l| < 24 here; what is left of it in KL is at most about d^2.
    const double d = 24.0 / 2048;
    EXPECT_NEAR(kl.divergence, 0.0, d * d);
    EXPECT_TRUE(kl.same_top);
    EXPECT_NEAR(kl.reference_nll, shift - double(row[7]), 2 * d);
  }
}

TEST_F(KlFile, DivergenceIsTheDefinition) {
  write();
  const KlReader reader(path, kShape, tokens);
  std::vector<float> other = rows[0];
  for (size_t v = 0; v < other.size(); ++v) other[v] += float(v % 5) * 0.5f;
  const double shift = log_sum_exp(other), reference_shift = log_sum_exp(rows[0]);
  double expected = 0.0;
  for (size_t v = 0; v < other.size(); ++v) {
    const double l = double(rows[0][v]) - reference_shift;
    expected += std::exp(l) * (l - (double(other[v]) - shift));
  }
  EXPECT_GT(expected, 0.01);
  // First order: the weights p move by p d, and the log-ratios they weigh are at most 4 apart.
  EXPECT_NEAR(reader.compare(0, 0, other, shift, 7).divergence, expected, 4 * 24.0 / 2048);
}

TEST_F(KlFile, FewerChunksOfTheSameTextMayBeCompared) {
  write();
  const KlShape one{8, 50, 1, 3};
  const KlReader reader(path, one, std::span<const int32_t>(tokens).first(8));
  EXPECT_NEAR(reader.compare(0, 2, rows[2], log_sum_exp(rows[2]), 7).divergence, 0.0, 1e-3);
}

TEST_F(KlFile, AnotherTextOrADamagedFileIsRefused) {
  write();
  std::vector<int32_t> other = tokens;
  other[5] += 1;
  EXPECT_THROW(KlReader(path, kShape, other), Error);
  EXPECT_THROW(KlReader(path, (KlShape{8, 51, 2, 3}), tokens), Error);
  EXPECT_THROW(KlReader(path, (KlShape{8, 50, 3, 3}), tokens), Error);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  EXPECT_THROW(KlReader(path, kShape, tokens), Error);
  std::filesystem::resize_file(path, 12);
  EXPECT_THROW(KlReader(path, kShape, tokens), Error);
}

TEST_F(KlFile, AnUnfinishedFileLeavesNothing) {
  { KlWriter writer(path, kShape, tokens); }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  EXPECT_THROW(KlWriter("/no/such/folder/x", kShape, tokens), Error);
}

}  // namespace
}  // namespace quire
