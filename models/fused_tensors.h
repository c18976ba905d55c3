// Matrices that the files of some families hold as one, a part after the other (Phi 3's q, k, v and gate, up): taken
// apart on reading, so that nothing behind the readers knows of them. Internal to the readers.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "models/checkpoint_builder.h"
#include "models/network_tensors.h"

namespace quire {

struct FusedMatrix {
  std::string name;  // in the files: "model.layers.0.self_attn.qkv_proj.weight"
  TensorShape shape;
  std::vector<std::string> parts;  // tensors of the network, in the order of their rows
};
// The one of this name, or that has the tensor of this name as a part; empty if the family's files have none.
std::optional<FusedMatrix> fused_matrix(const ModelConfig& config, const std::string& name);

// A tensor as a file has it, under its HuggingFace name.
struct SourceTensor {
  std::string name, source_name;
  Codec codec;
  int64_t rows, cols;
  const std::byte* bytes;
};
// Adds the parts of a fused matrix; false if `t` is none.
bool add_fused(CheckpointBuilder& builder, const ModelConfig& config, const SourceTensor& t);

// Tensors that were added under the names of fused matrices become the network's: views of their rows, all else the
// same.
void split_fused(CheckpointBuilder& builder);

}  // namespace quire
