// What device kernels rest on. The tests of ops run on the GPU by themselves where there is one (tests/op_test.h);
// without one this test is skipped and says why.
#include <gtest/gtest.h>

#include "tests/kernels/mma_probe.h"
#include "tests/op_test.h"

namespace quire {
namespace {

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if constexpr (kCuda) {
      if (cuda::device_count() == 0) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE: " << cuda::why_no_device();
    } else {
      GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE: built without CUDA";
    }
  }
  Machines machines_;
};

TEST_F(Gpu, IsPresent) {
  if constexpr (kCuda) {
    const cuda::DeviceInfo& device = cuda::device_info(cuda::current_device());
    EXPECT_GE(device.major, 8) << device.name;
    EXPECT_GT(device.multiprocessors, 0);
    EXPECT_GT(cuda::free_memory(), 0);
    EXPECT_LE(cuda::free_memory(), device.memory);
    EXPECT_THROW(cuda::device_info(cuda::device_count()), Error);
    EXPECT_THROW(cuda::allocate(size_t(1) << 50), Error);
  }
}

TEST_F(Gpu, HasBlas) {
  Machines machines;
  if (!machines.gpu_with_blas().blas) GTEST_SKIP() << "NO CUBLAS, ITS KERNELS ARE NOT TESTED: " << machines.why_no_blas;
}

// Codes are unpacked to subnormal halves: q * 2^-24. Tensor cores must take them as they are.
TEST_F(Gpu, TensorCoresTakeSubnormalHalvesExactly) {
  if constexpr (kCuda) {
    Rng rng(3);
    const Context ctx = machines_.gpu();
    OnGpu gpu(ctx);
    for (int round = 0; round < 20; ++round) {
      std::vector<uint16_t> a(16 * 16), b(16 * 8);
      for (uint16_t& x : a) x = uint16_t(rng() % 1024 | (rng() % 2) << 15);  // +-(0 .. 1023) * 2^-24
      for (uint16_t& x : b) x = f32_to_f16(float(int(rng() % 31) - 15));
      std::vector<float> d(16 * 8, std::nanf(""));
      const Tensor out = gpu.in(f32_view(d, 16, 8));
      cuda::mma_probe(gpu.in(a), gpu.in(b), out.data.row<float>(0), ctx.stream);
      copy_tensor(out, f32_view(d, 16, 8), ctx.stream);
      cuda::synchronize(ctx.stream);
      for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) {
          double sum = 0.0;  // below 2^18 steps of 2^-24: exact in f32 too
          for (int k = 0; k < 16; ++k) {
            sum += double(f16_to_f32(a[size_t(m * 16 + k)])) * double(f16_to_f32(b[size_t(k * 8 + n)]));
          }
          ASSERT_EQ(double(d[size_t(m * 8 + n)]), sum) << m << ", " << n;
        }
      }
    }
  }
}

}  // namespace
}  // namespace quire
