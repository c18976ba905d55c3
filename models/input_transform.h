// A checkpoint's InputTransform as a Linear runs it.
#pragma once
#include <memory>
#include <optional>

#include "kernels/hadamard.h"
#include "models/checkpoint.h"

namespace quire {

std::string describe(const InputTransform& transform);  // "columns in order"

class LoadedTransform {
 public:
  LoadedTransform() = default;  // none
  // Null: none. Error unless it is one of `cols` columns.
  LoadedTransform(const Context& ctx, std::shared_ptr<const InputTransform> transform, int64_t cols);
  explicit operator bool() const { return transform_ != nullptr; }
  // x (T, K) f32 as the weight's columns want it, in scratch.
  Tensor apply(const Context& ctx, const Tensor& x) const;

 private:
  std::shared_ptr<const InputTransform> transform_;
  Buffer device_order_;  // of transform_->order, on a GPU
  std::optional<Hadamard> hadamard_;
};

}  // namespace quire
