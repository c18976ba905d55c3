// Writing rows in any format on the device: one kernel a codec, whatever the values come from. What fuses into it is a
// case of RowsFrom.
#pragma once
#include "kernels/context.h"
#include "quant/kv_layout.h"

namespace quire::cuda {

enum class RowsFrom : uint8_t {
  plain,   // x[row]
  norm,    // rmsnorm of x[row]
  glu,     // silu(x[row][:cols]) * x[row][cols:]
  append,  // x[token] of one kv head, clamped to finite, into that token's row of a page
  seal,    // a full open (f16) page, into the codes of a sealed one
};

// Where keys or values of a step go; all arrays on the device.
struct KvTarget {
  KvFormat format;
  KvPart part;  // of `format` in a block
  std::byte* pool = nullptr;
  int64_t block_bytes = 0, kv_heads = 0, head_dim = 0;
  float static_scale = 1.0f;
  // append: row of x -> page of the pool and row in it.
  const int32_t* pages = nullptr;      // (T)
  const int32_t* positions = nullptr;  // (T)
  // seal: (open page, page) pairs; the open page's part lies at open_part of its block.
  const int32_t* sealed = nullptr;  // (pairs, 2)
  const std::byte* open_pool = nullptr;
  int64_t open_block_bytes = 0;
  KvPart open_part;
};

struct EncodePlan {
  RowsFrom from = RowsFrom::plain;
  Tensor to;  // plain, norm, glu: (R, cols)
  const float* x = nullptr;
  int64_t ld = 0;                   // floats from row to row of x
  const int32_t* gather = nullptr;  // plain: row i is x[gather[i]]
  const float* weight = nullptr;    // norm: (cols)
  float eps = 0.0f;
  KvTarget kv;
};

// rows: of `to`, or tokens (append), or pairs (seal).
void encode_rows(const Context& ctx, const EncodePlan& plan, int64_t rows);

// out[i * ld + c] = value of src (gather ? gather[i] : i + row0), column c, for `rows` rows.
void decode_rows(const Context& ctx, const Tensor& src, const int32_t* gather, int64_t row0, int64_t rows, float* out,
                 int64_t ld);

// Rows of planes as they lie: dst row i = src row (gather ? gather[i] : i).
struct PlaneCopy {
  Plane from, to;
  int64_t bytes;
};
void copy_rows(const Context& ctx, const PlaneCopy* planes, int count, const int32_t* gather, int64_t rows);

}  // namespace quire::cuda
