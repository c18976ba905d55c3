// Device entry points of the ops; X.cpp has checked the shapes. All enqueue on ctx.stream.
#pragma once
#include "kernels/attention.h"
#include "kernels/frag_layout.h"
#include "kernels/kv_view.h"
#include "kernels/matmul.h"
#include "kernels/outliers.h"
#include "kernels/sample.h"
#include "kernels/sparse.h"
#include "kernels/step_state.h"

namespace quire::cuda {

// table (positions, 2, dim / 2) on the device.
void rope(const Context& ctx, const Tensor& x, int64_t heads, int64_t head_dim, const int32_t* positions,
          const float* table, int64_t dim);

// The K x K signs and the diagonal (cols; null: 1) on the device. out (T, cols) f32 may be x.
struct HadamardShape {
  const int8_t* signs;
  int64_t k, power;
  float scale;
  bool transpose;
  const float* diagonal;
};
void hadamard(const Context& ctx, const Tensor& x, const HadamardShape& h, float* out, int64_t ld);

void permute_columns(const Context& ctx, const Tensor& x, const int32_t* order, const Tensor& y);

// Canonical rows of any format, in matmul.h's written order. x f32 (M, K) with leading dimension ldx.
void matmul_float(const Context& ctx, const float* x, int64_t ldx, int64_t rows, const Tensor& w, const Tensor& y,
                  const Epilogue& epilogue);
void matmul_int(const Context& ctx, const Tensor& x, const Tensor& w, const Tensor& y, const Epilogue& epilogue);

// x f32 (M, K) with leading dimension ldx.
void add_sparse(const Context& ctx, const float* x, int64_t ldx, int64_t rows, const SparseRows& w, const Tensor& y);

// outliers.h. packed: w in frag8 of that shape; null: canonical rows.
void take_outliers(const Context& ctx, const Tensor& x, float threshold, int32_t* counts, uint32_t* entries);
void add_outliers(const Context& ctx, const TokenOutliers& x, const FragShape& shape, const std::byte* packed,
                  const Tensor& rows, const Tensor& y);

void attention(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, const AttentionShape& shape,
               const Tensor& out);

// attention.h's mma kernels: mma, mma_fixed, mma_prefill.
enum class AttentionCuts : uint8_t { even, fixed, none };
bool attention_mma_supports(const KvView& kv, const Batch& batch, const AttentionShape& shape);
void attention_mma(const Context& ctx, const Tensor& q, const KvView& kv, const Batch& batch, int64_t heads,
                   const Tensor& out, AttentionCuts cuts);

void sample_rows(const Context& ctx, const Tensor& logits, const SampleRow* rows, const LogitChange* changes,
                 int32_t* ids);

// step_state.h. The arrays of StepJoins where the device can read them.
struct StepJoin {
  SlotJoin* joins = nullptr;
  TokenChange* changes = nullptr;
  int32_t *history = nullptr, *rows = nullptr;
};
void step_join(const Context& ctx, const StepState& state, const StepJoin& joins, int64_t count, int64_t rows);
void step_begin(const Context& ctx, const StepState& state, int64_t rows);
void step_sample(const Context& ctx, const StepState& state, const Tensor& logits);

// random.h's numbers.
void fill_normal(const Context& ctx, uint64_t seed, int64_t first, float deviation, const Tensor& out);

void norm_heads(const Context& ctx, const Tensor& x, int64_t heads, const Tensor& weight, float eps);
void add_normed(const Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& h);
void scale_rows(const Context& ctx, const Tensor& x, float factor);
void scale_columns(const Context& ctx, const Tensor& x, const float* factors, const Tensor& y,
                   const Epilogue& epilogue);

// Blocks of block_bytes from place pairs[2i] of `from` to place pairs[2i + 1] of `to`; pairs on the device.
void copy_blocks(const Context& ctx, const std::byte* from, std::byte* to, const int32_t* pairs, int64_t count,
                 int64_t block_bytes);

// to[pairs[2i]] = pairs[2i + 1]; pairs on the device or pinned, a place that comes twice with one value.
void scatter_words(const int32_t* pairs, int64_t count, int32_t* to, StreamHandle stream);

}  // namespace quire::cuda
