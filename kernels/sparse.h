// The few weights of a matrix that lie beside it: SpQR's outliers (arXiv 2306.03078), compressed sparse rows.
#pragma once
#include <vector>

#include "kernels/context.h"

namespace quire {

// A view, on the device of whoever multiplies it. An entry has its column in the lower 16 bits and an f16 value in the
// upper ones, as SpQR stores it. Columns may come in any order, and twice.
struct SparseRows {
  int64_t rows = 0, cols = 0, count = 0;  // cols <= 65536; entries
  const int32_t* begins = nullptr;        // (rows + 1), ascending: entries [begins[r], begins[r + 1]) are of row r
  const uint32_t* entries = nullptr;
};

// The same with its memory, on the host; more rows can be put below.
struct SparseMatrix {
  int64_t cols = 0;
  std::vector<int32_t> begins = {0};
  std::vector<uint32_t> entries;
  SparseRows view() const {
    return {int64_t(begins.size()) - 1, cols, int64_t(entries.size()), begins.data(), entries.data()};
  }
  void append(const SparseMatrix& below);
  SparseMatrix rows(int64_t begin, int64_t count) const;
};

inline int64_t sparse_bytes(int64_t rows, int64_t count) { return count > 0 ? 4 * (rows + 1 + count) : 0; }

// y (M, N) += x (M, K) w^T: x in any format, y f32, apart. The written order, the same on every device, ISA, thread
// count and M: y = y + s, where s = fma over the row's entries as they lie, on decoded values (f32), from 0. A row
// without entries leaves y as it is. w must have been checked: columns below K.
void add_sparse(const Context& ctx, const Tensor& x, const SparseRows& w, const Tensor& y);

// values (K) += row `row`, entry by entry. On the CPU.
void add_sparse_row(const SparseRows& w, int64_t row, float* values);

}  // namespace quire
