// The modules that a list of a quantization_config means: names, classes ("Linear") and patterns ("re:.*down_proj").
#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

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
  bool matches(const std::string& module) const { return match(module).has_value(); }
  bool empty() const { return names_.empty() && patterns_.empty(); }

  // What made a module match; the smaller one is the more specific. As compressed-tensors ranks targets: the module's
  // name, then patterns in the order of their texts, then its class.
  struct Match {
    enum Kind : uint8_t { name, pattern, module_class } kind;
    std::string_view text;
    bool operator<(const Match& other) const { return kind != other.kind ? kind < other.kind : text < other.text; }
  };
  std::optional<Match> match(const std::string& module) const;  // the smallest

 private:
  std::set<std::string> names_;
  std::map<std::string, NamePattern> patterns_;  // by their texts
};

}  // namespace quire
