#include "models/input_transform.h"

#include "kernels/permute.h"

namespace quire {

LoadedTransform::LoadedTransform(const Context& ctx, std::shared_ptr<const InputTransform> transform, int64_t cols)
    : transform_(std::move(transform)) {
  if (!transform_) return;
  const auto& order = transform_->order;
  check(order.empty() || int64_t(order.size()) == cols, "an order of {} columns does not fit a matrix of {}",
        order.size(), cols);
  for (const int32_t c : order) check(c >= 0 && c < cols, "column {} is in no matrix of {} columns", c, cols);
  if (transform_->hadamard > 0) {
    check(cols % transform_->hadamard == 0, "a Hadamard transform of {} does not fit a matrix of {} columns",
          transform_->hadamard, cols);
    if (transform_->signs.empty()) {
      hadamard_.emplace(transform_->hadamard);
    } else {
      hadamard_.emplace(transform_->hadamard, transform_->signs);
    }
  }
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda && hadamard_) hadamard_->upload(ctx.stream);
    if (ctx.device == Device::cuda && !order.empty()) {
      device_order_ = Buffer(order.size() * sizeof(int32_t), Device::cuda);
      cuda::copy_async(device_order_.data(), order.data(), device_order_.size(), ctx.stream);
    }
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
    quire::hadamard(ctx, from, *hadamard_, false, out);
  }
  return out;
}

std::string describe(const InputTransform& transform) {
  std::string text = transform.order.empty() ? "" : "columns in order";
  if (transform.hadamard > 0) text += fmt::format("{}Hadamard of {}", text.empty() ? "" : ", ", transform.hadamard);
  return text;
}

}  // namespace quire
