// Matrices of 8-bit floats (E4M3) as compressed-tensors, DeepSeek's fp8 and ModelOpt store them: "MODULE.weight" codes,
// and a scale that whole blocks of rows and columns share.
#pragma once
#include "models/hf_quantized.h"

namespace quire {

struct ScaleBlock {
  int64_t rows = 0, cols = 0;  // 0: all there are
};

// value = scale * code, scale (ceil(rows / block.rows), ceil(cols / block.cols)) in the entry `scale`, of any float
// type; dimensions of 1 may be left out. Scales are repeated for the rows of a block where the matrix is packed. Error
// if a scale is missing, not finite or not of this shape.
CheckpointTensor& add_e4m3_matrix(const QuantizedSource& source, const std::string& module, TensorShape shape,
                                  const std::string& scale, ScaleBlock block);

// Activations in `format`; with one scale for all of them where the entry is there. Error if it is needed and missing,
// or not one positive number.
void set_activation(const QuantizedSource& source, CheckpointTensor& t, Format format, const std::string& scale,
                    bool is_static);

// One positive number in an entry of any float type, marked as used; empty without that entry.
std::optional<float> take_scale(const QuantizedSource& source, const std::string& name);

// The scales of a static 8-bit cache, wherever writers put them (one each for the keys and values of a layer). `asked`:
// the configuration says that the cache is in fp8; then the checkpoint runs with one unless told otherwise, and where
// scales are missing they are 1.
void add_cache_scales(const QuantizedSource& source, bool asked);

}  // namespace quire
