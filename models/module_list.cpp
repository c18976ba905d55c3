#include "models/module_list.h"

#include "base/error.h"
#include "base/printable.h"

namespace quire {

namespace {
constexpr size_t kMaxPatterns = 64;  // each may take thousands of steps for every module
}  // namespace

ModuleList::ModuleList(const Json* names, const std::string& where) {
  if (!names) return;
  for (const Json& name : *names) {
    check(name.is_string(), "{}: a module is named by a string, not {}", where, printable_json(name));
    const auto& text = name.get_ref<const std::string&>();
    if (!text.starts_with("re:")) {
      names_.insert(text);
      continue;
    }
    check(patterns_.size() < kMaxPatterns, "{}: more than {} patterns are not supported", where, kMaxPatterns);
    patterns_.emplace_back(text.substr(3), where);
  }
}

bool ModuleList::matches(const std::string& module) const {
  const bool embedding = module.ends_with("embed_tokens");
  if (names_.count(module) > 0 || names_.count(embedding ? "Embedding" : "Linear") > 0) return true;
  for (const NamePattern& pattern : patterns_) {
    if (pattern.matches_start(module)) return true;
  }
  return false;
}

}  // namespace quire
