// The subset of Jinja that chat templates use, as HuggingFace runs it: Jinja 3 in its immutable sandbox with
// trim_blocks, lstrip_blocks, loop controls, {% generation %}, tojson, raise_exception and strftime_now. What is not in
// the subset is an Error that names it and its line. Every template ends: steps, text, nesting and the size of values
// are limited.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/jinja/ast.h"
#include "engine/jinja/value.h"

namespace quire::jinja {

class Template {
 public:
  explicit Template(std::string_view source);  // Error with the line

  // Error with the line and what failed; of raise_exception, its text.
  std::string render(std::vector<std::pair<std::string, Value>> variables, Budget budget = {}) const;

 private:
  Body body_;
};

}  // namespace quire::jinja
