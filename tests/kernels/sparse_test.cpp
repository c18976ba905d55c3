#include "kernels/sparse.h"

#include <gtest/gtest.h>

#include "kernels/convert.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

// How many entries each row has: none, some, all in one row, or a few in most.
enum class Spread { none, few, one_row, many };

SparseMatrix random_matrix(Rng& rng, int64_t rows, int64_t cols, Spread spread) {
  SparseMatrix w;
  w.cols = cols;
  const int64_t full = between(rng, 0, rows - 1);
  for (int64_t r = 0; r < rows; ++r) {
    int64_t count = 0;
    if (spread == Spread::few) count = between(rng, 0, 2);
    if (spread == Spread::many) count = between(rng, 0, cols);
    if (spread == Spread::one_row && r == full) count = cols;
    for (int64_t i = 0; i < count; ++i) {  // in any order, some columns twice
      const uint32_t value = f32_to_f16(normal(rng, 1)[0]);
      w.entries.push_back(uint32_t(between(rng, 0, cols - 1)) | value << 16);
    }
    w.begins.push_back(int32_t(w.entries.size()));
  }
  return w;
}

SparseRows on(const Context& ctx, OnGpu& gpu, const SparseMatrix& w) {
  SparseRows view = w.view();
  if (ctx.device == Device::cuda) {
    view.begins = gpu.in(w.begins);
    view.entries = gpu.in(w.entries);
  }
  return view;
}

void run(Machines& machines, const Context& cpu, const Tensor& x, const SparseMatrix& w, const Tensor& y) {
  on_every_device(
      machines, cpu, {x}, y,
      [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
        OnGpu gpu(ctx);
        add_sparse(ctx, in[0], on(ctx, gpu, w), out);
        ctx.scratch->reset();
        if constexpr (kCuda) {
          if (ctx.device == Device::cuda) cuda::synchronize(ctx.stream);
        }
      },
      true);
}

// The written order as plain loops, on every instruction set, number of threads and number of tokens.
TEST(Sparse, AddsInTheWrittenOrder) {
  Machines machines;
  Rng rng(1);
  for (const Spread spread : {Spread::none, Spread::few, Spread::one_row, Spread::many}) {
    for (const int64_t m : {1, 2, 3, 4, 5, 16, 17, 130, 300}) {
      const int64_t n = between(rng, 1, 150), k = between(rng, 1, 200), ld = n + 3;
      const SparseMatrix w = random_matrix(rng, n, k, spread);
      std::vector<float> x = normal(rng, m * k);
      const std::vector<float> before = normal(rng, m * ld);
      std::vector<float> wanted = before;
      for (int64_t t = 0; t < m; ++t) {
        for (int64_t r = 0; r < n; ++r) {
          float sum = 0.0f;
          for (int32_t i = w.begins[size_t(r)]; i < w.begins[size_t(r) + 1]; ++i) {
            const uint32_t entry = w.entries[size_t(i)];
            sum = std::fmaf(x[size_t(t * k + (entry & 0xFFFF))], f16_to_f32(uint16_t(entry >> 16)), sum);
          }
          if (w.begins[size_t(r)] < w.begins[size_t(r) + 1]) wanted[size_t(t * ld + r)] += sum;
        }
      }
      for (const Context& ctx : machines.all()) {
        std::vector<float> y = before;
        run(machines, ctx, f32_view(x, m, k), w, f32_view(y.data(), m, n, ld));
        ASSERT_EQ(first_difference(y, wanted), "") << to_string(ctx.isa) << ", " << m << " x " << n << " x " << k;
      }
    }
  }
}

// x in other formats is decoded.
TEST(Sparse, TakesActivationsInAnyFormat) {
  Machines machines;
  Rng rng(2);
  const int64_t m = 19, n = 40, k = 96;
  const SparseMatrix w = random_matrix(rng, n, k, Spread::many);
  std::vector<float> values = normal(rng, m * k);
  for (const Format format : every_format({0, 32})) {
    if (info(format.codec).table_bytes > 0) continue;
    const OwnedTensor x = make_tensor(format, m, k);
    const Context ctx = machines.context();
    convert(ctx, f32_view(values, m, k), x);
    std::vector<float> plain = decoded(x), a(size_t(m * n), 1.0f), b = a;
    run(machines, ctx, x, w, f32_view(a, m, n));
    run(machines, ctx, f32_view(plain, m, k), w, f32_view(b, m, n));
    EXPECT_EQ(first_difference(a, b), "") << to_string(format);
  }
}

TEST(Sparse, RowsAreDecodedPutBelowOthersAndTaken) {
  Rng rng(3);
  const int64_t k = 50;
  SparseMatrix all = random_matrix(rng, 7, k, Spread::many);
  const SparseMatrix above = all, below = random_matrix(rng, 5, k, Spread::few);
  all.append(below);
  const SparseRows w = all.view();
  EXPECT_EQ(w.rows, 12);
  EXPECT_EQ(w.count, int64_t(above.entries.size() + below.entries.size()));
  for (int64_t r = 0; r < 12; ++r) {
    std::vector<float> a = normal(rng, k), b = a;
    add_sparse_row(w, r, a.data());
    add_sparse_row(r < 7 ? above.view() : below.view(), r < 7 ? r : r - 7, b.data());
    EXPECT_EQ(first_difference(a, b), "");
  }
  const SparseMatrix middle = all.rows(4, 5);
  for (int64_t r = 0; r < 5; ++r) {
    std::vector<float> a = normal(rng, k), b = a;
    add_sparse_row(w, 4 + r, a.data());
    add_sparse_row(middle.view(), r, b.data());
    EXPECT_EQ(first_difference(a, b), "");
  }
  EXPECT_EQ(all.rows(0, 12).entries, all.entries);
  EXPECT_EQ(all.rows(12, 0).view().rows, 0);
  EXPECT_EQ(sparse_bytes(12, w.count), int64_t(4 * (all.begins.size() + all.entries.size())));
  EXPECT_EQ(sparse_bytes(12, 0), 0);
}

TEST(Sparse, RefusesShapesThatDoNotFit) {
  Machines machines;
  const Context ctx = machines.context();
  Rng rng(4);
  const SparseMatrix w = random_matrix(rng, 4, 8, Spread::many);
  std::vector<float> x(16), y(16);
  expect_error([&] { add_sparse(ctx, f32_view(x, 2, 7), w.view(), f32_view(y, 2, 4)); }, {"add_sparse", "(4, 8)"});
  expect_error([&] { add_sparse(ctx, f32_view(x, 2, 8), w.view(), f32_view(y, 2, 5)); }, {"add_sparse", "(2, 4)"});
  expect_error([&] { add_sparse(ctx, f32_view(x, 2, 8), w.view(), make_tensor({id<F16>}, 2, 4)); }, {"must be f32"});
}

}  // namespace
}  // namespace quire
