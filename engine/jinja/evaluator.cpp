#include "engine/jinja/evaluator.h"

#include <algorithm>

#include "engine/jinja/operations.h"
#include "engine/jinja/text.h"

namespace quire::jinja {

namespace {
constexpr int kMaxNesting = 300;  // calls of macros and expressions in each other; each level is a few stack frames
}

Evaluator::Nesting::Nesting(Evaluator& e) : evaluator(e) {
  if (e.nesting_ >= kMaxNesting) refuse("macros and expressions call each other more than {} deep", kMaxNesting);
  ++e.nesting_;
}

Evaluator::Evaluator(std::vector<std::pair<std::string, Value>> variables, Budget budget)
    : budget_(budget), root_(std::make_shared<Scope>()) {
  root_->variables = std::move(variables);
}

Evaluator::~Evaluator() {
  for (const auto& n : namespaces_) n->variables.clear();
}

std::string Evaluator::run(const Body& body) {
  std::string out;
  run_body(body, root_, out);
  return out;
}

Evaluator::Flow Evaluator::run_body(const Body& body, const ScopePtr& scope, std::string& out) {
  for (const auto& s : body)
    if (const Flow flow = run(*s, scope, out); flow != Flow::next) return flow;
  return Flow::next;
}

Evaluator::Flow Evaluator::run(const Stmt& s, const ScopePtr& scope, std::string& out) {
  const Nesting nesting(*this);
  line_ = s.line;
  budget_.spend(4);
  switch (s.kind) {
    case Stmt::Kind::data:
      budget_.spend(s.text.size() / 2);
      append_text(out, s.text);
      break;
    case Stmt::Kind::print: {
      const std::string text = to_text(eval(*s.expr, scope));
      budget_.spend(text.size() / 2);
      append_text(out, text);
      break;
    }
    case Stmt::Kind::branch:
      return run_branch(s, scope, out);
    case Stmt::Kind::loop:
      return run_loop(s, scope, out);
    case Stmt::Kind::set:
      assign(s, eval(*s.expr, scope), scope);
      break;
    case Stmt::Kind::set_block:
      run_set_block(s, scope);
      break;
    case Stmt::Kind::macro:
      set(*scope, s.macro->name, make_macro(s.macro, scope));
      break;
    case Stmt::Kind::call_block:
      run_call_block(s, scope, out);
      break;
    case Stmt::Kind::scope:
      return run_body(s.body, std::make_shared<Scope>(Scope{scope}), out);
    case Stmt::Kind::leave:
      return Flow::leave;
    case Stmt::Kind::next:
      return Flow::again;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::run_branch(const Stmt& s, const ScopePtr& scope, std::string& out) {
  for (const auto& [condition, body] : s.branches)
    if (eval(*condition, scope).truth()) return run_body(body, scope, out);
  return run_body(s.otherwise, scope, out);
}

// What a for statement goes through: a list, without what its condition refuses.
Value Evaluator::loop_items(const Stmt& s, const ScopePtr& scope) {
  Value iterated = eval(*s.expr, scope);
  line_ = s.line;
  if (iterated.is(Type::list) && !s.condition) return iterated;
  std::vector<Value> items = iterate(iterated, budget_);
  if (s.condition) {
    std::vector<Value> kept;
    for (Value& item : items) {
      const auto inner = std::make_shared<Scope>(Scope{scope});
      unpack(s.targets, item, *inner);
      if (eval(*s.condition, inner).truth()) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  return Value::list(std::move(items));
}

Evaluator::Flow Evaluator::run_loop(const Stmt& s, const ScopePtr& scope, std::string& out) {
  const Value list = loop_items(s, scope);
  const auto& items = list.as_list().items;
  if (items.empty()) return run_body(s.otherwise, scope, out);
  for (size_t i = 0; i < items.size(); ++i) {
    budget_.spend(64);
    const auto inner = std::make_shared<Scope>(Scope{scope});
    set(*inner, "loop", Value::loop({list, i}));
    line_ = s.line;
    unpack(s.targets, items[i], *inner);
    if (run_body(s.body, inner, out) == Flow::leave) break;
  }
  return Flow::next;
}

void Evaluator::run_set_block(const Stmt& s, const ScopePtr& scope) {
  std::string text;
  run_body(s.body, std::make_shared<Scope>(Scope{scope}), text);
  line_ = s.line;
  if (!s.expr) return assign(s, Value::text(std::move(text)), scope);
  const std::string* outer = std::exchange(block_text_, &text);
  Value value = eval(*s.expr, scope);
  block_text_ = outer;
  assign(s, std::move(value), scope);
}

void Evaluator::run_call_block(const Stmt& s, const ScopePtr& scope, std::string& out) {
  const Value caller = make_macro(s.macro, scope);
  const std::string text = to_text(eval_call(*s.expr, scope, &caller));
  budget_.spend(text.size() / 2);
  append_text(out, text);
}

void Evaluator::assign(const Stmt& s, Value value, const ScopePtr& scope) {
  line_ = s.line;
  if (s.attribute.empty()) {
    if (s.targets.size() > 1) return unpack(s.targets, value, *scope);
    return set(*scope, s.targets[0], std::move(value));
  }
  const Value target = lookup(s.targets[0], scope.get());
  if (!target.is(Type::name_space))
    refuse("'{}.{}' can only be set on a namespace, not on a {}", s.targets[0], s.attribute, to_string(target.type()));
  auto& variables = target.as_namespace().variables;
  budget_.spend(variables.size());
  const auto at =
      std::find_if(variables.begin(), variables.end(), [&](const auto& v) { return v.first == s.attribute; });
  if (at == variables.end())
    variables.emplace_back(s.attribute, std::move(value));
  else
    at->second = std::move(value);
}

void Evaluator::unpack(const std::vector<std::string>& targets, const Value& value, Scope& scope) {
  if (targets.size() == 1) return set(scope, targets[0], value);
  const std::vector<Value> parts = iterate(value, budget_);
  if (parts.size() != targets.size()) refuse("{} values cannot be unpacked to {} names", parts.size(), targets.size());
  for (size_t i = 0; i < parts.size(); ++i) set(scope, targets[i], parts[i]);
}

void Evaluator::set(Scope& scope, const std::string& name, Value value) {
  budget_.spend(4 + scope.variables.size());
  for (auto& [key, old] : scope.variables) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  scope.variables.emplace_back(name, std::move(value));
}

Value Evaluator::lookup(const std::string& name, const Scope* scope) {
  for (; scope; scope = scope->parent.get()) {
    budget_.spend(1 + scope->variables.size());
    for (const auto& [key, value] : scope->variables)
      if (key == name) return value;
  }
  if (is_global(name)) return Value::callable({Callable::Kind::global, name});
  return Value::undefined("'" + name + "' is undefined");
}

Value Evaluator::make_macro(const std::shared_ptr<const Macro>& macro, const ScopePtr& scope) {
  budget_.spend(256);
  if (captured_.empty() || captured_.back() != scope) captured_.push_back(scope);
  return Value::callable({Callable::Kind::macro, macro->name, Value(), macro, scope});
}

Value Evaluator::call_macro(const Callable& callable, const Arguments& arguments, const Value* caller) {
  const Macro& macro = *callable.macro;
  const std::string what = "macro '" + macro.name + "'";
  if (arguments.positional.size() > macro.parameters.size())
    refuse("{} takes at most {} arguments, not {}", what, macro.parameters.size(), arguments.positional.size());
  const auto scope = std::make_shared<Scope>(Scope{callable.scope.lock()});
  if (caller) set(*scope, "caller", *caller);
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::find_if(macro.parameters.begin(), macro.parameters.end(),
                                 [&, &n = name](const Parameter& p) { return p.name == n; });
    if (at == macro.parameters.end()) refuse("{} takes no argument '{}'", what, name);
    if (static_cast<size_t>(at - macro.parameters.begin()) < arguments.positional.size())
      refuse("{}: argument '{}' is given twice", what, name);
    set(*scope, name, value);
  }
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& p = macro.parameters[i];
    const auto is_p = [&](const auto& named) { return named.first == p.name; };
    if (i < arguments.positional.size())
      set(*scope, p.name, arguments.positional[i]);
    else if (std::none_of(arguments.named.begin(), arguments.named.end(), is_p))
      set(*scope, p.name,
          p.fallback ? eval(*p.fallback, scope) : Value::undefined("parameter '" + p.name + "' was not provided"));
  }
  std::string out;
  run_body(macro.body, scope, out);
  return Value::text(std::move(out));
}

}  // namespace quire::jinja
