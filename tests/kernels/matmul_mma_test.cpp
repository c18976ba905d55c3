// The tensor-core matmul over frag8 and frag16 against the CPU's reference.
#include "kernels/cuda/matmul_mma.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/frag_pack.h"
#include "kernels/matmul.h"
#include "tests/kernels/frag_cases.h"

namespace quire {
namespace {

#if QUIRE_WITH_CUDA

// Memory on the device with a copy of something.
struct OnDevice {
  std::byte* data = nullptr;
  size_t size = 0;
  OnDevice(const void* from, size_t bytes) : data(cuda::allocate(std::max<size_t>(bytes, 16))), size(bytes) {
    cuda::copy_async(data, from, bytes, nullptr);
    cuda::synchronize(nullptr);
  }
  template <class T>
  explicit OnDevice(const std::vector<T>& v) : OnDevice(v.data(), v.size() * sizeof(T)) {}
  ~OnDevice() { cuda::release(data); }
  OnDevice(const OnDevice&) = delete;
  template <class T>
  std::vector<T> back() const {
    std::vector<T> v(size / sizeof(T));
    cuda::copy_async(v.data(), data, size, nullptr);
    cuda::synchronize(nullptr);
    return v;
  }
};

// The canonical rows on the device, packed there.
std::vector<std::byte> packed_there(const FragShape& s, const OwnedTensor& w) {
  const OnDevice memory(w.buffer.data(), w.buffer.size());
  Tensor there = w.tensor;
  for (Plane* p : {&there.data, &there.high, &there.scale, &there.aux}) {
    if (p->ptr) p->ptr = memory.data + (p->ptr - w.buffer.data());
  }
  const OnDevice out(std::vector<std::byte>(size_t(s.bytes()), std::byte(0xff)));
  cuda::frag_pack(s, there, 0, out.data, nullptr);
  return out.back<std::byte>();
}

class MmaMatmulTest : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "NO GPU: " << cuda::why_no_device();
    counters = std::make_unique<OnDevice>(std::vector<int32_t>(cuda::kMmaCounters));
    partials = std::make_unique<OnDevice>(std::vector<std::byte>(size_t(cuda::mma_workspace_bytes()), std::byte(0x5a)));
  }
  std::unique_ptr<OnDevice> counters, partials;
  Machines machines;

  std::vector<float> reference(const Tensor& x, const Tensor& w, const Epilogue& e) {
    const Context ctx = machines.context(default_isa(), 3);
    std::vector<float> y(size_t(x.rows * w.rows));
    matmul(ctx, x, pack_weight(ctx, {w}, format_of(x), nullptr), f32_view(y, x.rows, w.rows), e, "reference");
    ctx.scratch->reset();
    return y;
  }
};

// x as the kernels take it: rows on 16 bytes, what pads them is not zero.
struct DeviceX {
  int64_t pitch;
  std::vector<std::byte> rows;
  DeviceX(const Tensor& x) {
    const int64_t bytes = info(x.codec).row_bytes(x.cols, x.groups()).data;
    pitch = (bytes + 15) / 16 * 16 + 16;
    rows.assign(size_t(pitch * x.rows), std::byte(0x71));
    for (int64_t r = 0; r < x.rows; ++r) std::memcpy(rows.data() + r * pitch, x.data.row<std::byte>(r), size_t(bytes));
  }
};

constexpr int64_t kMargin = 5;

struct Operands {
  const FragShape& shape;
  const Tensor& x;
  const OnDevice &w, &rows;
  int64_t pitch;
  const std::vector<float>&bias, &residual;  // residual: (M, N + margin)
  bool with_bias, with_residual;
};

