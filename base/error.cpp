#include "base/error.h"

namespace quire {

void fail(const std::string& message) { throw Error(message); }

}  // namespace quire
