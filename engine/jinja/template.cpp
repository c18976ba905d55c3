#include "engine/jinja/template.h"

#include "base/error.h"
#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"

namespace quire::jinja {

Template::Template(std::string_view source) {
  check(source.size() <= 1u << 20, "chat template: {} bytes; at most 1 MiB is supported", source.size());
  body_ = Parser(lex(source)).parse();
}

std::string Template::render(std::vector<std::pair<std::string, Value>> variables, Budget budget) const {
  Evaluator evaluator(std::move(variables), budget);
  try {
    return evaluator.run(body_);
  } catch (const Failure& e) {
    fail_at(evaluator.line(), e.what());
  }
}

}  // namespace quire::jinja
