#include "quant/storage.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace quire {

void HostFree::operator()(std::byte* p) const {
  if (mapped > 0) {
    munmap(p, mapped);
  } else {
    std::free(p);
  }
}

HostBuffer::HostBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  constexpr size_t kMapFrom = 1 << 20;
  const size_t rounded = (bytes + 63) / 64 * 64;
  void* p = nullptr;
  if (bytes >= kMapFrom && rounded >= bytes) {
    p = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) p = nullptr;
    data_ = {static_cast<std::byte*>(p), HostFree{rounded}};
  } else if (rounded >= bytes && posix_memalign(&p, 64, rounded) == 0) {
    std::memset(p, 0, rounded);
    data_ = {static_cast<std::byte*>(p), HostFree{}};
  }
  check(data_ != nullptr, "out of memory: {} bytes could not be allocated", bytes);
}

namespace {

// Lays the planes out from `memory` (which may be null to measure); returns the bytes used.
int64_t lay_out(std::byte* memory, Tensor& t, const StorageOptions& options) {
  const RowBytes bytes = info(t.codec).row_bytes(t.cols, t.groups());
  int64_t used = 0;
  const auto place = [&](Plane& plane, int64_t row_bytes, int64_t align, int32_t span) {
    if (row_bytes == 0) return;
    used = (used + 63) / 64 * 64;
    plane.pitch = (row_bytes + align - 1) / align * align;
    plane.rows = span;
    plane.ptr = memory ? memory + used : nullptr;
    used += (t.rows + span - 1) / span * plane.pitch;
  };
  place(t.data, bytes.data, options.row_align, 1);
  place(t.high, bytes.high, 1, 1);
  place(t.scale, bytes.scale, 4, options.span);
  // A codebook is shared by all rows; whoever encodes fills it first.
  const CodecInfo& codec = info(t.codec);
  if (codec.table_bytes > 0) {
    used = (used + 63) / 64 * 64;
    t.table = {memory ? memory + used : nullptr, 0, 1};
    used += codec.table_bytes * (codec.table_shared ? 1 : t.cols);
  }
  place(t.aux, options.sums ? t.groups() * 4 : bytes.aux, options.sums ? 4 : 1, options.sums ? 1 : options.span);
  return used;
}

Tensor empty(Format format, int64_t rows, int64_t cols, const StorageOptions& options) {
  check(rows >= 0 && cols >= 0 && options.span >= 1, "a tensor cannot have {} rows and {} columns", rows, cols);
  const CodecInfo& codec = info(format.codec);
  check(format.group >= 0, "a tensor cannot have groups of {}", format.group);
  check(options.order == Order::natural ||
            (codec.any_order && cols % (options.order == Order::value_tiles ? 16 : 8) == 0),
        "{} columns of {} cannot lie in another order than the natural one", cols, codec.name);
  check(!options.sums || format.codec == id<Int8>, "{} carries no sums of codes, int8 does", codec.name);
  Tensor t;
  t.codec = format.codec;
  t.group = codec.group > 0 ? codec.group : format.group;
  t.rows = rows;
  t.cols = cols;
  t.order = options.order;
  return t;
}

}  // namespace

int64_t storage_bytes(Format format, int64_t rows, int64_t cols, StorageOptions options) {
  Tensor t = empty(format, rows, cols, options);
  return lay_out(nullptr, t, options);
}

Tensor place_tensor(std::byte* memory, Format format, int64_t rows, int64_t cols, StorageOptions options) {
  Tensor t = empty(format, rows, cols, options);
  lay_out(memory, t, options);
  return t;
}

OwnedTensor make_tensor(Format format, int64_t rows, int64_t cols, StorageOptions options) {
  OwnedTensor owned;
  owned.buffer = HostBuffer(size_t(storage_bytes(format, rows, cols, options)));
  owned.tensor = place_tensor(owned.buffer.data(), format, rows, cols, options);
  return owned;
}

}  // namespace quire
