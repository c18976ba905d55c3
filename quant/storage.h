// Tensors that own their memory, on either device.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "base/cuda/runtime.h"
#include "quant/formats.h"

namespace quire {

struct BufferFree {
  size_t mapped = 0;  // bytes, if it was mapped rather than allocated
  Device device = Device::cpu;
  void operator()(std::byte* p) const;
};

// Memory on a device, zeroed. On the host 64-byte aligned, and large ones come as untouched pages: what is never used
// takes no memory. Error names the size if there is not enough.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes, Device device = Device::cpu);
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }
  Device device() const { return data_.get_deleter().device; }
  // All of it will be used, over and over: large pages, where the system has them, spare it misses of translation. To
  // be called before it is written.
  void use_large_pages() const;

 private:
  std::unique_ptr<std::byte, BufferFree> data_;
  size_t size_ = 0;
};

struct OwnedTensor {
  Tensor tensor;
  Buffer buffer;
  operator const Tensor&() const { return tensor; }
};

// Canonical storage: row-major planes one after the other, each row of data on `row_align` bytes, `span` rows a scale.
// `sums`: an int8 activation's aux plane of int32 code sums per group.
struct StorageOptions {
  int64_t row_align = 1;
  int32_t span = 1;
  Order order = Order::natural;
  bool sums = false;
  Device device = Device::cpu;
};
OwnedTensor make_tensor(Format format, int64_t rows, int64_t cols, StorageOptions options = {});

// The same layout over memory that is already there (at least storage_bytes), e.g. a scratch arena.
int64_t storage_bytes(Format format, int64_t rows, int64_t cols, StorageOptions options = {});
Tensor place_tensor(std::byte* memory, Format format, int64_t rows, int64_t cols, StorageOptions options = {});

// The planes of a tensor from one device to the other, bit for bit: `to` has the planes of `from` (copy_tensor), or is
// made so (tensor_on). In stream order where a GPU takes part; the host's side must live until the stream is done.
void copy_tensor(const Tensor& from, const Tensor& to, cuda::StreamHandle stream = nullptr);
OwnedTensor tensor_on(Device device, const Tensor& from, cuda::StreamHandle stream = nullptr);

// The memory of each plane that a tensor has, with what lies between its rows; where the same planes lie one after the
// other in other memory (planes_bytes of it).
std::vector<std::span<std::byte>> plane_memory(const Tensor& t);
int64_t planes_bytes(const Tensor& t);
Tensor planes_at(const Tensor& from, std::byte* memory, Device device);

}  // namespace quire
