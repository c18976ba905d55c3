// The quantization_config of compressed-tensors (llm-compressor): which modules are quantized how.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "models/module_list.h"

namespace quire {

enum class Granularity : uint8_t { tensor, channel, group, block, token };

// How numbers of one kind (weights, activations, cache) were quantized: QuantizationArgs there.
struct QuantArgs {
  int bits = 8;
  bool floating = false, symmetric = true, dynamic = false;
  Granularity granularity = Granularity::tensor;
  int64_t group = 0;                       // granularity group: values along a row
  int64_t block_rows = 0, block_cols = 0;  // granularity block
  bool order_by_group = false;             // weight_g_idx says which group a column is of
  std::string words() const;               // "int4 in groups of 128"
};

struct QuantGroup {
  std::string name;
  ModuleList targets;
  std::string format;  // how it is stored: "pack-quantized"
  std::optional<QuantArgs> weights, inputs;
};

struct CompressedTensorsConfig {
  std::vector<QuantGroup> groups;
  ModuleList ignore;
  std::optional<QuantArgs> cache;  // kv_cache_scheme

  const QuantGroup* group_of(const std::string& module) const;  // the closest target's; null: stays in floats
};

// Error names what is wrong or cannot be run.
CompressedTensorsConfig read_compressed_tensors_config(const JsonObject& options);
QuantArgs read_quant_args(const JsonObject& o);
void check_dense(const JsonObject& o);  // Error if its 'sparsity_config' asks for sparse weights

}  // namespace quire
