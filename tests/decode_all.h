#pragma once
#include <vector>

#include "models/checkpoint.h"

namespace quire {

// Decodes every row, which reads all that a reader left to be read.
inline void decode_all(const Checkpoint& checkpoint) {
  std::vector<float> row;
  for (const CheckpointTensor& t : checkpoint.tensors()) {
    row.resize(size_t(t.tensor.cols));
    for (int64_t r = 0; r < t.tensor.rows; ++r) info(t.tensor.codec).decode(t.tensor, r, 0, t.tensor.cols, row.data());
  }
}

}  // namespace quire
