#include "kernels/sparse.h"

#include <algorithm>

#include "kernels/cpu/matmul_cpu.h"
#include "kernels/cpu/row_simd.h"
#include "kernels/cuda/encode.h"
#include "kernels/cuda/ops.h"

namespace quire {

namespace {

constexpr int64_t kLanes = cpu::kSparseLanes, kFew = 4, kGrain = 64;  // rows of w

// Few tokens: one after the other.
void add_few(const Context& ctx, const cpu::FloatRows& x, const SparseRows& w, const Tensor& y) {
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  ctx.parallel_for(w.rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t count = w.begins[n + 1] - w.begins[n];
      if (count == 0) continue;
      for (int64_t m = 0; m < y.rows; ++m) {
        y.data.row<float>(m)[n] += simd.sparse_dot(w.entries + w.begins[n], count, x.data + m * x.ld);
      }
    }
  });
}

// Tokens m0.. of x in blocks of kLanes, [block][k][token]; those that are missing are 0.
void side_by_side(const Context& ctx, const cpu::FloatRows& x, int64_t m0, int64_t tokens, int64_t k, float* out) {
  ctx.parallel_for((tokens + kLanes - 1) / kLanes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin * kLanes; t < end * kLanes; ++t) {
      const float* row = x.data + (m0 + t) * x.ld;
      float* to = out + t / kLanes * kLanes * k + t % kLanes;
      for (int64_t c = 0; c < k; ++c) to[c * kLanes] = t < tokens ? row[c] : 0.0f;
    }
  });
}

void add_many(const Context& ctx, const cpu::FloatRows& x, const SparseRows& w, const Tensor& y) {
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  constexpr int64_t kTokens = 128;
  float* blocks = ctx.scratch->take<float>(std::min(kTokens, (y.rows + kLanes - 1) / kLanes * kLanes) * w.cols);
  for (int64_t m0 = 0; m0 < y.rows; m0 += kTokens) {
    const int64_t tokens = std::min(kTokens, y.rows - m0);
    side_by_side(ctx, x, m0, tokens, w.cols, blocks);
    ctx.parallel_for(w.rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t count = w.begins[n + 1] - w.begins[n];
        if (count == 0) continue;
        for (int64_t t = 0; t < tokens; t += kLanes) {
          float sums[kLanes];
          simd.sparse_dots(w.entries + w.begins[n], count, blocks + t * w.cols, sums);
          for (int64_t l = 0; l < std::min(kLanes, tokens - t); ++l) y.data.row<float>(m0 + t + l)[n] += sums[l];
        }
      }
    });
  }
}

}  // namespace

void SparseMatrix::append(const SparseMatrix& below) {
  const int32_t before = begins.back();
  for (size_t r = 1; r < below.begins.size(); ++r) begins.push_back(before + below.begins[r]);
  entries.insert(entries.end(), below.entries.begin(), below.entries.end());
}

SparseMatrix SparseMatrix::rows(int64_t begin, int64_t count) const {
  SparseMatrix part;
  part.cols = cols;
  for (int64_t r = begin; r < begin + count; ++r) part.begins.push_back(begins[size_t(r + 1)] - begins[size_t(begin)]);
  part.entries.assign(entries.begin() + begins[size_t(begin)], entries.begin() + begins[size_t(begin + count)]);
  return part;
}

void add_sparse(const Context& ctx, const Tensor& x, const SparseRows& w, const Tensor& y) {
  check(
      x.device == ctx.device && y.device == ctx.device && x.order == Order::natural && x.cols == w.cols &&
          w.cols <= 65536 && y.codec == id<F32> && y.rows == x.rows && y.cols == w.rows && y.data.pitch % 4 == 0,
      "add_sparse: x {} times sparse rows ({}, {}) into y {}, which must be f32 ({}, {}) on the device of the context",
      describe(x), w.rows, w.cols, describe(y), x.rows, w.rows);
  if (x.rows == 0 || w.count == 0) return;
  const ProfileScope scope(ctx.profile, "add_sparse", [&] {
    return OpCost{sparse_bytes(w.rows, w.count) + tensor_bytes(x) + 2 * tensor_bytes(y), 2 * x.rows * w.count};
  });
  const Scratch::Scope taken(*ctx.scratch);
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      if (x.codec == id<F32> && x.data.pitch % 4 == 0) {
        return cuda::add_sparse(ctx, x.data.row<const float>(0), x.data.pitch / 4, x.rows, w, y);
      }
      float* rows = ctx.scratch->take<float>(x.rows * x.cols);
      cuda::decode_rows(ctx, x, nullptr, 0, x.rows, rows, x.cols);
      return cuda::add_sparse(ctx, rows, x.cols, x.rows, w, y);
    }
  }
  const cpu::FloatRows rows = cpu::float_rows(ctx, x);
  return x.rows < kFew ? add_few(ctx, rows, w, y) : add_many(ctx, rows, w, y);
}

void add_sparse_row(const SparseRows& w, int64_t row, float* values) {
  for (int32_t i = w.begins[row]; i < w.begins[row + 1]; ++i) {
    values[w.entries[i] & 0xFFFF] += f16_to_f32(uint16_t(w.entries[i] >> 16));
  }
}

}  // namespace quire
