// Numbers that only whoever reads all of a file meets: floats, and the scales that blocks of GGUF files carry among
// their codes. One that is not finite would make every logit NaN, or be rounded to a code that says nothing of it.
// Scales that lie apart are checked by the reader.
#pragma once
#include <string>

#include "kernels/context.h"
#include "models/checkpoint.h"

namespace quire {

// Error naming the row if a float or a block's scale of the tensor `name` of `checkpoint` is not finite. It is
// released.
void check_finite(const Context& ctx, const Checkpoint& checkpoint, const std::string& name);

}  // namespace quire
