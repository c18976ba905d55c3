// Matrices that the files of some families hold as one, a part after the other: taken apart on reading, so that nothing
// behind the readers knows of them.
#include "base/error.h"
#include "base/printable.h"
#include "models/checkpoint_builder.h"
#include "models/family.h"

namespace quire {

bool add_fused(CheckpointBuilder& builder, const ModelConfig& c, const SourceTensor& t) {
  if (c.family != "phi3") return false;
  const Family& f = find_family(c.family);
  struct Part {
    const char* name;
    int64_t rows;
  };
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  const std::pair<std::string_view, std::vector<Part>> kFused[] = {
      {"self_attn.qkv_proj.weight", {{f.q, q}, {f.k, kv}, {f.v, kv}}},
      {"mlp.gate_up_proj.weight", {{f.gate, c.ffn}, {f.up, c.ffn}}}};
  for (const auto& [fused, parts] : kFused) {
    if (!t.name.ends_with(fused)) continue;
    int64_t rows = 0, row = 0;
    for (const Part& part : parts) rows += part.rows;
    check(t.rows == rows, "'{}': tensor '{}' has {} rows where the configuration says {}", builder.path(),
          printable(t.source_name), t.rows, rows);
    Tensor shape;
    shape.codec = t.codec;
    shape.group = info(t.codec).group;
    shape.cols = t.cols;
    const int64_t pitch = info(t.codec).row_bytes(t.cols, shape.groups()).data;
    const std::string layer = t.name.substr(0, t.name.size() - fused.size());
    for (const Part& part : parts) {
      builder.add(layer + part.name + ".weight", t.source_name, t.codec, part.rows, t.cols, t.bytes + row * pitch);
      row += part.rows;
    }
    return true;
  }
  return false;
}

}  // namespace quire
