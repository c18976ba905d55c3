// Matrix products of NVIDIA's cuBLAS. It is opened when it is first asked for: programs start, and run on their own
// kernels, where it is not installed.
#pragma once
#include <memory>
#include <string>

#include "base/cuda/runtime.h"

namespace quire::cuda {

// y (M, N) = x (M, K) w (N, K)^T. ld*: numbers from row to row.
struct BlasShape {
  int64_t m, n, k, ldx, ldw, ldy;
};

class Blas {
 public:
  // What one holds on the device, from its beginning to its end: products allocate nothing.
  static constexpr int64_t kWorkspaceBytes = int64_t(32) << 20;
  static bool is_here();  // whether there is a library
  // For the current device and this stream. Null if there is no library; `why` (may be null) then says what was tried.
  static std::shared_ptr<const Blas> open(StreamHandle stream, std::string* why = nullptr);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  // f16 or bf16, summed in f32. add: y += instead of y =.
  void halfs(bool bf16, const std::byte* x, const std::byte* w, float* y, const BlasShape& shape, bool add) const;
  // int8, exact. k is a multiple of 4, n and the leading dimensions of 16.
  void bytes(const std::byte* x, const std::byte* w, int32_t* y, const BlasShape& shape) const;

 private:
  Blas() = default;
  void* handle_ = nullptr;
  std::byte* workspace_ = nullptr;
};

}  // namespace quire::cuda
