// How Quire stores quantized weights in a HuggingFace directory: what `quantize` writes and its reader checks. One
// description for both.
//
// config.json holds "quantization_config": {"quant_method": "quire", "format_version": 1, "scheme": "w4a8",
// "weight_format": "qoq4/g64", "embedding_format": "int8", "activation_format": "int8", "kv": "kvf16"}. Each plane of a
// matrix X is an entry of its own, row after row without gaps: X.weight (codes), X.weight_high, X.weight_scale,
// X.weight_aux, X.weight_table, those that its codec has. Vectors are f32.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/checkpoint_builder.h"
#include "models/json_file.h"
#include "models/safetensors.h"
#include "quant/scheme.h"

namespace quire {

constexpr const char* kStoredMethod = "quire";

// The quantization_config of a scheme, and back. Reading: empty if the directory was quantized by nobody or by another
// method; Error names what is wrong. The scheme that is read is not native: its formats are those of the tensors.
nlohmann::ordered_json stored_scheme_json(const Scheme& scheme);
std::optional<Scheme> read_stored_scheme(const JsonObject& config);

// The format a tensor of the network is stored in.
Format stored_format(const Scheme& scheme, const std::string& name, bool vector);

struct StoredPlane {
  Plane Tensor::*plane;
  const char* suffix;  // after the tensor's name
  const char* dtype;   // of safetensors
  std::vector<int64_t> shape;
  int64_t row_bytes, rows;  // the plane is `rows` times `row_bytes` bytes
  int64_t alignment;        // of its values
  int64_t bytes() const { return row_bytes * rows; }
};
std::vector<StoredPlane> stored_planes(Format format, int64_t rows, int64_t cols);

// Adds every tensor of the network, with all its planes, from the files of a directory that this scheme was read from.
// Error if an entry is missing, left over, or not of the dtype and shape it must have, or if scales are not finite or
// zeros out of range.
void add_stored_tensors(CheckpointBuilder& builder, const Scheme& scheme, std::span<const SafetensorsFile> files);

}  // namespace quire
