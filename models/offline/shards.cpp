#include "models/offline/shards.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "base/error.h"
#include "models/network_tensors.h"

namespace quire {

namespace {

using Ordered = nlohmann::ordered_json;

std::vector<std::string> names_in_order(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for_each_needed_tensor(checkpoint.config(), [&](const std::string& name) {
    names.push_back(name);
    seen.insert(name);
  });
  std::set<std::string> others;  // biases that a network may have; sorted, for containers differ in their order
  for (const CheckpointTensor& t : checkpoint.list()) {
    if (seen.count(t.name) == 0) others.insert(t.name);
  }
  names.insert(names.end(), others.begin(), others.end());
  return names;
}

// Values of four bytes first, then of two, then bytes: all aligned without gaps, which the format does not allow.
void lay_out(Shard& shard) {
  std::stable_sort(shard.entries.begin(), shard.entries.end(),
                   [](const ShardEntry& a, const ShardEntry& b) { return a.plane.alignment > b.plane.alignment; });
  Ordered header = {{"__metadata__", {{"format", kStoredMethod}}}};
  for (ShardEntry& entry : shard.entries) {
    const int64_t end = shard.data_bytes + entry.plane.bytes();
    header[entry.name] = {
        {"dtype", entry.plane.dtype}, {"shape", entry.plane.shape}, {"data_offsets", {shard.data_bytes, end}}};
    entry.offset = shard.data_bytes;
    shard.data_bytes = end;
  }
  constexpr size_t kAlign = 64;
  std::string text = header.dump();
  text.resize((text.size() + 8 + kAlign - 1) / kAlign * kAlign - 8, ' ');
  const uint64_t length = text.size();
  shard.header.assign(sizeof length, '\0');
  std::memcpy(shard.header.data(), &length, sizeof length);
  shard.header += text;
  for (ShardEntry& entry : shard.entries) entry.offset += int64_t(shard.header.size());
}

}  // namespace

std::vector<Shard> plan_shards(const Checkpoint& checkpoint, const Scheme& scheme, int64_t shard_bytes) {
  std::vector<Shard> shards(1);
  int64_t filled = 0;
  std::map<std::string, const CheckpointTensor*> listed;  // shapes alone: nothing is made for them
  for (const CheckpointTensor& t : checkpoint.list()) listed[t.name] = &t;
  for (const std::string& name : names_in_order(checkpoint)) {
    const Tensor& t = listed.at(name)->tensor;
    check(!listed.at(name)->input && !listed.at(name)->output,
          "quantize: '{}' comes with an order or a transform (act-order, QuaRot, QuIP#), which cannot be stored; start "
          "from the model's floats",
          name);
    const Format format = stored_format(scheme, name, t.rows == 1);
    const std::vector<StoredPlane> planes = stored_planes(format, t.rows, t.cols);
    int64_t bytes = 0;
    for (const StoredPlane& plane : planes) bytes += plane.bytes();
    if (filled > 0 && filled + bytes > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += bytes;
    Shard& shard = shards.back();
    for (const StoredPlane& plane : planes) shard.entries.push_back({name + plane.suffix, shard.tensors.size(), plane});
    shard.tensors.push_back({name, format});
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = shards.size() == 1 ? "model.safetensors"
                                        : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    lay_out(shards[i]);
  }
  return shards;
}

std::string shard_index_text(const std::vector<Shard>& shards) {
  int64_t total = 0;
  Ordered map = Ordered::object();
  for (const Shard& shard : shards) {
    total += shard.data_bytes;
    for (const ShardEntry& entry : shard.entries) map[entry.name] = shard.file;
  }
  return Ordered{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}}.dump(2) + "\n";
}

}  // namespace quire
