// The modules that a list of a quantization_config means: names, classes ("Linear") and patterns ("re:.*down_proj").
#pragma once
#include <set>
#include <vector>

#include "models/json_file.h"
#include "models/name_pattern.h"

namespace quire {

class ModuleList {
 public:
  ModuleList() = default;  // no module
  // An array of strings (null: empty). `where` begins every error.
  ModuleList(const Json* names, const std::string& where);

  // `module`: "model.layers.0.mlp.up_proj". Its class is Embedding for the embedding, else Linear. Error if a pattern
  // takes far more steps than honest ones need.
  bool matches(const std::string& module) const;
  bool empty() const { return names_.empty() && patterns_.empty(); }

 private:
  std::set<std::string> names_;
  std::vector<NamePattern> patterns_;
};

}  // namespace quire
