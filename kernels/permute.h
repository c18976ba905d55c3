// Columns in another order: what act-order asks of an activation.
#pragma once
#include "kernels/context.h"

namespace quire {

// y (T, K)[t][c] = x (T, K)[t][order[c]], both f32 and apart; order (K), on the device of the context and not checked.
void permute_columns(const Context& ctx, const Tensor& x, const int32_t* order, const Tensor& y);

}  // namespace quire