std::vector<float> run(const Operands& o, int64_t m, const cuda::MmaWorkspace& workspace, cuda::MmaForce force) {
  const Tensor& x = o.x;
  const int64_t ld = o.shape.n + kMargin;
  std::vector<float> sx(size_t(m * x.groups()));
  const int64_t segment = o.shape.segment > 0 ? o.shape.segment : x.cols, segments = (x.cols + segment - 1) / segment;
  std::vector<int32_t> sums(size_t(m * segments));
  for (int64_t i = 0; i < m && x.scale.ptr; ++i) {
    std::memcpy(&sx[size_t(i * x.groups())], x.scale.row<float>(i), size_t(x.groups()) * 4);
    for (int64_t c = 0; c < x.cols && x.codec == id<Int8>; ++c)
      sums[size_t(i * segments + c / segment)] += x.data.row<int8_t>(i)[c];
  }
  const OnDevice sx_there(sx), sums_there(sums), bias(o.bias), residual(o.residual);
  const OnDevice y(std::vector<float>(size_t(m * ld), std::nanf("")));
  cuda::MmaMatmul op;
  op.shape = o.shape;
  op.w = o.w.data;
  op.x_type = x.codec == id<Int8>   ? cuda::MmaX::int8
              : x.codec == id<F16>  ? cuda::MmaX::f16
              : x.codec == id<BF16> ? cuda::MmaX::bf16
                                    : cuda::MmaX::e4m3;
  op.x = o.rows.data;
  op.x_pitch = o.pitch;
  op.sx = x.scale.ptr ? reinterpret_cast<const float*>(sx_there.data) : nullptr;
  op.sx_pitch = x.groups();
  op.x_group = x.group;
  op.sums = reinterpret_cast<const int32_t*>(sums_there.data);
  op.sums_pitch = segments;
  op.y = reinterpret_cast<float*>(y.data);
  op.ldy = ld;
  op.bias = o.with_bias ? reinterpret_cast<const float*>(bias.data) : nullptr;
  op.residual = o.with_residual ? reinterpret_cast<const float*>(residual.data) : nullptr;
  op.m = m;
  cuda::mma_matmul(op, workspace, nullptr, force);
  const std::vector<float> all = y.back<float>();
  std::vector<float> out;
  for (int64_t i = 0; i < m; ++i) {
    out.insert(out.end(), all.begin() + i * ld, all.begin() + i * ld + o.shape.n);
    for (int64_t c = o.shape.n; c < ld; ++c) EXPECT_TRUE(std::isnan(all[size_t(i * ld + c)])) << "margin of row " << i;
  }
  return out;
}

TEST_F(MmaMatmulTest, PacksAsTheHostDoes) {
  Rng rng(3);
  for (const Pair& p : pairs()) {
    const int64_t n = between(rng, 1, 200), k = (between(rng, 1, 400) + 31) / 32 * 32;
    const OwnedTensor w = random_operand(rng, p.w, n, k);
    const FragShape s = *frag_shape(p.w, p.x, n, k);
    EXPECT_TRUE(packed(s, w) == packed_there(s, w)) << describe(w);
  }
}

