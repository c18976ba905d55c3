// What the tests of ops share: every instruction set and two thread counts, the GPU if there is one, random rows, exact
// comparison.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "kernels/cuda/blas.h"

namespace quire {

using Rng = std::mt19937;

inline int64_t between(Rng& rng, int64_t lo, int64_t hi) { return lo + int64_t(rng() % uint64_t(hi - lo + 1)); }

// Not std::normal_distribution: its numbers differ between standard libraries.
inline std::vector<float> normal(Rng& rng, int64_t count, float spread = 1.0f, float middle = 0.0f) {
  std::vector<float> v(static_cast<size_t>(count));
  for (float& x : v) {
    float sum = 0.0f;
    for (int i = 0; i < 6; ++i) sum += float(rng() >> 8) * 0x1.0p-24f;
    x = middle + spread * (sum - 3.0f) * 1.41421356f;
  }
  return v;
}

inline bool gpu_is_here() {
  if constexpr (kCuda) return cuda::device_count() > 0;
  return false;
}

// Contexts over shared pools.
class Machines {
 public:
  // Only if gpu_is_here().
  Context gpu() {
    Context ctx = context();
    if constexpr (kCuda) {
      if (!stream_) stream_ = std::make_shared<cuda::Stream>();
      ctx.device = Device::cuda;
      ctx.scratch = &gpu_scratch_;
      ctx.stream = stream_->get();
    }
    return ctx;
  }
  // The same with cuBLAS, where it is installed.
  Context gpu_with_blas() {
    Context ctx = gpu();
    if constexpr (kCuda) {
      if (!blas_) blas_ = cuda::Blas::open(ctx.stream, &why_no_blas);
      ctx.blas = blas_.get();
    }
    return ctx;
  }
  std::string why_no_blas;
  Context context(Isa isa = default_isa(), int threads = 3) {
    Context ctx;
    ctx.isa = isa;
    ctx.pool = threads == 1 ? &one_ : &three_;
    ctx.scratch = &scratch_;
    return ctx;
  }
  // Baseline and the best this machine has, with what lies between; each with one thread and three.
  std::vector<Context> all() {
    std::vector<Context> list;
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (isa > default_isa()) continue;
      list.push_back(context(isa, 1));
      list.push_back(context(isa, 3));
    }
    return list;
  }

 private:
  ThreadPool one_{1}, three_{3};
  Scratch scratch_, gpu_scratch_{Device::cuda};
  std::shared_ptr<const cuda::Blas> blas_;
  std::shared_ptr<cuda::Stream> stream_;  // not a unique_ptr: builds without CUDA do not link its destructor
};

// An f32 tensor over memory that is there; ld: floats from row to row (0: cols).
inline Tensor f32_view(float* data, int64_t rows, int64_t cols, int64_t ld = 0) {
  Tensor t;
  t.codec = id<F32>;
  t.rows = rows;
  t.cols = cols;
  t.data = {reinterpret_cast<std::byte*>(data), (ld > 0 ? ld : cols) * 4, 1};
  return t;
}
inline Tensor f32_view(std::vector<float>& data, int64_t rows, int64_t cols) {
  return f32_view(data.data(), rows, cols);
}

inline std::vector<float> decoded(const Tensor& t) {
  std::vector<float> values(size_t(t.rows * t.cols));
  for (int64_t r = 0; r < t.rows; ++r) info(t.codec).decode(t, r, 0, t.cols, values.data() + r * t.cols);
  return values;
}

// "" if the bits are equal, else where they first differ.
inline std::string first_difference(const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (std::memcmp(a + i, b + i, 4) != 0) return fmt::format("[{}]: {} and {}", i, a[i], b[i]);
  }
  return "";
}
inline std::string first_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return fmt::format("{} and {} values", a.size(), b.size());
  return first_difference(a.data(), b.data(), int64_t(a.size()));
}

// fn(plane, bytes a row) of those that a row of t has; not a codebook.
template <class Fn>
void each_row_plane(const Tensor& t, Fn&& fn) {
  const RowBytes bytes = info(t.codec).row_bytes(t.cols, t.groups());
  fn(t.data, bytes.data);
  fn(t.high, bytes.high);
  fn(t.scale, bytes.scale);
  fn(t.aux, bytes.aux > 0 ? bytes.aux : t.groups() * 4);
}

// Every row's bytes, without what lies between rows.
inline std::string row_bytes_of(const Tensor& t) {
  std::string all;
  each_row_plane(t, [&](const Plane& p, int64_t bytes) {
    for (int64_t r = 0; p.ptr && r < t.rows; ++r) all.append(p.row<const char>(r), size_t(bytes));
  });
  return all;
}

