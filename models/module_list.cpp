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
    const std::string pattern = text.substr(3);
    patterns_.try_emplace(pattern, pattern, where);
  }
}

std::optional<ModuleList::Match> ModuleList::match(const std::string& module) const {
  if (const auto name = names_.find(module); name != names_.end()) return Match{Match::name, *name};
  for (const auto& [text, pattern] : patterns_) {
    if (pattern.matches_start(module)) return Match{Match::pattern, text};
  }
  const auto kind = names_.find(module.ends_with("embed_tokens") ? "Embedding" : "Linear");
  if (kind != names_.end()) return Match{Match::module_class, *kind};
  return std::nullopt;
}

}  // namespace quire
