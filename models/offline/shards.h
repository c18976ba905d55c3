// Which tensor's planes lie where in which safetensors file: known before anything is quantized.
#pragma once
#include <string>
#include <vector>

#include "models/checkpoint.h"
#include "models/stored.h"

namespace quire {

struct ShardEntry {
  std::string name;
  size_t tensor;  // of the shard
  StoredPlane plane;
  int64_t offset = 0;  // in the file
};

struct ShardTensor {
  std::string name;
  Format format;
};

struct Shard {
  std::string file;
  std::vector<ShardTensor> tensors;
  std::vector<ShardEntry> entries;  // in the order of their data: no gaps, each aligned for its values
  std::string header;               // with its length before it
  int64_t data_bytes = 0;
  int64_t file_bytes() const { return int64_t(header.size()) + data_bytes; }
};

// Every tensor of the checkpoint in the network's order, in files of about shard_bytes (a tensor is never cut).
std::vector<Shard> plan_shards(const Checkpoint& checkpoint, const Scheme& scheme, int64_t shard_bytes);
std::string shard_index_text(const std::vector<Shard>& shards);  // model.safetensors.index.json

}  // namespace quire
