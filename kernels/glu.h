// Gated linear units (arXiv 2002.05202), written in the next op's format.
#pragma once
#include "kernels/context.h"

namespace quire {

enum class Gate : uint8_t { silu, gelu_tanh };

// y (T, F) in any format = gate(x[:, :F]) * x[:, F:]. x (T, 2F) f32: gate, then up.
void glu(const Context& ctx, const Tensor& x, const Tensor& y, Gate gate = Gate::silu);

}  // namespace quire
