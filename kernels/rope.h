// Rotary position embedding (RoFormer, arXiv 2104.09864), half-split pairs: dims i and i + R/2 of a head rotate
// together.
#pragma once
#include <vector>

#include "kernels/context.h"

namespace quire {

// theta^(-2i/R) for i < R/2, rounded to f32, as the models were trained.
std::vector<float> rope_frequencies(int64_t rope_dim, double theta);

// cos and sin of position * frequency for the positions a context can have, times `amplitude`. The angle is rounded to
// f32, as the models were trained with; cos and sin of that are exact to f32.
class RopeTable {
 public:
  RopeTable(int64_t positions, const std::vector<float>& frequencies, float amplitude = 1.0f);  // (R/2)
  RopeTable(int64_t positions, int64_t rope_dim, double theta)
      : RopeTable(positions, rope_frequencies(rope_dim, theta)) {}
  const float* cos(int64_t position) const { return values_.data() + position * dim_; }
  const float* sin(int64_t position) const { return values_.data() + position * dim_ + dim_ / 2; }
  int64_t positions() const { return positions_; }
  int64_t dim() const { return dim_; }
  void upload(cuda::StreamHandle stream);                                                    // once, for a GPU
  const float* on_device() const { return reinterpret_cast<const float*>(device_.data()); }  // (positions, 2, R/2)

 private:
  int64_t positions_, dim_;
  std::vector<float> values_;  // (positions, 2, R/2)
  Buffer device_;
};

// Rotates `heads` heads of head_dim channels in place in x (T, >= heads * head_dim) f32; only the first table.dim()
// dims of a head. positions (T); on a GPU they are not checked.
void rope(const Context& ctx, const Tensor& x, int64_t heads, int64_t head_dim, const int32_t* positions,
          const RopeTable& table);

}  // namespace quire
