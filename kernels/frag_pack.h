// Packing into frag8 / frag16 (frag_layout.h) on the host: the reference of the device's packing, and its shape.
#pragma once
#include <optional>

#include "kernels/frag_layout.h"
#include "quant/formats.h"

namespace quire {

// How a weight (N, K) in format w lies for activations in format x; none if there is no such kernel.
std::optional<FragShape> frag_shape(Format w, Format x, int64_t n, int64_t k);

// Rows row0.. (a multiple of 64) of the packed weight from canonical src (rows, K).
void frag_pack(const FragShape& shape, const Tensor& src, int64_t row0, std::byte* dst);

}  // namespace quire
