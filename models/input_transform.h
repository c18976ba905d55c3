// A checkpoint's InputTransform and OutputTransform as a Linear runs them.
#pragma once
#include <memory>
#include <optional>

#include "kernels/hadamard.h"
#include "kernels/matmul.h"
#include "models/checkpoint.h"

namespace quire {

std::string describe(const InputTransform& transform);   // "columns in order"
std::string describe(const OutputTransform& transform);  // "outputs by a Hadamard of 960, scaled"

class LoadedTransform {
 public:
  LoadedTransform() = default;  // none
  // Null: none. Error unless it is one of `cols` columns.
  LoadedTransform(const Context& ctx, std::shared_ptr<const InputTransform> transform, int64_t cols);
  explicit operator bool() const { return transform_ != nullptr; }
  int64_t bytes() const { return transform_ ? transform_->bytes() : 0; }
  // x (T, K) f32 as the weight's columns want it, in scratch.
  Tensor apply(const Context& ctx, const Tensor& x) const;

 private:
  std::shared_ptr<const InputTransform> transform_;
  Buffer device_order_, device_diagonal_;  // of transform_, on a GPU
  std::optional<Hadamard> hadamard_;
};

// Columns [from, from + count) of a transformed product are columns [to, to + count) of y.
struct OutputSegment {
  int64_t from, to, count;
};

class LoadedOutput {
 public:
  LoadedOutput() = default;  // none
  LoadedOutput(const Context& ctx, std::shared_ptr<const OutputTransform> transform,
               std::vector<OutputSegment> segments);
  explicit operator bool() const { return transform_ != nullptr; }
  int64_t bytes() const { return transform_ ? transform_->bytes() : 0; }
  // product (T, N) f32 transformed in place, its columns to those of y (T, >= N) f32. bias (N) in the product's order,
  // residual in y's.
  void apply(const Context& ctx, const Tensor& product, const Tensor& y, const Epilogue& epilogue) const;

 private:
  std::shared_ptr<const OutputTransform> transform_;
  std::vector<OutputSegment> segments_;
  Buffer device_diagonal_;
  std::optional<Hadamard> hadamard_;
};

}  // namespace quire
