#include "models/fused_tensors.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/printable.h"
#include "models/family.h"

namespace quire {

std::optional<FusedMatrix> fused_matrix(const ModelConfig& config, const std::string& name) {
  const Family& f = find_family(config.family);
  const std::pair<const char*, std::vector<const char*>> kKinds[] = {{f.qkv, {f.q, f.k, f.v}},
                                                                     {f.gate_up, {f.gate, f.up}}};
  for (const auto& [fused, parts] : kKinds) {
    if (!fused) continue;
    std::string layer;  // "model.layers.0."
    const auto is = [&](const char* module) {
      const std::string suffix = fmt::format("{}.weight", module);
      if (!name.ends_with(suffix)) return false;
      layer = name.substr(0, name.size() - suffix.size());
      return true;
    };
    if (!is(fused) && std::none_of(parts.begin(), parts.end(), is)) continue;
    FusedMatrix m{fmt::format("{}{}.weight", layer, fused), {0, 0}, {}};
    for (const char* part : parts) {
      m.parts.push_back(fmt::format("{}{}.weight", layer, part));
      const auto shape = network_tensor(config, m.parts.back());
      if (!shape) return std::nullopt;  // of no layer
      m.shape = {m.shape.rows + shape->rows, shape->cols};
    }
    return m;
  }
  return std::nullopt;
}

bool add_fused(CheckpointBuilder& builder, const ModelConfig& config, const SourceTensor& t) {
  const auto fused = fused_matrix(config, t.name);
  if (!fused || fused->name != t.name) return false;
  check(t.rows == fused->shape.rows, "'{}': tensor '{}' has {} rows where the configuration says {}", builder.path(),
        printable(t.source_name), t.rows, fused->shape.rows);
  Tensor shape;
  shape.codec = t.codec;
  shape.group = info(t.codec).group;
  shape.cols = t.cols;
  const int64_t pitch = info(t.codec).row_bytes(t.cols, shape.groups()).data;
  int64_t row = 0;
  for (const std::string& part : fused->parts) {
    const int64_t rows = network_tensor(config, part)->rows;
    builder.add(part, t.source_name, t.codec, rows, t.cols, t.bytes + row * pitch);
    row += rows;
  }
  return true;
}

void split_fused(CheckpointBuilder& builder) {
  auto& s = builder.state();
  const auto tensors = std::exchange(s.tensors, {});
  const auto made = std::exchange(s.made, {});
  const auto outliers = std::exchange(s.outliers, {});
  s.by_name.clear();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const CheckpointTensor& whole = tensors[i];
    const auto fused = fused_matrix(s.config, whole.name);
    const bool is_fused = fused && fused->name == whole.name;
    const auto source = made.find(i);
    const auto beside = outliers.find(i);
    int64_t row0 = 0;
    for (const std::string& part : is_fused ? fused->parts : std::vector<std::string>{whole.name}) {
      CheckpointTensor t = whole;
      t.name = part;
      const int64_t rows = is_fused ? network_tensor(s.config, part)->rows : t.tensor.rows;
      const int64_t span = info(t.tensor.codec).span;
      check(row0 % span == 0 && rows % span == 0, "'{}': '{}' has rows {} to {} of {}, which are no whole tiles of {}",
            builder.path(), printable(part), row0, row0 + rows, printable(whole.source_name), span);
      if (source != made.end()) {
        t.tensor.rows = rows;  // has no data yet
        s.made[s.tensors.size()] = {source->second.whole, row0, nullptr};
      } else {
        t.tensor = rows_of(t.tensor, row0, rows);
      }
      if (beside != outliers.end() && is_fused) {
        const auto make = [all = beside->second.make, row0, rows] { return all().rows(row0, rows); };
        t.outliers = int64_t(make().entries.size());
        s.outliers[s.tensors.size()] = {make, beside->second.sources};
      } else if (beside != outliers.end()) {
        s.outliers[s.tensors.size()] = beside->second;
      }
      builder.add(std::move(t));
      row0 += rows;
    }
  }
}

}  // namespace quire
