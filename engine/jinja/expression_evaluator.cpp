#include "engine/jinja/evaluator.h"
#include "engine/jinja/operations.h"
#include "engine/jinja/text.h"

namespace quire::jinja {

Value Evaluator::charged(Value value) {
  if (value.is_text()) budget_.spend(value.as_text().size() / 2);
  if (value.is(Type::list)) budget_.spend(value.as_list().items.size() * 16);
  if (value.is(Type::dict)) budget_.spend(value.as_dict().entries.size() * (16 + value.as_dict().entries.size() / 4));
  return value;
}

Value Evaluator::eval(const Expr& e, const ScopePtr& scope) {
  const Nesting nesting(*this);
  line_ = e.line;
  budget_.spend(8);
  return eval_kind(e, scope);
}

Value Evaluator::eval_kind(const Expr& e, const ScopePtr& scope) {
  switch (e.kind) {
    case Expr::Kind::constant:
      return e.value;
    case Expr::Kind::name:
      return lookup(e.text, scope.get());
    case Expr::Kind::list:
    case Expr::Kind::tuple:
    case Expr::Kind::dict:
      return eval_list(e, scope);
    case Expr::Kind::unary: {
      Value v = eval(*e.items[0], scope);
      if (e.text == "not") return Value::boolean(!v.truth());
      if (e.text == "-") return negative(v);
      if (!v.is_numeric()) refuse("'+' of a {}", to_string(v.type()));
      return v;
    }
    case Expr::Kind::binary:
      return eval_binary(e, scope);
    case Expr::Kind::compare:
      return eval_compare(e, scope);
    case Expr::Kind::ternary:
      if (eval(*e.items[0], scope).truth()) return eval(*e.items[1], scope);
      return e.items[2] ? eval(*e.items[2], scope) : Value::undefined("an 'if' without 'else' has no value here");
    case Expr::Kind::attribute:
      return attribute(eval(*e.items[0], scope), e.text);
    case Expr::Kind::subscript: {
      const Value value = eval(*e.items[0], scope);
      const Value key = eval(*e.items[1], scope);
      line_ = e.line;
      return charged(subscript(value, key, budget_));
    }
    case Expr::Kind::slice:
      return eval_slice(e, scope);
    case Expr::Kind::call:
      return eval_call(e, scope);
    case Expr::Kind::filter:
      return eval_filter(e, scope);
    case Expr::Kind::test: {
      const Value value = eval(*e.items[0], scope);
      const Arguments arguments = eval_arguments(e, 1, scope);
      line_ = e.line;
      return Value::boolean(apply_test(e.text, value, arguments, budget_));
    }
  }
  refuse("an expression of an unknown kind");
}

Value Evaluator::eval_list(const Expr& e, const ScopePtr& scope) {
  std::vector<Value> items;
  for (const ExprPtr& item : e.items) items.push_back(eval(*item, scope));
  line_ = e.line;
  if (e.kind != Expr::Kind::dict) return charged(Value::list(std::move(items), e.kind == Expr::Kind::tuple));
  std::vector<Entry> entries;
  for (size_t i = 0; i < items.size(); i += 2) entries.emplace_back(items[i], items[i + 1]);
  return charged(Value::dict(std::move(entries)));
}

Value Evaluator::eval_binary(const Expr& e, const ScopePtr& scope) {
  const Value a = eval(*e.items[0], scope);
  if (e.text == "and") return a.truth() ? eval(*e.items[1], scope) : a;
  if (e.text == "or") return a.truth() ? a : eval(*e.items[1], scope);
  const Value b = eval(*e.items[1], scope);
  line_ = e.line;
  if (e.text != "~") return charged(arithmetic(e.text, a, b, budget_));
  std::string text = to_text(a);
  append_text(text, to_text(b));
  return charged(Value::text(std::move(text)));
}

Value Evaluator::eval_compare(const Expr& e, const ScopePtr& scope) {
  Value left = eval(*e.items[0], scope);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    const std::string& op = e.operators[i];
    Value right = eval(*e.items[i + 1], scope);
    line_ = e.line;
    bool holds = false;
    if (op == "==" || op == "!=")
      holds = equal(left, right, budget_) == (op == "==");
    else if (op == "in" || op == "not in")
      holds = contains(right, left, budget_) == (op == "in");
    else if (op == "<")
      holds = compare(left, right, budget_) < 0;
    else if (op == "<=")
      holds = compare(left, right, budget_) <= 0;
    else if (op == ">")
      holds = compare(left, right, budget_) > 0;
    else
      holds = compare(left, right, budget_) >= 0;
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Evaluator::eval_slice(const Expr& e, const ScopePtr& scope) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i) parts[i] = e.items[i] ? eval(*e.items[i], scope) : Value::none();
  line_ = e.line;
  return charged(slice(parts[0], parts[1], parts[2], parts[3], budget_));
}

Value Evaluator::eval_filter(const Expr& e, const ScopePtr& scope) {
  const Value value = e.items[0] ? eval(*e.items[0], scope) : Value::text(*block_text_);
  const Arguments arguments = eval_arguments(e, 1, scope);
  line_ = e.line;
  return charged(apply_filter(e.text, value, arguments, budget_));
}

Arguments Evaluator::eval_arguments(const Expr& e, size_t first, const ScopePtr& scope) {
  Arguments out;
  for (size_t i = first; i < e.items.size(); ++i) out.positional.push_back(eval(*e.items[i], scope));
  for (const auto& [name, value] : e.named) out.named.emplace_back(name, eval(*value, scope));
  return out;
}

Value Evaluator::eval_call(const Expr& e, const ScopePtr& scope, const Value* caller) {
  const Value function = eval(*e.items[0], scope);
  const Arguments arguments = eval_arguments(e, 1, scope);
  line_ = e.line;
  return charged(call(function, arguments, caller));
}

Value Evaluator::call(const Value& function, const Arguments& arguments, const Value* caller) {
  if (function.is(Type::undefined)) refuse("{}", function.hint());
  if (!function.is(Type::callable)) refuse("a {} cannot be called", to_string(function.type()));
  const Callable& callable = function.as_callable();
  if (callable.kind == Callable::Kind::macro) return call_macro(callable, arguments, caller);
  if (caller) refuse("'call' needs a macro, and '{}' is none", callable.name);
  if (callable.kind == Callable::Kind::method) return call_method(callable, arguments, budget_);
  return call_global(callable.name, arguments, namespaces_, budget_);
}

}  // namespace quire::jinja
