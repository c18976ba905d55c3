// Blocks of GGUF files carry their scales among their codes, so only whoever reads all of them meets a scale that would
// make every logit NaN. Scales that lie apart are checked by the reader.
#pragma once
#include <string>

#include "kernels/context.h"
#include "models/checkpoint.h"

namespace quire {

// Error naming the row if a scale of t (N, K), the tensor `name` of `checkpoint`, is not finite. It is released.
void check_blocks(const Context& ctx, const Checkpoint& checkpoint, const Tensor& t, const std::string& name);

}  // namespace quire
