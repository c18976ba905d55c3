#include "quant/storage.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "base/cuda/build.h"

namespace quire {

void BufferFree::operator()(std::byte* p) const {
  if (device == Device::cuda) {
    if constexpr (kCuda) cuda::release(p);
  } else if (mapped > 0) {
    munmap(p, mapped);
  } else {
    std::free(p);
  }
}

Buffer::Buffer(size_t bytes, Device device) : size_(bytes) {
  check(kCuda || device == Device::cpu, "this build has no CUDA: build with -DQUIRE_CUDA=ON");
  if (bytes == 0) return;
  if constexpr (kCuda) {
    if (device == Device::cuda) {
      data_ = {cuda::allocate(bytes), BufferFree{0, device}};
      return;
    }
  }
  constexpr size_t kMapFrom = 1 << 20;
  const size_t rounded = (bytes + 63) / 64 * 64;
  void* p = nullptr;
  if (bytes >= kMapFrom && rounded >= bytes) {
    p = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) p = nullptr;
    data_ = {static_cast<std::byte*>(p), BufferFree{rounded}};
  } else if (rounded >= bytes && posix_memalign(&p, 64, rounded) == 0) {
    std::memset(p, 0, rounded);
    data_ = {static_cast<std::byte*>(p), BufferFree{}};
  }
  check(data_ != nullptr, "out of memory: {} bytes could not be allocated", bytes);
}

void Buffer::use_large_pages() const {
  const size_t mapped = data_.get_deleter().mapped;
  if (mapped > 0) (void)madvise(data_.get(), mapped, MADV_HUGEPAGE);  // advice: nothing depends on it
}

namespace {

// Lays the planes out from `memory` (which may be null to measure); returns the bytes used.
int64_t lay_out(std::byte* memory, Tensor& t, const StorageOptions& options) {
  const CodecInfo& codec = info(t.codec);
  const RowBytes bytes = codec.row_bytes(t.cols, t.groups());
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
  place(t.scale, bytes.scale, 4, codec.span > 1 ? codec.span : options.span);
  // A codebook is shared by all rows; whoever encodes fills it first.
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
  t.device = options.device;
  return t;
}

// Bytes from the first row of a plane to the end of its last, when a row of it takes row_bytes.
int64_t plane_bytes(const Tensor& t, const Plane& plane, int64_t row_bytes) {
  if (!plane.ptr || t.rows == 0 || row_bytes == 0) return 0;
  return (t.rows - 1) / plane.rows * plane.pitch + row_bytes;
}

// fn(plane of a, plane of b, bytes of a's) for every plane that a has.
template <class Fn>
void each_plane(const Tensor& a, Tensor& b, Fn&& fn) {
  const CodecInfo& codec = info(a.codec);
  const RowBytes bytes = codec.row_bytes(a.cols, a.groups());
  const auto visit_plane = [&](const Plane& from, Plane& to, int64_t row_bytes) {
    if (const int64_t n = plane_bytes(a, from, row_bytes); n > 0) fn(from, to, n);
  };
  visit_plane(a.data, b.data, bytes.data);
  visit_plane(a.high, b.high, bytes.high);
  visit_plane(a.scale, b.scale, bytes.scale);
  visit_plane(a.aux, b.aux, bytes.aux > 0 ? bytes.aux : a.groups() * 4);
  const int64_t table = codec.table_bytes * (codec.table_shared ? 1 : a.cols);
  if (a.table.ptr && table > 0) fn(a.table, b.table, table);
}

void copy_bytes(const Tensor& from, const Tensor& to, const Plane& source, const Plane& target, int64_t bytes,
                cuda::StreamHandle stream) {
  if constexpr (kCuda) {
    if (from.device == Device::cuda || to.device == Device::cuda) {
      return cuda::copy_async(target.ptr, source.ptr, size_t(bytes), stream);
    }
  }
  std::memcpy(target.ptr, source.ptr, size_t(bytes));
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
  owned.buffer = Buffer(size_t(storage_bytes(format, rows, cols, options)), options.device);
  owned.tensor = place_tensor(owned.buffer.data(), format, rows, cols, options);
  return owned;
}

void copy_tensor(const Tensor& from, const Tensor& to, cuda::StreamHandle stream) {
  Tensor target = to;
  check(from.codec == to.codec && from.group == to.group && from.rows == to.rows && from.cols == to.cols &&
            from.order == to.order,
        "copy: {} does not lie as {}", describe(from), describe(to));
  each_plane(from, target, [&](const Plane& source, const Plane& out, int64_t bytes) {
    check(out.ptr && out.pitch == source.pitch && out.rows == source.rows, "copy: the planes of {} differ",
          describe(from));
    copy_bytes(from, to, source, out, bytes, stream);
  });
}

namespace {
constexpr int64_t kPlaneAlign = 256;
int64_t rounded(int64_t bytes) { return (bytes + kPlaneAlign - 1) / kPlaneAlign * kPlaneAlign; }
}  // namespace

std::vector<std::span<std::byte>> plane_memory(const Tensor& t) {
  std::vector<std::span<std::byte>> planes;
  Tensor same = t;
  each_plane(t, same,
             [&](const Plane& plane, const Plane&, int64_t bytes) { planes.emplace_back(plane.ptr, size_t(bytes)); });
  return planes;
}

int64_t planes_bytes(const Tensor& t) {
  int64_t total = 0;
  for (const std::span<std::byte> plane : plane_memory(t)) total += rounded(int64_t(plane.size()));
  return total;
}

Tensor planes_at(const Tensor& from, std::byte* memory, Device device) {
  Tensor t = from;
  t.device = device;
  each_plane(from, t, [&](const Plane&, Plane& target, int64_t bytes) {
    target.ptr = memory;
    memory += rounded(bytes);
  });
  return t;
}

OwnedTensor tensor_on(Device device, const Tensor& from, cuda::StreamHandle stream) {
  OwnedTensor owned;
  owned.buffer = Buffer(size_t(planes_bytes(from)), device);
  owned.tensor = planes_at(from, owned.buffer.data(), device);
  copy_tensor(from, owned, stream);
  return owned;
}

}  // namespace quire
