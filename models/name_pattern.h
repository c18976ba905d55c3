// A regular expression of a quantization_config, for the names of modules.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace quire {

class NamePattern {
 public:
  static constexpr uint32_t kMaxSteps = 10000;
  // As Python's `re`, in PCRE2's syntax, which agrees for such patterns. `where` begins every error. A match may take
  // `max_steps`, but no more than kMaxSteps.
  NamePattern(std::string pattern, std::string where, uint32_t max_steps = kMaxSteps);
  ~NamePattern();
  NamePattern(NamePattern&&) noexcept;

  // Whether the name begins with a match (`re.match`). Error if that takes far more steps than honest patterns need.
  bool matches_start(std::string_view name) const;

 private:
  struct Code;
  std::string pattern_, where_;
  std::unique_ptr<Code> code_;
};

}  // namespace quire
