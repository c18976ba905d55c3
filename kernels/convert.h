// convert: any format to any. Quantizing, casting, embedding lookup and weight decoding are all this op.
#pragma once
#include "kernels/context.h"

namespace quire {

// On a GPU rows that are neither f32 before nor after are f32 in scratch on the way, at most so many values at once.
constexpr int64_t kConvertFloats = 8 << 20;

// dst (R, N) row i = src row (gather ? gather[i] : i), re-encoded. src is (S, N); gather holds R row numbers of src.
// Same format and no shared scales: rows are copied bit for bit (int8 without sums to int8 with sums is encoded again).
// A static scale (pitch 0) is used as it is. On a GPU the rows in `gather` are not checked.
void convert(const Context& ctx, const Tensor& src, const Tensor& dst, const int32_t* gather = nullptr);

}  // namespace quire
