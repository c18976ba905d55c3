#include "models/input_transform.h"

#include "kernels/permute.h"
#include "kernels/row_ops.h"

namespace quire {

namespace {

template <class T>
Buffer on_device(const Context& ctx, const std::vector<T>& values) {
  Buffer buffer(values.size() * sizeof(T), Device::cuda);
  if constexpr (kCuda) cuda::copy_async(buffer.data(), values.data(), buffer.size(), ctx.stream);
  return buffer;
}

// A block of threads holds all values that are transformed together.
void check_order(const Context& ctx, int64_t order) {
  if constexpr (kCuda) {
    if (ctx.device != Device::cuda) return;
    const int64_t most = cuda::device_info(cuda::current_device()).shared_per_block;
    check(
        order * int64_t(sizeof(float)) <= most,
        "a Hadamard transform of {} values needs {} bytes of shared memory, and this GPU has {}; --device cpu runs it",
        order, order * sizeof(float), most);
  }
}

}  // namespace

LoadedTransform::LoadedTransform(const Context& ctx, std::shared_ptr<const InputTransform> transform, int64_t cols)
    : transform_(std::move(transform)) {
  if (!transform_) return;
  const auto& order = transform_->order;
  check(order.empty() || int64_t(order.size()) == cols, "an order of {} columns does not fit a matrix of {}",
        order.size(), cols);
  for (const int32_t c : order) check(c >= 0 && c < cols, "column {} is in no matrix of {} columns", c, cols);
  const auto& diagonal = transform_->diagonal;
  check(diagonal.empty() || int64_t(diagonal.size()) == cols, "{} factors do not fit a matrix of {} columns",
        diagonal.size(), cols);
  if (!diagonal.empty() && transform_->hadamard == 0) hadamard_.emplace(1);  // the diagonal alone
  if (transform_->hadamard > 0) {
    check(cols % transform_->hadamard == 0, "a Hadamard transform of {} does not fit a matrix of {} columns",
          transform_->hadamard, cols);
    if (transform_->signs.empty()) {
      hadamard_.emplace(transform_->hadamard);
    } else {
      hadamard_.emplace(transform_->hadamard, transform_->signs);
    }
  }
  if (hadamard_) check_order(ctx, hadamard_->order());
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda && hadamard_) hadamard_->upload(ctx.stream);
    if (ctx.device == Device::cuda && !order.empty()) device_order_ = on_device(ctx, order);
    if (ctx.device == Device::cuda && !diagonal.empty()) device_diagonal_ = on_device(ctx, diagonal);
  }
}

Tensor LoadedTransform::apply(const Context& ctx, const Tensor& x) const {
  const Format f32{id<F32>, 0};
  const auto empty = [&] {
    std::byte* memory = ctx.scratch->take_bytes(size_t(storage_bytes(f32, x.rows, x.cols, {.row_align = 64})));
    return place_tensor(memory, f32, x.rows, x.cols, {.row_align = 64, .device = ctx.device});
  };
  Tensor out = x;
  if (!transform_->order.empty()) {
    const bool gpu = ctx.device == Device::cuda;
    const int32_t* order = gpu ? reinterpret_cast<const int32_t*>(device_order_.data()) : transform_->order.data();
    out = empty();
    permute_columns(ctx, x, order, out);
  }
  if (hadamard_) {
    const Tensor from = out;
    out = empty();
    const bool gpu = ctx.device == Device::cuda;
    const float* diagonal = gpu ? reinterpret_cast<const float*>(device_diagonal_.data()) : transform_->diagonal.data();
    if (transform_->diagonal.empty()) diagonal = nullptr;
    quire::hadamard(ctx, from, *hadamard_, transform_->transposed, out, diagonal);
  }
  return out;
}

LoadedOutput::LoadedOutput(const Context& ctx, std::shared_ptr<const OutputTransform> transform,
                           std::vector<OutputSegment> segments)
    : transform_(std::move(transform)), segments_(std::move(segments)) {
  if (!transform_) return;
  hadamard_.emplace(int64_t(transform_->diagonal.size()));
  check_order(ctx, hadamard_->order());
  if (ctx.device == Device::cpu) return;
  hadamard_->upload(ctx.stream);
  device_diagonal_ = on_device(ctx, transform_->diagonal);
}

void LoadedOutput::apply(const Context& ctx, const Tensor& product, const Tensor& y, const Epilogue& epilogue) const {
  quire::hadamard(ctx, product, *hadamard_, false, product);
  const bool gpu = ctx.device == Device::cuda;
  const float* diagonal = gpu ? reinterpret_cast<const float*>(device_diagonal_.data()) : transform_->diagonal.data();
  for (const OutputSegment& s : segments_) {
    Epilogue part;
    if (epilogue.bias) part.bias = epilogue.bias + s.from;
    if (epilogue.residual) part.residual = epilogue.residual + s.to;
    scale_columns(ctx, cols_of(product, s.from, s.count), diagonal + s.from, cols_of(y, s.to, s.count), part);
  }
}

std::string describe(const InputTransform& transform) {
  std::string text = transform.order.empty() ? "" : "columns in order";
  if (!transform.diagonal.empty()) text += text.empty() ? "scaled" : ", scaled";
  if (transform.hadamard > 0) text += fmt::format("{}Hadamard of {}", text.empty() ? "" : ", ", transform.hadamard);
  return text;
}

std::string describe(const OutputTransform& transform) {
  return fmt::format("outputs by a Hadamard of {}, scaled", transform.diagonal.size());
}

}  // namespace quire
