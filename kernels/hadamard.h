// Orthonormal Hadamard transform of rows (QuaRot, arXiv 2404.00456; QuIP#, 2402.04396), written in the next op's
// format.
//
// An order N = K * 2^r is the product of a K x K matrix and Sylvester's: H_N[k * 2^r + t][k' * 2^r + t'] =
// H_K[k][k'] * (-1)^popcount(t & t'). K is the smallest for which there is one here, of those in Sloane's library,
// which QuIP#'s and QuaRot's programs take theirs from:
//   1;  q + 1 for a prime q = 3 mod 4 (Paley I: 12, 20, 44, 60, 108, 140, ...; not symmetric);
//   2 (q + 1) for a prime q = 1 mod 4 (Paley II: 28, 36, 124, ...; symmetric);
//   52, 156, 172 (Williamson: four symmetric circulant blocks of K / 4; not symmetric)
// One written order: butterflies (a + b, a - b) over t at distance 1, 2, 4, ...; then over k' the sum of +-v[k'] in
// order; then times the f32 1 / sqrt(N).
#pragma once
#include "kernels/context.h"

namespace quire {

class Hadamard {
 public:
  explicit Hadamard(int64_t order);  // Error if no such matrix is known here, naming the nearest order that is
  // With this K x K matrix of signs in place of the one known here. Error unless its rows are orthogonal and the order
  // is K times a power of two.
  Hadamard(int64_t order, std::vector<int8_t> base);
  static bool exists(int64_t order);

  int64_t order() const { return k_ << log2_; }
  int64_t k() const { return k_; }
  int64_t power() const { return int64_t(1) << log2_; }
  int sign(int64_t row, int64_t column) const { return base_[size_t(row * k_ + column)]; }  // of H_K: 1 or -1

  void upload(cuda::StreamHandle stream);                                                      // once, for a GPU
  const int8_t* on_device() const { return reinterpret_cast<const int8_t*>(device_.data()); }  // signs (K, K)

  // out = H in / sqrt(N), or H^T in / sqrt(N), which undoes it. in and out (N) must not overlap; in is overwritten.
  void apply(float* in, float* out, bool transpose) const;

 private:
  int64_t k_ = 1;
  int log2_ = 0;
  std::vector<int8_t> base_;  // (K, K)
  Buffer device_;
};

// y (T, D) in any format = x (T, D) f32, its columns times `diagonal` (D; on the device of the context; null: 1), every
// `h.order()` of them transformed. D is a multiple of the order. y may be x.
void hadamard(const Context& ctx, const Tensor& x, const Hadamard& h, bool transpose, const Tensor& y,
              const float* diagonal = nullptr);

}  // namespace quire
