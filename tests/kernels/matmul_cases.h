// Operands for tests of matmuls, and every kernel that can run them against the reference.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "kernels/matmul.h"
#include "tests/op_test.h"
#include "tests/random_blocks.h"

namespace quire {

inline int64_t any_of(Rng& rng, std::initializer_list<int64_t> values) { return values.begin()[rng() % values.size()]; }

inline OwnedTensor random_tensor(Rng& rng, Format format, int64_t rows, int64_t cols) {
  StorageOptions options;
  options.sums = format.codec == id<Int8> && rng() % 2;  // kernels count for themselves where there are none
  OwnedTensor t = make_tensor(format, rows, cols, options);
  const CodecInfo& codec = info(format.codec);
  if (!codec.encode) {
    fill_random_blocks(rng, t);
    return t;
  }
  for (int64_t i = 0; i < codec.table_bytes / 4 * (codec.table_shared ? 1 : cols); ++i) {
    t.tensor.table.row<float>(0)[i] = float(i % 16) * 0.125f - 0.9f;
  }
  std::vector<float> values = normal(rng, rows * cols);
  for (float& x : values) x = x * 0.5f + 0.3f;  // lopsided: zeros and offsets matter
  for (int64_t r = 0; r < rows; ++r) {
    info(format.codec).encode(t.tensor, r, 1, values.data() + r * cols, cols, ScaleSource::found);
  }
  return t;
}

inline Format weight_format(Rng& rng, int codec) {
  const int fixed = info(Codec(codec)).group;
  return {Codec(codec), fixed ? fixed : int32_t(any_of(rng, {0, 0, 8, 20, 32, 64, 128}))};
}

const Format kActivations[] = {{id<F32>},  {id<F16>},      {id<BF16>},    {id<E4M3>},
                               {id<Int8>}, {id<Int8>, 32}, {id<Int8>, 64}};

inline bool divides(const MatmulProblem& p) {
  const int64_t gw = p.w.codec == id<TwoLevel4> ? 0 : p.w.group, gx = p.x.group;
  const bool integer = p.x.codec == id<Int8> && info(p.w.codec).integer;
  return !integer || gw == 0 || gx == 0 || gw % gx == 0 || gx % gw == 0;
}

// y with a margin that must stay as it was; poisoned before each run.
struct Result {
  static constexpr int64_t kMargin = 5;
  int64_t rows, cols, ld;
  std::vector<float> data;
  Result(int64_t m, int64_t n) : rows(m), cols(n), ld(n + kMargin), data(static_cast<size_t>(m * ld), std::nanf("")) {}
  Tensor tensor() {
    Tensor t;
    t.codec = id<F32>;
    t.rows = rows;
    t.cols = cols;
    t.data = {reinterpret_cast<std::byte*>(data.data()), ld * 4, 1};
    return t;
  }
  float at(int64_t m, int64_t n) const { return data[size_t(m * ld + n)]; }
};

inline std::string first_difference(const Result& a, const Result& b) {
  for (size_t i = 0; i < a.data.size(); ++i) {
    if (std::memcmp(&a.data[i], &b.data[i], 4) != 0) {
      return fmt::format("[{}, {}]: {} and {}", i / size_t(a.ld), i % size_t(a.ld), a.data[i], b.data[i]);
    }
  }
  return "";
}

class Matmul : public testing::Test {
 protected:
  ThreadPool one{1}, two{2}, three{3};
  Scratch scratch;
  Machines machines;
  Context context(Isa isa, int threads = 1) {
    Context ctx;
    ctx.isa = isa;
    ctx.pool = threads == 1 ? &one : threads == 2 ? &two : &three;
    ctx.scratch = &scratch;
    return ctx;
  }
  Result run(const Context& ctx, const Tensor& x, const PackedWeight& w, std::string_view kernel,
             const Epilogue& e = {}) {
    Result y(x.rows, w.problem.n);
    matmul(ctx, x, w, y.tensor(), e, kernel);
    scratch.reset();
    return y;
  }
  Result reference(const Tensor& x, const Tensor& w, const Epilogue& e = {}) {
    const Context ctx = context(Isa::baseline);
    return run(ctx, x, pack_weight(ctx, {w}, format_of(x), nullptr), "reference", e);
  }
  void compare_on_gpu(const MatmulKernel& k, const Tensor& x, const Tensor& w, const Epilogue& e,
                      const Result& expected) {
    const Context ctx = machines.gpu_with_blas();
    if (k.prefers && !ctx.blas) return;  // Gpu.HasBlas says so
    OnGpu gpu(ctx);
    Result got(x.rows, w.rows);
    const auto copied = [&](const float* values, int64_t n) {
      return values ? gpu.in(std::vector<float>(values, values + n)) : nullptr;
    };
    const Epilogue there{copied(e.bias, w.rows), copied(e.residual, (x.rows - 1) * got.ld + w.rows)};
    const PackedWeight packed = pack_weight(ctx, {gpu.in(w)}, format_of(x), k.layout);
    const Tensor y = gpu.in(got.tensor());
    matmul(ctx, gpu.in(x), packed, y, there, k.name);
    copy_tensor(y, got.tensor(), ctx.stream);
    if constexpr (kCuda) cuda::synchronize(ctx.stream);
    ++compared[k.name];
    if (!k.exact) return expect_close(k, x, w, e, got, expected);
    EXPECT_EQ(first_difference(got, expected), "") << k.name << " x " << describe(x) << " w " << describe(w);
  }
  // Tensor cores add 16 products and the sum at once, each cut off at 2^-23 of the largest, so k products are cut off
  // 17/16 k times; the reference rounds k sums. 16: folds, and the roundings of decoded scales. For cuBLAS a weight is
  // rounded to f16 with its scale.
  void expect_close(const MatmulKernel& k, const Tensor& x, const Tensor& w, const Epilogue& e, const Result& got,
                    const Result& expected) {
    const std::vector<float> xv = decoded(x), wv = decoded(w);
    for (int64_t m = 0; m < x.rows; ++m) {
      for (int64_t n = 0; n < w.rows; ++n) {
        double magnitude = 0, extra = 0, rounding = 0;
        for (int64_t c = 0; c < x.cols; ++c) {
          const double xc = std::fabs(xv[size_t(m * x.cols + c)]), wc = std::fabs(wv[size_t(n * x.cols + c)]);
          magnitude += xc * wc;
          if (k.prefers && info(w.codec).bits < 16) rounding += xc * std::max(wc, 0x1.0p-14) * 0x1.0p-11;
        }
        if (e.bias) extra += std::fabs(e.bias[n]);
        if (e.residual) extra += std::fabs(e.residual[m * got.ld + n]);
        const double sums = ((3.125 * double(x.cols) + 16) * (magnitude + rounding) + 4 * extra) * 0x1.0p-24;
        const double bound = sums + rounding;
        ASSERT_LE(std::fabs(double(got.at(m, n)) - expected.at(m, n)), bound)
            << k.name << " x " << describe(x) << " w " << describe(w) << " [" << m << ", " << n << "]";
      }
    }
  }
  // Every kernel that can, by name.
  void compare_kernels(const Tensor& x, const Tensor& w, const Epilogue& e, const Result& expected) {
    const MatmulProblem problem{format_of(w), format_of(x), w.rows, w.cols};
    for (const MatmulKernel& k : matmul_kernels()) {
      if (k.isa > default_isa() || !k.supports(problem) || (k.layout && !k.layout->supports(problem))) continue;
      if (k.device == Device::cuda) {
        if (gpu_is_here()) compare_on_gpu(k, x, w, e, expected);
        continue;
      }
      const Context ctx = context(k.isa, 1 + int(seen++ % 3));
      const PackedWeight packed = pack_weight(ctx, {w}, format_of(x), k.layout);
      EXPECT_EQ(first_difference(run(ctx, x, packed, k.name, e), expected), "")
          << k.name << " x " << describe(x) << " w " << describe(w);
      ++compared[k.name];
    }
  }
  uint32_t seen = 0;
  std::map<std::string, int> compared;
};

}  // namespace quire
