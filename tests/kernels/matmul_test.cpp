// Every kernel against the reference bit for bit, and the reference against arithmetic in double.
#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include "kernels/cpu/matmul_simd.h"
#include "tests/kernels/matmul_cases.h"

namespace quire {
namespace {

// Shapes that fill the tiles of matrix units, wholly and with rest.
TEST_F(Matmul, WholeTilesEqualTheReference) {
  Rng rng(2);
  for (int codec = 0; codec < Codecs::kSize; ++codec) {
    for (const Format& fx : kActivations) {
      for (const int64_t m : {16, 31, 32, 50}) {
        const Format fw = weight_format(rng, codec);
        const int64_t n = between(rng, 1, 70), k = 32 * between(rng, 1, 12);
        if (fx.codec != id<Int8> || !divides({fw, fx, n, k})) continue;
        const OwnedTensor x = random_tensor(rng, fx, m, k), w = random_tensor(rng, fw, n, k);
        compare_kernels(x, w, {}, reference(x, w));
      }
    }
  }
}

TEST_F(Matmul, EveryKernelEqualsTheReference) {
  Rng rng(1);
  for (int codec = 0; codec < Codecs::kSize; ++codec) {
    for (const Format& fx : kActivations) {
      for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33}) {
        const Format fw = weight_format(rng, codec);
        const int64_t n = between(rng, 1, 70), k = rng() % 4 ? between(rng, 1, 200) : between(rng, 200, 700);
        if (!divides({fw, fx, n, k})) continue;
        const OwnedTensor x = random_tensor(rng, fx, m, k), w = random_tensor(rng, fw, n, k);
        const std::vector<float> bias = normal(rng, n), residual = normal(rng, m * (n + Result::kMargin));
        const Epilogue e{rng() % 2 ? bias.data() : nullptr, rng() % 2 ? residual.data() : nullptr};
        compare_kernels(x, w, e, reference(x, w, e));
      }
    }
  }
  // What tensor cores take of float activations, and of whole rows of int8: few of the pairs above.
  for (const Codec codec : {id<F16>, id<BF16>, id<E4M3>, id<Int8>, id<Int4Z>, id<Q4_0>}) {
    for (const Codec x_codec : {id<F16>, id<BF16>, id<E4M3>, id<Int8>}) {
      for (int64_t m = 1; m < 70 && gpu_is_here(); ++m) {
        const Format fw = {codec, info(codec).group ? info(codec).group : int32_t(any_of(rng, {0, 32, 128}))};
        const Format fx = {x_codec, 0};
        const int64_t n = between(rng, 1, 140), k = 32 * between(rng, 1, 12);
        if (!choose_layout({fw, fx, n, k}, default_isa(), Device::cuda)) continue;
        const OwnedTensor x = random_tensor(rng, fx, m, k), w = random_tensor(rng, fw, n, k);
        compare_kernels(x, w, {}, reference(x, w));
      }
    }
  }
  for (const MatmulKernel& k : matmul_kernels()) {
    if (k.isa > default_isa() || (k.device == Device::cuda && !gpu_is_here())) continue;
    if (k.prefers && !machines.gpu_with_blas().blas) continue;
    if (std::string_view(k.name).ends_with("_amx") && !cpu::amx_works()) continue;
    EXPECT_GT(compared[k.name], 50) << k.name;
  }
}

TEST_F(Matmul, RegularShapesEqualTheReference) {
  Rng rng(2);
  const Format weights[] = {{id<F32>},           {id<F16>},      {id<Int8>},     {id<Int4>, 64}, {id<Int4Z>, 64},
                            {id<TwoLevel4>, 64}, {id<Q4_1>, 32}, {id<Q8_0>, 32}, {id<Q4_K>, 32}, {id<Q6_K>, 16}};
  for (const Format& fw : weights) {
    for (const Format& fx : {Format{id<F32>}, Format{id<Int8>}, Format{id<Int8>, 32}, Format{id<Int8>, 64}}) {
      const OwnedTensor x = random_tensor(rng, fx, 19, 576), w = random_tensor(rng, fw, 96, 576);
      compare_kernels(x, w, {}, reference(x, w));
    }
  }
}

