// Invariants F1-F3: orthogonal in integers, the fast transform equals the dense matrix, lengths are kept.
#include "kernels/hadamard.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

class HadamardTest : public testing::Test {
 protected:
  Machines machines_;

  void run(const Context& cpu, const Tensor& x, const Hadamard& h, bool transpose, const Tensor& y) {
    Hadamard uploaded(h.order());
    on_every_device(machines_, cpu, {x}, y, [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
      if (ctx.device == Device::cuda) uploaded.upload(ctx.stream);
      hadamard(ctx, in[0], uploaded, transpose, out);
    });
  }
  Rng rng_{9};

  std::vector<float> transformed(std::vector<float> x, int64_t rows, const Hadamard& h, bool transpose = false) {
    const int64_t cols = int64_t(x.size()) / rows;
    std::vector<float> y(x.size());
    run(machines_.context(), f32_view(x, rows, cols), h, transpose, f32_view(y, rows, cols));
    return y;
  }
  // Entry of the dense matrix of +-1, by the index split of the header.
  static int dense(const Hadamard& h, int64_t row, int64_t column) {
    const int64_t n = h.power();
    const int walsh = __builtin_popcountll(uint64_t((row % n) & (column % n))) % 2 ? -1 : 1;
    return h.sign(row / n, column / n) * walsh;
  }
  // Each value passes log2 + K sums, a root, a quotient and a product.
  static double bound(const Hadamard& h, const float* x) {
    double magnitude = 0.0;
    for (int64_t i = 0; i < h.order(); ++i) magnitude += std::fabs(double(x[i]));
    return (std::log2(double(h.power())) + double(h.k()) + 3.0) * 0x1.0p-24 * 1.01 * magnitude /
           std::sqrt(double(h.order()));
  }
};

TEST_F(HadamardTest, BasesAreOrthogonalInIntegers) {
  const std::pair<int64_t, int64_t> orders[] = {{1, 1},     {12, 12},   {20, 20},  {24, 12},   {28, 28},   {36, 36},
                                                {44, 44},   {60, 60},   {68, 68},  {76, 76},   {84, 84},   {108, 108},
                                                {124, 124}, {140, 140}, {104, 52}, {148, 148}, {164, 164}, {380, 380},
                                                {52, 52},   {156, 156}, {172, 172}};
  for (const auto& [order, k] : orders) {
    const Hadamard h(order);
    ASSERT_EQ(h.order(), order);
    EXPECT_EQ(h.k(), k) << order;
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        ASSERT_EQ(std::abs(h.sign(i, j)), 1);
        int rows = 0, columns = 0;
        for (int64_t l = 0; l < k; ++l) {
          rows += h.sign(i, l) * h.sign(j, l);
          columns += h.sign(l, i) * h.sign(l, j);
        }
        ASSERT_EQ(rows, i == j ? k : 0) << order << ": rows " << i << " and " << j;
        ASSERT_EQ(columns, i == j ? k : 0) << order << ": columns " << i << " and " << j;
      }
    }
  }
}

TEST_F(HadamardTest, FactorsOfTheModelsWidths) {
  const std::tuple<int64_t, int64_t, int64_t> widths[] = {
      {64, 1, 64},     {192, 12, 16},    {576, 36, 16},    {960, 60, 16},     {1536, 12, 128}, {3072, 12, 256},
      {4096, 1, 4096}, {14336, 28, 512}, {11008, 172, 64}, {19968, 156, 128}, {6656, 52, 128}};
  for (const auto& [order, k, power] : widths) {
    const Hadamard h(order);
    EXPECT_EQ(h.k(), k) << order;
    EXPECT_EQ(h.power(), power) << order;
  }
}

