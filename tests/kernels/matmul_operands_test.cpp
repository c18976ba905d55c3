// Matmuls of empty operands, of wrong ones, and what they leave in the scratch.
#include <gmock/gmock.h>

#include "tests/expect_error.h"
#include "tests/kernels/matmul_cases.h"

namespace quire {
namespace {

TEST_F(Matmul, EmptyOperandsAreNothing) {
  const Context ctx = context(default_isa());
  const OwnedTensor w = make_tensor({id<F32>}, 3, 0), none = make_tensor({id<F32>}, 0, 0),
                    x = make_tensor({id<F32>}, 2, 0);
  const float bias[] = {1, 2, 3};
  for (const WeightLayout* layout :
       {(const WeightLayout*)nullptr, choose_layout({{id<F32>}, {id<F32>}, 3, 0}, ctx.isa)}) {
    const PackedWeight packed = pack_weight(ctx, {w}, {id<F32>}, layout);
    EXPECT_TRUE(run(ctx, none, packed, {}).data.empty());
    const Result y = run(ctx, x, packed, {}, {bias, nullptr});
    for (int64_t n = 0; n < 3; ++n) EXPECT_EQ(y.at(1, n), bias[n]);
  }
}

TEST_F(Matmul, ScratchIsGivenBack) {
  const Context ctx = context(default_isa());
  const OwnedTensor w = make_tensor({id<Int8>}, 8, 70), x = make_tensor({id<Int8>, 35}, 5000, 70);
  const PackedWeight packed =
      pack_weight(ctx, {w}, {id<Int8>, 35}, choose_layout({{id<Int8>}, {id<Int8>, 35}, 8, 70}, ctx.isa));
  Result y(5000, 8);
  matmul(ctx, x, packed, y.tensor());
  const size_t held = scratch.capacity();
  for (int i = 0; i < 20; ++i) matmul(ctx, x, packed, y.tensor());
  EXPECT_EQ(scratch.capacity(), held);
}

TEST_F(Matmul, WrongOperandsAreRefused) {
  using testing::HasSubstr;
  const Context ctx = context(default_isa());
  const OwnedTensor w = make_tensor({id<Int8>, 32}, 8, 64), x = make_tensor({id<F32>}, 2, 64);
  const PackedWeight packed = pack_weight(ctx, {w}, {id<F32>}, nullptr);
  Result y(2, 8);
  const auto error = [&](const Tensor& xs, const Tensor& ys, std::string_view kernel) {
    return error_of([&] { matmul(ctx, xs, packed, ys, {}, kernel); });
  };
  EXPECT_EQ(error(x, y.tensor(), {}), "");
  EXPECT_THAT(error(make_tensor({id<F32>}, 2, 63), y.tensor(), {}), HasSubstr("x must have 64 columns"));
  EXPECT_THAT(error(make_tensor({id<F16>}, 2, 64), y.tensor(), {}), HasSubstr("packed for x in f32, not f16"));
  EXPECT_THAT(error(x, Result(2, 9).tensor(), {}), HasSubstr("must be f32 (2, 8)"));
  EXPECT_THAT(error(x, make_tensor({id<F16>}, 2, 8), {}), HasSubstr("must be f32 (2, 8)"));
  EXPECT_THAT(error(x, y.tensor(), "fastest"), HasSubstr("unknown kernel 'fastest'"));
  EXPECT_THAT(error(x, y.tensor(), "int_bytes_avx2"),
              testing::AnyOf(HasSubstr("needs avx2"), HasSubstr("reads byte_panels")));
  Tensor elsewhere = x;
  elsewhere.device = Device::cuda;
  EXPECT_THAT(error(elsewhere, y.tensor(), {}), HasSubstr("not on the device"));
  const auto pack_error = [&](const std::vector<Tensor>& parts, Format fx, const WeightLayout* layout) {
    return error_of([&] { pack_weight(ctx, parts, fx, layout); });
  };
  EXPECT_THAT(pack_error({w}, {id<Int8>, 48}, nullptr), HasSubstr("one must divide the other"));
  EXPECT_THAT(pack_error({w, make_tensor({id<Int8>}, 8, 64)}, {id<Int8>}, nullptr), HasSubstr("differ in format"));
  EXPECT_THAT(pack_error({make_tensor({id<Int8>}, 1, 70000)}, {id<Int8>}, nullptr), HasSubstr("at most 65536"));
  EXPECT_THAT(pack_error({}, {id<Int8>}, nullptr), HasSubstr("no parts"));
}

}  // namespace
}  // namespace quire
