// Packing into frag8 / frag16 on the device, from canonical rows that lie there.
#pragma once
#include "base/cuda/runtime.h"
#include "kernels/frag_layout.h"

namespace quire::cuda {

// Rows row0.. (a multiple of 64) of dst from src (rows, K); what frag_pack_rows makes on the host, bit for bit. Also
// kernels that start early (launch.cuh) find it.
void frag_pack(const FragShape& shape, const Tensor& src, int64_t row0, std::byte* dst, StreamHandle stream);

// sums (rows, ceil(cols / segment)): of every `segment` of the cols int8 codes of each row; 0: of the row.
void sum_codes(const Plane& codes, int64_t rows, int64_t cols, int64_t segment, int32_t* sums, StreamHandle stream);

}  // namespace quire::cuda
