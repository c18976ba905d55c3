// Tensors that own their memory (host).
#pragma once
#include <memory>

#include "quant/formats.h"

namespace quire {

struct HostFree {
  size_t mapped = 0;  // bytes, if it was mapped rather than allocated
  void operator()(std::byte* p) const;
};

// 64-byte aligned host memory, zeroed. Large ones come as untouched pages: what is never used takes no memory.
// Error names the size if there is not enough.
class HostBuffer {
 public:
  HostBuffer() = default;
  explicit HostBuffer(size_t bytes);
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  std::unique_ptr<std::byte, HostFree> data_;
  size_t size_ = 0;
};

struct OwnedTensor {
  Tensor tensor;
  HostBuffer buffer;
  operator const Tensor&() const { return tensor; }
};

// Canonical storage: row-major planes one after the other, each row of data on `row_align` bytes, `span` rows a scale.
// `sums`: an int8 activation's aux plane of int32 code sums per group.
struct StorageOptions {
  int64_t row_align = 1;
  int32_t span = 1;
  Order order = Order::natural;
  bool sums = false;
};
OwnedTensor make_tensor(Format format, int64_t rows, int64_t cols, StorageOptions options = {});

// The same layout over memory that is already there (at least storage_bytes), e.g. a scratch arena.
int64_t storage_bytes(Format format, int64_t rows, int64_t cols, StorageOptions options = {});
Tensor place_tensor(std::byte* memory, Format format, int64_t rows, int64_t cols, StorageOptions options = {});

}  // namespace quire
