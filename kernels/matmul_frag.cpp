#include "kernels/matmul_frag.h"

#include "kernels/cuda/encode.h"
#include "kernels/cuda/frag_pack.h"
#include "kernels/cuda/matmul_blas.h"
#include "kernels/cuda/matmul_choice.h"
#include "kernels/frag_pack.h"

namespace quire {

namespace {

FragShape shape_of(const MatmulProblem& p) {
  const std::optional<FragShape> shape = frag_shape(p.w, p.x, p.n, p.k);
  check(shape.has_value(), "matmul: weights in {} for activations in {} have no frag layout", to_string(p.w),
        to_string(p.x));
  return *shape;
}

template <bool kHalf>
bool supports(const MatmulProblem& p) {
  const std::optional<FragShape> shape = frag_shape(p.w, p.x, p.n, p.k);
  return shape && shape->half() == kHalf;
}
int64_t bytes(const MatmulProblem& p) { return shape_of(p).bytes(); }
void pack(const Tensor& src, const MatmulProblem& p, int64_t row0, std::byte* dst) {
  frag_pack(shape_of(p), src, row0, dst);
}
void unpack(const std::byte* src, const MatmulProblem& p, int64_t row, float* out) {
  const FragShape shape = shape_of(p);
  for (int64_t c = 0; c < p.k; ++c) out[c] = frag_value(shape, src, row, c, p.w.codec == id<BF16>);
}
void pack_on_gpu([[maybe_unused]] const Context& ctx, [[maybe_unused]] const Tensor& src,
                 [[maybe_unused]] const MatmulProblem& p, [[maybe_unused]] int64_t row0,
                 [[maybe_unused]] std::byte* dst) {
  if constexpr (kCuda) cuda::frag_pack(shape_of(p), src, row0, dst, ctx.stream);
}

[[maybe_unused]] cuda::MmaX type_of(Codec x) {
  if (x == id<Int8>) return cuda::MmaX::int8;
  if (x == id<E4M3>) return cuda::MmaX::e4m3;
  return x == id<F16> ? cuda::MmaX::f16 : cuda::MmaX::bf16;
}

// x with its rows on 16 bytes: as it is, or a copy.
[[maybe_unused]] Plane aligned_rows(const Context& ctx, const Tensor& x) {
  const int64_t size = info(x.codec).row_bytes(x.cols, x.groups()).data, pitch = (size + 15) / 16 * 16;
  if (x.data.pitch % 16 == 0 && reinterpret_cast<uintptr_t>(x.data.ptr) % 16 == 0) return x.data;
  const Plane there{ctx.scratch->take_bytes(size_t(pitch * x.rows)), pitch, 1};
  if constexpr (kCuda) {
    const cuda::PlaneCopy copy{x.data, there, size};
    cuda::copy_rows(ctx, &copy, 1, nullptr, x.rows);
  }
  return there;
}

}  // namespace

const WeightLayout kFrag8{"frag8", supports<false>, bytes, pack, unpack, pack_on_gpu};
const WeightLayout kFrag16{"frag16", supports<true>, bytes, pack, unpack, pack_on_gpu};

bool matmul_frag_supports(const MatmulProblem& p) {
  const std::optional<FragShape> shape = frag_shape(p.w, p.x, p.n, p.k);
  if constexpr (kCuda) return shape && cuda::mma_supports(*shape, type_of(p.x.codec), p.x.group);
  return false;
}

namespace {

[[maybe_unused]] cuda::MmaMatmul operands(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                                          const Epilogue& epilogue) {
  cuda::MmaMatmul op;
  op.shape = shape_of(w.problem);
  op.w = w.data.data();
  op.x_type = type_of(x.codec);
  const Plane rows = aligned_rows(ctx, x);
  check(rows.rows == 1 && x.scale.rows <= 1, "matmul: x {} has rows that share a pitch or a scale", describe(x));
  op.x = rows.ptr;
  op.x_pitch = rows.pitch;
  if (x.scale.ptr) op.sx = x.scale.row<const float>(0);
  op.sx_pitch = x.scale.pitch / 4;
  op.x_group = x.group;
  const int32_t segment = op.shape.segment;
  if (op.shape.offset && x.aux.ptr && x.group == segment) {
    op.sums = x.aux.row<const int32_t>(0);
    op.sums_pitch = x.aux.pitch / 4;
  } else if (op.shape.offset) {
    op.sums_pitch = segment > 0 ? (x.cols + segment - 1) / segment : 1;
    int32_t* sums = ctx.scratch->take<int32_t>(x.rows * op.sums_pitch);
    if constexpr (kCuda) cuda::sum_codes(rows, x.rows, x.cols, segment, sums, ctx.stream);
    op.sums = sums;
  }
  op.y = y.data.row<float>(0);
  op.ldy = y.data.pitch / 4;
  op.bias = epilogue.bias;
  op.residual = epilogue.residual;
  op.m = x.rows;
  return op;
}

}  // namespace

void matmul_frag([[maybe_unused]] const Context& ctx, [[maybe_unused]] const Tensor& x,
                 [[maybe_unused]] const PackedWeight& w, [[maybe_unused]] const Tensor& y,
                 [[maybe_unused]] const Epilogue& epilogue) {
  if constexpr (kCuda) {
    const cuda::MmaMatmul op = operands(ctx, x, w, y, epilogue);
    cuda::MmaWorkspace workspace;
    if (const int64_t partials = cuda::mma_workspace_bytes(op); partials > 0) {
      workspace.counters = reinterpret_cast<int32_t*>(ctx.scratch->zeros(cuda::kMmaCounters));
      workspace.partials = ctx.scratch->take_bytes(size_t(partials));
    }
    cuda::mma_matmul(op, workspace, ctx.stream);
  }
}

bool matmul_blas_supports(const MatmulProblem& p) {
  if constexpr (kCuda) return matmul_frag_supports(p) && cuda::blas_supports(shape_of(p));
  return false;
}

bool matmul_blas_is_faster(const Context& ctx, [[maybe_unused]] const MatmulProblem& p, [[maybe_unused]] int64_t rows) {
  if constexpr (kCuda) {
    const int multiprocessors = cuda::device_info(cuda::current_device()).multiprocessors;
    return ctx.blas && !ctx.deterministic && cuda::blas_is_faster(shape_of(p), rows, multiprocessors);
  }
  return false;
}

void matmul_blas([[maybe_unused]] const Context& ctx, [[maybe_unused]] const Tensor& x,
                 [[maybe_unused]] const PackedWeight& w, [[maybe_unused]] const Tensor& y,
                 [[maybe_unused]] const Epilogue& epilogue) {
  if constexpr (kCuda) cuda::blas_matmul(ctx, operands(ctx, x, w, y, epilogue));
}

}  // namespace quire
