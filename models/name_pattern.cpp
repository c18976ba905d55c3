#include "models/name_pattern.h"

#include <algorithm>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/printable.h"

namespace quire {

namespace {
constexpr size_t kMaxPattern = 10000;  // bytes
constexpr uint32_t kMaxDepth = 1000;
}  // namespace

struct NamePattern::Code {
  pcre2_code* code = nullptr;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
  }
};

NamePattern::NamePattern(std::string pattern, std::string where, uint32_t max_steps)
    : pattern_(std::move(pattern)), where_(std::move(where)), code_(std::make_unique<Code>()) {
  check(pattern_.size() <= kMaxPattern, "{}: a pattern of {} bytes is too long", where_, pattern_.size());
  int error = 0;
  PCRE2_SIZE at = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern_.data()), pattern_.size(),
                              PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
  if (!code_->code) {
    PCRE2_UCHAR text[256] = {};
    pcre2_get_error_message(error, text, sizeof(text));
    fail(fmt::format("{}: pattern '{}' is not a regular expression: {} at {}", where_, printable(pattern_, 100),
                     reinterpret_cast<const char*>(text), at));
  }
  code_->data = pcre2_match_data_create_from_pattern(code_->code, nullptr);
  code_->context = pcre2_match_context_create(nullptr);
  check(code_->data && code_->context, "{}: out of memory", where_);
  pcre2_set_match_limit(code_->context, std::min(max_steps, kMaxSteps));
  pcre2_set_depth_limit(code_->context, kMaxDepth);
}
NamePattern::~NamePattern() = default;
NamePattern::NamePattern(NamePattern&&) noexcept = default;

bool NamePattern::matches_start(std::string_view name) const {
  const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, PCRE2_ANCHORED,
                                code_->data, code_->context);
  check(found >= 0 || found == PCRE2_ERROR_NOMATCH, "{}: pattern '{}' cannot be matched with '{}': PCRE2 error {}",
        where_, printable(pattern_, 100), printable(std::string(name), 100), found);
  return found >= 0;
}

}  // namespace quire