// |error| of f32 arithmetic against the exact sum of decoded products. Float rule: k roundings of partial sums, each at
// most the sum of magnitudes. Integer rule: per segment the conversion, products and sums of the two terms, plus the
// codec's own two roundings of a decoded weight and one of a decoded x.
TEST_F(Matmul, ReferenceEqualsDecodedProductsWithinRounding) {
  Rng rng(3);
  for (int codec = 0; codec < Codecs::kSize; ++codec) {
    for (const Format& fx : kActivations) {
      const Format fw = weight_format(rng, codec);
      const int64_t m = 3, n = 9, k = between(rng, 1, 300);
      if (!divides({fw, fx, n, k})) continue;
      const OwnedTensor x = random_tensor(rng, fx, m, k), w = random_tensor(rng, fw, n, k);
      const Result y = reference(x, w);
      std::vector<float> xv(static_cast<size_t>(k)), wv(xv);
      for (int64_t i = 0; i < m; ++i) {
        info(fx.codec).decode(x.tensor, i, 0, k, xv.data());
        for (int64_t j = 0; j < n; ++j) {
          info(fw.codec).decode(w.tensor, j, 0, k, wv.data());
          double sum = 0, magnitude = 0;
          for (size_t c = 0; c < size_t(k); ++c) {
            const double offset =
                info(fw.codec).linear ? info(fw.codec).affine(w.tensor, j, w.tensor.group_of(int64_t(c))).offset : 0;
            sum += double(xv[c]) * wv[c];
            magnitude += std::fabs(xv[c]) * (std::fabs(wv[c] - offset) + std::fabs(offset));
          }
          const double bound = (2.0 * double(k) + 12) * std::ldexp(1.0, -24) * magnitude;
          EXPECT_NEAR(y.at(i, j), sum, bound) << describe(x) << " " << describe(w);
        }
      }
    }
  }
}

// Int32 sums at the extremes of the codes equal 64-bit ones.
TEST_F(Matmul, ExtremeCodesDoNotOverflow) {
  for (const Format& fw : {Format{id<Int8>}, Format{id<UInt8O>}, Format{id<Int4Z>}, Format{id<TwoLevel4>, 64}}) {
    for (const int64_t k : {int64_t(1536), int64_t(65536)}) {
      OwnedTensor x = make_tensor({id<Int8>}, 9, k), w = make_tensor(fw, 17, k);
      for (int64_t m = 0; m < 9; ++m) {
        std::memset(x.tensor.data.row<int8_t>(m), m % 2 ? 127 : -128, size_t(k));
        *x.tensor.scale.row<float>(m) = 1.0f;
      }
      for (int64_t n = 0; n < 17; ++n) {
        std::memset(w.tensor.data.row<int8_t>(n),
                    n % 3 == 0   ? 0x80
                    : n % 3 == 1 ? 0xff
                                 : 0x7f,
                    size_t(info(fw.codec).row_bytes(k, 1).data));
        if (fw.codec == id<UInt8O>) {
          w.tensor.scale.row<uint16_t>(n)[0] = 0x3c00;
        } else {
          w.tensor.scale.row<float>(n)[0] = 1.0f;
        }
        if (fw.codec == id<Int4Z>) w.tensor.aux.row<uint8_t>(n)[0] = n % 2 ? 15 : 0;
        for (int64_t g = 0; fw.codec == id<TwoLevel4> && g < w.tensor.groups(); ++g) {
          w.tensor.aux.row<uint8_t>(n)[2 * g] = n % 2 ? 16 : 1;
          w.tensor.aux.row<int8_t>(n)[2 * g + 1] = n % 2 ? -119 : 112;
        }
      }
      const Result y = reference(x, w);
      std::vector<int16_t> codes(static_cast<size_t>(k));
      for (int64_t n = 0; n < 17; ++n) {
        info(fw.codec).codes(w.tensor, n, 0, k, codes.data());
        int64_t sum = 0;
        for (const int16_t c : codes) sum += c;
        EXPECT_EQ(y.at(0, n), float(-128 * sum)) << to_string(fw) << " " << n;
        EXPECT_EQ(y.at(1, n), float(127 * sum)) << to_string(fw) << " " << n;
      }
      compare_kernels(x, w, {}, y);
    }
  }
}