TEST_F(HadamardTest, EqualsTheDenseMatrixAndItsTransposeUndoesIt) {
  for (const int64_t order : {1, 2, 8, 12, 20, 24, 28, 64, 72, 192, 576, 960, 1536, 3072}) {
    const Hadamard h(order);
    const std::vector<float> x = normal(rng_, order, 1.0f, 0.5f);
    const double most = bound(h, x.data());
    for (const bool transpose : {false, true}) {
      const std::vector<float> y = transformed(x, 1, h, transpose);
      for (int i = 0; i < 60; ++i) {
        const int64_t row = i == 0 ? 0 : i == 1 ? order - 1 : between(rng_, 0, order - 1);
        double exact = 0.0;
        for (int64_t c = 0; c < order; ++c)
          exact += (transpose ? dense(h, c, row) : dense(h, row, c)) * double(x[size_t(c)]);
        ASSERT_NEAR(double(y[size_t(row)]), exact / std::sqrt(double(order)), most) << order << ", row " << row;
      }
      // There and back: the first error passes through an orthogonal matrix, so it grows by sqrt(N) at most.
      const std::vector<float> back = transformed(y, 1, h, !transpose);
      const double both = most * std::sqrt(double(order)) + bound(h, y.data());
      for (int64_t c = 0; c < order; ++c) ASSERT_NEAR(double(back[size_t(c)]), double(x[size_t(c)]), both) << order;
    }
  }
}

TEST_F(HadamardTest, SymmetryIsAsDocumented) {
  const auto symmetric = [](const Hadamard& h) {
    for (int64_t i = 0; i < h.k(); ++i) {
      for (int64_t j = 0; j < i; ++j) {
        if (h.sign(i, j) != h.sign(j, i)) return false;
      }
    }
    return true;
  };
  for (const int64_t k : {1, 28, 36, 124}) EXPECT_TRUE(symmetric(Hadamard(k))) << k;
  for (const int64_t k : {12, 20, 44, 52, 60, 108, 140, 156, 172}) EXPECT_FALSE(symmetric(Hadamard(k))) << k;
}

// Rows of the matrices that QuIP#'s and QuaRot's programs use (Sloane's library), from which these must not differ.
TEST_F(HadamardTest, RowsOfThePublishedMatrices) {
  const std::tuple<int64_t, int64_t, const char*> rows[] = {
      {12, 0, "+-----------"},
      {12, 1, "++-+---+++-+"},
      {12, 11, "+-+---+++-++"},
      {20, 1, "++-++----+-+-++++--+"},
      {20, 19, "+-++----+-+-++++--++"},
      {28, 0, "++++++++++++++-+++++++++++++"},
      {28, 1, "+++-++----++-++-+-++----++-+"},
      {28, 14, "-+++++++++++++--------------"},
      {28, 27, "++-++----++-+---+--++++--+--"},
      {36, 1, "++++-+---++---+-+++-++-+---++---+-++"},
      {52, 0, "+-+--++++--+-+---++++++---++-+--++--+-++----+--+----"},
      {172, 0,
       "+---++--++++-+-+++-++--++-+++-+-++++--++---++-++++++----+-+--++-++-++--+-+----++++++-++++-+-++--+-+-++++-+----+"
       "-++++-+-+--++-+-++++---++++-+--+--++--------++--+--+-++++---+"}};
  for (const auto& [k, row, signs] : rows) {
    const Hadamard h(k);
    std::string got;
    for (int64_t j = 0; j < k; ++j) got += h.sign(row, j) > 0 ? '+' : '-';
    EXPECT_EQ(got, signs) << k << ", row " << row;
  }
  // The first column of blocks of Williamson's matrices: A, -B, -C, -D.
  const Hadamard h(156);
  for (int64_t i = 0; i < 39; ++i) {
    for (int64_t block = 1; block < 4; ++block) EXPECT_EQ(h.sign(block * 39, i), -h.sign(0, block * 39 + i)) << i;
    EXPECT_EQ(h.sign(39, 39 + i), h.sign(0, i)) << i;
  }
}

TEST_F(HadamardTest, ADiagonalComesFirst) {
  constexpr int64_t kRows = 3, kCols = 96;
  const Hadamard h(24);
  std::vector<float> x = normal(rng_, kRows * kCols), diagonal = normal(rng_, kCols), y(x.size()), scaled = x;
  for (size_t i = 0; i < x.size(); ++i) scaled[i] = x[i] * diagonal[i % size_t(kCols)];
  for (const bool transpose : {false, true}) {
    Hadamard uploaded(24);
    on_every_device(machines_, machines_.context(), {f32_view(x, kRows, kCols), f32_view(diagonal, 1, kCols)},
                    f32_view(y, kRows, kCols),
                    [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
                      if (ctx.device == Device::cuda) uploaded.upload(ctx.stream);
                      hadamard(ctx, in[0], uploaded, transpose, out, in[1].data.row<const float>(0));
                    });
    EXPECT_EQ(first_difference(y, transformed(scaled, kRows, h, transpose)), "");
  }
}