// Every tile shape and split, odd sizes: integers equal the reference bit for bit. With float activations the tensor
// core adds 17 terms a step, each cut off at 2^-23 of the largest: 17/16 k 2^-23 in all, the reference rounds k sums,
// and the folds; the same bits for every tile shape and number of rows.
TEST_F(MmaMatmulTest, EqualsTheReference) {
  Rng rng(4);
  const cuda::MmaWorkspace workspace{reinterpret_cast<int32_t*>(counters->data), partials->data};
  for (const Pair& p : pairs()) {
    for (int trial = 0; trial < 2; ++trial) {
      const int64_t most = trial ? 37 : 300, n = between(rng, 1, trial ? 700 : 200);
      const int64_t k = info(p.w.codec).align > 1 || p.w.group > 0 ? between(rng, 1, 40) * 32 : between(rng, 1, 1100);
      const OwnedTensor x = random_operand(rng, p.x, most, k), w = random_operand(rng, p.w, n, k);
      const std::vector<float> bias = normal(rng, n), residual = normal(rng, most * (n + kMargin));
      const FragShape s = *frag_shape(p.w, p.x, n, k);
      const OnDevice there(packed(s, w));
      const DeviceX rows(x);
      const OnDevice rows_there(rows.rows);
      const bool with_bias = rng() % 2, with_residual = rng() % 2;
      const Operands o{s, x, there, rows_there, rows.pitch, bias, residual, with_bias, with_residual};
      std::vector<float> packed_residual;
      for (int64_t m = 0; m < most; ++m) {
        packed_residual.insert(packed_residual.end(), residual.begin() + m * (n + kMargin),
                               residual.begin() + m * (n + kMargin) + n);
      }
      const Epilogue e{with_bias ? bias.data() : nullptr, with_residual ? packed_residual.data() : nullptr};
      std::vector<float> expected = reference(x, w, e);
      const std::string what = fmt::format("x {} w {}", describe(x), describe(w));
      if (p.x.codec != id<Int8>) {
        const std::vector<float> y = run(o, most, workspace, {});
        const std::vector<float> xv = decoded(x), wv = decoded(w);
        int64_t wrong = 0;
        for (int64_t i = 0; i < most * n; ++i) {
          double magnitude = 0, extra = 0;
          for (int64_t c = 0; c < k; ++c)
            magnitude += std::fabs(double(xv[size_t(i / n * k + c)]) * wv[size_t(i % n * k + c)]);
          if (e.bias) extra += std::fabs(bias[size_t(i % n)]);
          if (e.residual) extra += std::fabs(packed_residual[size_t(i)]);
          const double bound = ((3.125 * double(k) + 16) * magnitude + 4 * extra) * 0x1.0p-24 + 1e-30;
          wrong += !(std::fabs(double(y[size_t(i)]) - expected[size_t(i)]) <= bound);
        }
        EXPECT_EQ(wrong, 0) << what;
        expected = y;
      }
      for (const int tokens : {0, 8, 16, 32, 64, 128, 256}) {
        for (const int split : {-1, 0, 1}) {
          for (const int64_t m : {int64_t(1), between(rng, 2, 17), most}) {
            const int blocks = int(rng() % 3 ? rng() % 200 : 0), tile_rows = split < 0 ? 0 : int(16u << rng() % 3);
            const std::vector<float> y = run(o, m, workspace, {tokens, tile_rows, blocks, split});
            EXPECT_EQ(first_difference(y.data(), expected.data(), m * n), "")
                << what << " M " << m << " tokens " << tokens << " rows " << tile_rows << " blocks " << blocks
                << " split " << split;
          }
        }
      }
      const std::vector<int32_t> left = counters->back<int32_t>();
      EXPECT_EQ(std::count(left.begin(), left.end(), 0), int64_t(left.size())) << what;
    }
  }
}

// Whatever tile M brings, and whoever the neighbours are, a row's result is the same bits.
TEST_F(MmaMatmulTest, EveryNumberOfRowsGivesTheSameBits) {
  Rng rng(5);
  const cuda::MmaWorkspace workspace{reinterpret_cast<int32_t*>(counters->data), partials->data};
  const Format int8{id<Int8>};
  const Pair cases[] = {{{id<Int8>}, int8},
                        {{id<Int4Z>}, int8},
                        {{id<TwoLevel4>, 64}, int8},
                        {{id<Int4Z>, 128}, int8},
                        {{id<Int8>, 64}, {id<Int8>, 64}},
                        {{id<Q4_1>, 32}, {id<Int8>, 32}},
                        {{id<Int4Z>, 64}, {id<F16>}},
                        {{id<F16>}, {id<F16>}}};
  for (const Pair& p : cases) {
    const int64_t most = 305, n = 330, k = 1120;
    const OwnedTensor x = random_operand(rng, p.x, most, k), w = random_operand(rng, p.w, n, k);
    const FragShape s = *frag_shape(p.w, p.x, n, k);
    const OnDevice there(packed(s, w));
    const DeviceX rows(x);
    const OnDevice rows_there(rows.rows);
    const std::vector<float> none(size_t(most * (n + kMargin)), 0.0f);
    const Operands o{s, x, there, rows_there, rows.pitch, none, none, false, false};
    const std::vector<float> expected = p.x.codec == id<Int8> ? reference(x, w, {}) : run(o, most, workspace, {});
    for (int64_t m = 1; m <= most; ++m) {
      const std::vector<float> y = run(o, m, workspace, {});
      ASSERT_EQ(first_difference(y.data(), expected.data(), m * n), "") << describe(w) << " M " << m;
    }
  }
}

#endif

}  // namespace
}  // namespace quire