// A row's result is the same alone and in any batch, whatever kernel is chosen.
TEST_F(Matmul, RowsDoNotDependOnTheBatch) {
  Rng rng(4);
  for (const Format& fw : {Format{id<F32>}, Format{id<BF16>}, Format{id<Int8>}, Format{id<Int4Z>, 64},
                           Format{id<Q4_1>, 32}, Format{id<E4M3>}}) {
    for (const Format& fx : {Format{id<F32>}, Format{id<Int8>}, Format{id<Int8>, 32}}) {
      const OwnedTensor x = random_tensor(rng, fx, 21, 320), w = random_tensor(rng, fw, 50, 320);
      const Context ctx = context(default_isa(), 2);
      const PackedWeight packed = pack_weight(ctx, {w}, fx, choose_layout({fw, fx, 50, 320}, ctx.isa));
      const Result all = run(ctx, x, packed, {});
      for (const int64_t begin : {0, 1, 13, 20}) {
        for (const int64_t count : {int64_t(1), 21 - begin}) {
          const Result some = run(ctx, rows_of(x, begin, count), packed, {});
          for (int64_t m = 0; m < count; ++m) {
            for (int64_t n = 0; n < 50; ++n)
              EXPECT_EQ(some.at(m, n), all.at(begin + m, n)) << to_string(fw) << " " << m;
          }
        }
      }
    }
  }
}

// Kernels that start early read weights before they wait for what runs: what was packed just before must be there.
TEST_F(Matmul, WeightsArePackedBeforeTheyAreRead) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  const Context ctx = machines.gpu();
  Rng rng(9);
  OnGpu gpu(ctx);
  const int64_t n = 4096, k = 1024, m = 3;
  const Format format{id<Int8>};
  const OwnedTensor x = random_tensor(rng, format, m, k);
  const OwnedTensor w[2] = {random_tensor(rng, format, n, k), random_tensor(rng, format, n, k)};
  const Tensor x_there = gpu.in(x), w_there[2] = {gpu.in(w[0]), gpu.in(w[1])};
  std::vector<float> zeros(size_t(m * n)), wanted[2] = {zeros, zeros};
  std::vector<Tensor> y;
  for (int i = 0; i < 20; ++i) y.push_back(gpu.in(f32_view(zeros, m, n)));
  const MatmulProblem problem{format, format, n, k};
  PackedWeight packed = empty_weight(problem, choose_layout(problem, ctx.isa, Device::cuda), Device::cuda);
  for (size_t i = 0; i < y.size(); ++i) {
    pack_slice(ctx, w_there[i % 2], 0, packed);
    matmul(ctx, x_there, packed, y[i]);
  }
  for (int i = 0; i < 2; ++i) {
    const Context cpu = machines.context();
    matmul(cpu, x, pack_weight(cpu, {w[i]}, format, nullptr), f32_view(wanted[i], m, n));
  }
  for (size_t i = 0; i < y.size(); ++i)
    EXPECT_EQ(quire::first_difference(decoded(gpu.back(y[i])), wanted[i % 2]), "") << i;
}

// cuBLAS is taken for many rows of a large matrix, and never by a deterministic context.
TEST_F(Matmul, TheLibraryIsForManyRows) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  Context ctx = machines.gpu_with_blas();
  if (!ctx.blas) GTEST_SKIP() << "NO CUBLAS: " << machines.why_no_blas;
  Rng rng(8);
  OnGpu gpu(ctx);
  const int64_t n = 2048, k = 2304;
  for (const Format& fw : {Format{id<F16>}, Format{id<Int4Z>, 64}, Format{id<Int8>}}) {
    const Format fx = {fw.codec == id<Int8> ? id<Int8> : id<F16>};
    const bool exact = fx.codec == id<Int8>;
    const OwnedTensor x = random_tensor(rng, fx, 600, k), w = random_tensor(rng, fw, n, k);
    const Tensor x_there = gpu.in(x);
    const PackedWeight packed = pack_weight(ctx, {gpu.in(w)}, fx, choose_layout({fw, fx, n, k}, ctx.isa, Device::cuda));
    const auto product = [&](int64_t m, bool deterministic, const char* kernel) {
      ctx.deterministic = deterministic;
      std::vector<float> y(size_t(m * n), 0.0f);
      const Tensor there = gpu.in(f32_view(y, m, n));
      matmul(ctx, rows_of(x_there, 0, m), packed, there, {}, kernel);
      return decoded(gpu.back(there));
    };
    const char *own = exact ? "mma_bytes" : "mma_halfs", *library = exact ? "blas_bytes" : "blas_halfs";
    const std::vector<float> all = product(600, false, own);
    EXPECT_EQ(quire::first_difference(product(600, false, ""), product(600, false, library)), "") << to_string(fw);
    EXPECT_EQ(quire::first_difference(product(600, true, ""), all), "") << to_string(fw);
    EXPECT_EQ(quire::first_difference(product(7, false, "").data(), all.data(), 7 * n), "") << to_string(fw);
    EXPECT_EQ(product(600, false, library) == all, exact) << to_string(fw);
  }
}

