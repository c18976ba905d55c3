// y = x w^T (+ bias), with its weight packed for the activations it will meet. Several matrices that read the same x
// (q, k, v; gate, up) are one Linear: one matmul where their formats and what they do to x agree, one each where not.
#pragma once
#include <string>
#include <vector>

#include "kernels/matmul.h"
#include "models/input_transform.h"
#include "models/slice_reader.h"
#include "quant/scheme.h"

namespace quire {

// Weights beside a part's matrix, with their memory on the context's device.
struct LoadedOutliers {
  SparseRows rows;  // count 0: none
  Buffer begins, entries;
};

struct LinearPart {
  PackedWeight weight;
  LoadedOutliers outliers;
  std::vector<float> bias;
  Buffer device_bias;  // the same on a GPU
  int64_t begin = 0;   // first column of y
  LoadedTransform transform;
  float outlier_threshold = 0.0f;  // of x: see CheckpointTensor
  LoadedOutput output;
  Buffer input_scale;  // an f32 on the context's device: of static activations; empty: found at run time
};

// A part before it is loaded: what it will be and take follows from the configuration and the scheme alone.
struct PartPlan {
  std::vector<std::string> names;  // in the order of their rows
  MatmulProblem problem{};
  const WeightLayout* layout = nullptr;
  bool stored = true, aligned = true;  // in the format already; every matrix begins on a multiple of 64 rows
  bool bias = false;
  std::shared_ptr<const InputTransform> input;
  float input_scale = 0.0f;  // of static activations; 0: found at run time
  float outlier_threshold = 0.0f;
  int64_t outliers = 0;  // weights beside the matrix, added after it (kernels/sparse.h)
  std::shared_ptr<const OutputTransform> output;
  std::vector<OutputSegment> segments;  // with an output: where the product's columns go
  int64_t bytes() const;
  bool can_hold(Format weight, const CheckpointTensor& t, float scale, float threshold) const;
  std::string description() const;  // "q_proj+k_proj+v_proj: int8 x int8 in LAYOUT"
};
std::vector<PartPlan> plan_linear(const Context& ctx, const Checkpoint& checkpoint,
                                  const std::vector<std::string>& names, const Scheme& scheme, Format format);

class Linear {
 public:
  // `names`: tensors of the checkpoint without ".weight", concatenated along the output. Canonical weights in `format`,
  // or as they are in the file (native). What is packed is dropped from the checkpoint's memory, slice by slice.
  static Linear load(const Context& ctx, const Checkpoint& checkpoint, const std::vector<std::string>& names,
                     const Scheme& scheme, Format format);
  static Linear load(SliceReader& reader, const std::vector<std::string>& names, const Scheme& scheme, Format format);

  // The format x should be written in: what every part reads, or f32 if they differ (also in a static scale),
  // transform it or take outliers out of it.
  Format input() const { return input_; }
  // Scratch for x (T, K) in input(), with the scale of static activations where they are.
  Tensor input_tensor(const Context& ctx, int64_t rows) const;
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  // x (T, K) in input(), y (T, N) f32; residual (T, N) with y's pitch, or null.
  void run(const Context& ctx, const Tensor& x, const Tensor& y, const float* residual = nullptr) const;
  // Row `row` of the weight, decoded (K): an embedding tied to a packed head. On the CPU. Error where outputs are
  // transformed: no row is a row of the product then.
  void decode_row(int64_t row, float* out) const;

  int64_t bytes() const;  // in memory for the weight as it runs
  const std::vector<LinearPart>& parts() const { return parts_; }

 private:
  std::vector<LinearPart> parts_;
  std::string label_;  // "matmul q+k+v", for profiles
  Format input_;
  bool static_input_ = false;  // with the first part's scale
  int64_t n_ = 0, k_ = 0;
};

// Activations for a weight format: what the scheme says; else what the checkpoint says of the tensor, or int8 in the
// block length for GGUF blocks and f32 for the rest. Linear::load makes f32 into halfs on a GPU whose tensor cores
// multiply such weights with them: bf16 where the weights are, else f16 (which saturates at 65504).
Format activation_format(const Scheme& scheme, Format weight, const std::optional<Format>& stored = {});

}  // namespace quire
