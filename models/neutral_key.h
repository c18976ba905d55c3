// A configuration key of other networks, or of fine-tunes, that changes the mathematics, and the values at which it
// does not. Internal to the readers.
#pragma once
#include <string_view>

namespace quire {

struct NeutralKey {
  std::string_view key;
  double values[2];
  bool allows(double x) const { return x == values[0] || x == values[1]; }
};

}  // namespace quire