TEST_F(HadamardTest, KeepsLengths) {
  for (const int64_t order : {64, 576, 1536}) {
    const Hadamard h(order);
    const std::vector<float> x = normal(rng_, order), y = transformed(x, 1, h);
    double before = 0.0, after = 0.0, slack = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
      before += double(x[i]) * double(x[i]);
      after += double(y[i]) * double(y[i]);
      slack += 2.0 * std::fabs(double(y[i])) * bound(h, x.data());
    }
    EXPECT_NEAR(after, before, slack * 1.01);
  }
}

TEST_F(HadamardTest, SpreadsASpike) {
  const Hadamard h(576);
  std::vector<float> x(576);
  x[77] = 24.0f;
  for (const float y : transformed(x, 1, h)) EXPECT_EQ(std::fabs(y), 24.0f * (1.0f / std::sqrt(576.0f)));
}

TEST_F(HadamardTest, BlocksAreApart) {
  const Hadamard h(24);
  const std::vector<float> x = normal(rng_, 3 * 96), whole = transformed(x, 3, h);
  for (size_t at = 0; at < x.size(); at += 24) {
    const std::vector<float> part = transformed({x.begin() + long(at), x.begin() + long(at) + 24}, 1, h);
    EXPECT_EQ(first_difference(part.data(), whole.data() + at, 24), "") << at;
  }
}

TEST_F(HadamardTest, EveryOutputFormat) {
  constexpr int64_t kRows = 7, kCols = 120;
  const Hadamard h(40);
  std::vector<float> x = normal(rng_, kRows * kCols);
  const std::vector<float> y = transformed(x, kRows, h);
  for (const Format& format : every_format()) {
    const StorageOptions options{.row_align = 64, .sums = format.codec == id<Int8>};
    const OwnedTensor expected = make_tensor(format, kRows, kCols, options);
    for (int64_t t = 0; t < kRows; ++t) {
      info(format.codec).encode(expected, t, 1, y.data() + t * kCols, kCols, ScaleSource::found);
    }
    for (const Context& ctx : machines_.all()) {
      const OwnedTensor got = make_tensor(format, kRows, kCols, options);
      run(ctx, f32_view(x, kRows, kCols), h, false, got);
      ASSERT_TRUE(memory_of(got) == memory_of(expected)) << to_string(format);
    }
  }
  hadamard(machines_.context(), f32_view(x, kRows, kCols), h, false, f32_view(x, kRows, kCols));
  EXPECT_EQ(first_difference(x, y), "") << "in place";
}

TEST_F(HadamardTest, Refusals) {
  for (const int64_t order : {9, 3, 6, 18, 92, 188, 0, -4}) {
    EXPECT_FALSE(Hadamard::exists(order)) << order;
    expect_error([&] { Hadamard{order}; }, {"hadamard", fmt::format("order {} ", order), "nearest"});
  }
  expect_error([] { Hadamard(9); }, {"8 and 12"});
  std::vector<float> x(96), y(96);
  const Hadamard h(12);
  const Context ctx = machines_.context();
  expect_error([&] { hadamard(ctx, f32_view(x, 2, 40), h, false, f32_view(y, 2, 40)); },
               {"hadamard", "f32 (2, 40)", "12"});
  expect_error([&] { hadamard(ctx, f32_view(x, 2, 48), h, false, f32_view(y, 4, 24)); }, {"hadamard", "f32 (4, 24)"});
  const OwnedTensor half = make_tensor({id<F16>}, 2, 48), spans = make_tensor({id<Int8>}, 2, 48, {.span = 2});
  expect_error([&] { hadamard(ctx, half, h, false, f32_view(y, 2, 48)); }, {"hadamard", "f16 (2, 48)"});
  expect_error([&] { hadamard(ctx, f32_view(x, 2, 48), h, false, spans); }, {"hadamard", "share"});
}

}  // namespace
}  // namespace quire