// Tensors and arrays on the GPU for the time of a test.
class OnGpu {
 public:
  explicit OnGpu(const Context& ctx) : ctx_(ctx) {}
  Tensor in(const Tensor& host) {
    tensors_.push_back(tensor_on(Device::cuda, host, ctx_.stream));
    return tensors_.back();
  }
  template <class T>
  const T* in(const std::vector<T>& host) {
    buffers_.emplace_back(host.size() * sizeof(T), Device::cuda);
    if constexpr (kCuda) cuda::copy_async(buffers_.back().data(), host.data(), host.size() * sizeof(T), ctx_.stream);
    return reinterpret_cast<const T*>(buffers_.back().data());
  }
  // Like `host`, with every byte that a row should get poisoned.
  Tensor out(const Tensor& host) {
    OwnedTensor poisoned = tensor_on(Device::cpu, host);
    each_row_plane(poisoned.tensor, [&](const Plane& p, int64_t bytes) {
      for (int64_t r = 0; p.ptr && p.pitch > 0 && r < host.rows; ++r) std::memset(p.row<char>(r), 0xa5, size_t(bytes));
    });
    return in(poisoned);
  }
  OwnedTensor back(const Tensor& device) {
    OwnedTensor host = tensor_on(Device::cpu, device, ctx_.stream);
    if constexpr (kCuda) {
      if (device.device == Device::cuda) cuda::synchronize(ctx_.stream);
    }
    return host;
  }

 private:
  Context ctx_;
  std::vector<OwnedTensor> tensors_;
  std::vector<Buffer> buffers_;
};

// Runs op(ctx, in, out) on the CPU context and, where there is a GPU, there: both must give the same bytes. in_place:
// what is in `out` is read.
template <class Op>
void on_every_device(Machines& machines, const Context& cpu, std::vector<Tensor> in, const Tensor& out, Op op,
                     bool in_place = false) {
  if (!gpu_is_here()) return op(cpu, in, out);
  const Context ctx = machines.gpu();
  OnGpu gpu(ctx);
  std::vector<Tensor> there;
  for (const Tensor& t : in) there.push_back(gpu.in(t));
  const Tensor result = in_place ? gpu.in(out) : gpu.out(out);
  op(cpu, in, out);
  op(ctx, there, result);
  EXPECT_TRUE(row_bytes_of(gpu.back(result)) == row_bytes_of(out)) << describe(out) << " differs on the GPU";
}

// Every byte of a tensor's memory.
inline std::string memory_of(const OwnedTensor& t) {
  return {reinterpret_cast<const char*>(t.buffer.data()), t.buffer.size()};
}

// Every format ops can write: each codec, with its own group, per row and in groups that leave a short last one.
inline std::vector<Format> every_format(std::initializer_list<int32_t> groups = {0, 24}) {
  std::vector<Format> list;
  for (int c = 0; c < Codecs::kSize; ++c) {
    const CodecInfo& codec = info(Codec(c));
    if (!codec.encode) continue;
    if (codec.group > 0) {
      list.push_back({Codec(c), codec.group});
    } else {
      const bool scaled = codec.row_bytes(1, 1).scale > 0;
      for (const int32_t g : groups) {
        if (g == 0 || scaled) list.push_back({Codec(c), g});
      }
    }
  }
  return list;
}

// What stands between the matmuls of a layer: fn(format, cols, ld of the floats, tensor of 3 rows for the result). A
// GPU has kernels of its own for these formats (encode_quads.cuh), which take what lies on 16 bytes up to 32768
// columns; the rest goes another way. What they give is compared with the CPU's, which tests of their own check.
template <class Fn>
void each_activation(Fn&& fn) {
  std::vector<Format> formats = {{id<F16>}, {id<BF16>}};
  for (const int32_t group : {0, 32, 64, 128}) formats.insert(formats.end(), {{id<Int8>, group}, {id<E4M3>, group}});
  for (const Format& format : formats) {
    for (const int64_t cols : {4, 36, 100, 576, 1536, 4096, 8196, 14336, 16388, 32768, 32772, 1537}) {
      for (const int64_t more : {0, 1, 4}) {
        const bool sums = format.codec == id<Int8> && more != 4;
        const OwnedTensor out = make_tensor(format, 3, cols, {.row_align = 64, .sums = sums});
        fn(format, cols, cols + more, out);
      }
    }
  }
}

}  // namespace quire