// int4 is int8 with small codes.
TEST_F(Matmul, FourBitsThroughEightAreTheSame) {
  Rng rng(5);
  for (const Format& fx : {Format{id<Int8>}, Format{id<Int8>, 64}}) {
    const OwnedTensor x = random_tensor(rng, fx, 5, 192), w4 = random_tensor(rng, {id<Int4>, 64}, 40, 192);
    OwnedTensor w8 = make_tensor({id<Int8>, 64}, 40, 192);
    for (int64_t n = 0; n < 40; ++n) {
      int16_t codes[192];
      info(id<Int4>).codes(w4.tensor, n, 0, 192, codes);
      for (int64_t k = 0; k < 192; ++k) w8.tensor.data.row<int8_t>(n)[k] = int8_t(codes[k]);
      for (int64_t g = 0; g < 3; ++g) w8.tensor.scale.row<float>(n)[g] = w4.tensor.scale.row<float>(n)[g];
    }
    EXPECT_EQ(first_difference(reference(x, w4), reference(x, w8)), "");
    compare_kernels(x, w4, {}, reference(x, w8));
  }
}

TEST_F(Matmul, TheResidualMayBeTheOutput) {
  Rng rng(6);
  for (const Format& fx : {Format{id<F32>}, Format{id<Int8>, 32}}) {
    const OwnedTensor x = random_tensor(rng, fx, 11, 600), w = random_tensor(rng, {id<Int8>}, 37, 600);
    Result y(11, 37);
    const std::vector<float> start = normal(rng, int64_t(y.data.size()));
    const Result expected = reference(x, w, {nullptr, start.data()});
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (isa > default_isa()) continue;
      const Context ctx = context(isa, 2);
      y.data = start;
      const PackedWeight packed = pack_weight(ctx, {w}, fx, choose_layout({{id<Int8>}, fx, 37, 600}, isa));
      matmul(ctx, x, packed, y.tensor(), {nullptr, y.data.data()});
      scratch.reset();
      for (int64_t m = 0; m < 11; ++m) {
        for (int64_t n = 0; n < 37; ++n) EXPECT_EQ(y.at(m, n), expected.at(m, n));
        for (int64_t n = 37; n < y.ld; ++n) EXPECT_EQ(y.at(m, n), start[size_t(m * y.ld + n)]);
      }
    }
  }
}

TEST_F(Matmul, StaticAndSharedScalesAreRead) {
  Rng rng(7);
  OwnedTensor x = random_tensor(rng, {id<Int8>}, 6, 128), w = random_tensor(rng, {id<Int8>}, 64, 128);
  x.tensor.scale.pitch = 0;  // one scale for all rows
  w.tensor.scale.rows = 32;  // one for 32 rows
  Result y = reference(x, w);
  compare_kernels(x, w, {}, y);
  const float sx = *x.tensor.scale.row<float>(0);
  std::vector<int16_t> xc(128), wc(128);
  info(id<Int8>).codes(x.tensor, 5, 0, 128, xc.data());
  info(id<Int8>).codes(w.tensor, 63, 0, 128, wc.data());
  int32_t acc = 0;
  for (size_t k = 0; k < 128; ++k) acc += xc[k] * wc[k];
  EXPECT_EQ(y.at(5, 63), float(acc) * sx * w.tensor.scale.row<float>(32)[0]);
}

}  // namespace
}  // namespace quire
