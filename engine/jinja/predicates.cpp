// The tests after `is`.
#include <unordered_map>

#include "engine/jinja/operations.h"

namespace quire::jinja {

namespace {

using Test = bool (*)(const Value& value, const Value* other, Budget& budget);
struct TestEntry {
  Test test;
  bool needs_other = false;
};

template <Type kType>
bool is_type(const Value& v, const Value*, Budget&) {
  return v.is(kType);
}

bool is_container(const Value& v) {
  return v.is_text() || v.is(Type::list) || v.is(Type::dict) || v.is(Type::undefined);
}

template <int kRest>
bool has_rest(const Value& v, const Value*, Budget& budget) {
  const Value rest = arithmetic("%", v, Value::integer(2), budget);
  return equal(rest, Value::integer(kRest), budget);
}

template <char kCase>
bool is_case(const Value& v, const Value*, Budget& budget) {
  const char* const method = kCase == 'u' ? "isupper" : "islower";
  return call_method({Callable::Kind::method, method, Value::text(to_text(v))}, {}, budget).truth();
}

bool divisible_by(const Value& v, const Value* other, Budget& budget) {
  return equal(arithmetic("%", v, *other, budget), Value::integer(0), budget);
}

const std::unordered_map<std::string_view, TestEntry>& tests() {
  static const TestEntry kEqual = {[](const Value& v, const Value* o, Budget& b) { return equal(v, *o, b); }, true};
  static const TestEntry kUnequal = {[](const Value& v, const Value* o, Budget& b) { return !equal(v, *o, b); }, true};
  static const TestEntry kLess = {[](const Value& v, const Value* o, Budget& b) { return compare(v, *o, b) < 0; },
                                  true};
  static const TestEntry kAtMost = {[](const Value& v, const Value* o, Budget& b) { return compare(v, *o, b) <= 0; },
                                    true};
  static const TestEntry kGreater = {[](const Value& v, const Value* o, Budget& b) { return compare(v, *o, b) > 0; },
                                     true};
  static const TestEntry kAtLeast = {[](const Value& v, const Value* o, Budget& b) { return compare(v, *o, b) >= 0; },
                                     true};
  static const std::unordered_map<std::string_view, TestEntry> kTests = {
      {"defined", {[](const Value& v, const Value*, Budget&) { return !v.is(Type::undefined); }}},
      {"undefined", {is_type<Type::undefined>}},
      {"none", {is_type<Type::none>}},
      {"boolean", {is_type<Type::boolean>}},
      {"true", {[](const Value& v, const Value*, Budget&) { return v.is(Type::boolean) && v.as_boolean(); }}},
      {"false", {[](const Value& v, const Value*, Budget&) { return v.is(Type::boolean) && !v.as_boolean(); }}},
      {"integer", {is_type<Type::integer>}},
      {"float", {is_type<Type::number>}},
      {"number", {[](const Value& v, const Value*, Budget&) { return v.is_numeric(); }}},
      {"string", {is_type<Type::text>}},
      {"mapping", {is_type<Type::dict>}},
      {"sequence", {[](const Value& v, const Value*, Budget&) { return is_container(v); }}},
      {"iterable", {[](const Value& v, const Value*, Budget&) { return is_container(v); }}},
      {"callable", {is_type<Type::callable>}},
      {"odd", {has_rest<1>}},
      {"even", {has_rest<0>}},
      {"divisibleby", {divisible_by, true}},
      {"lower", {is_case<'l'>}},
      {"upper", {is_case<'u'>}},
      {"in", {[](const Value& v, const Value* o, Budget& b) { return contains(*o, v, b); }, true}},
      {"sameas", {[](const Value& v, const Value* o, Budget&) { return v.same(*o); }, true}},
      {"equalto", kEqual},
      {"eq", kEqual},
      {"==", kEqual},
      {"ne", kUnequal},
      {"!=", kUnequal},
      {"lt", kLess},
      {"lessthan", kLess},
      {"<", kLess},
      {"le", kAtMost},
      {"<=", kAtMost},
      {"gt", kGreater},
      {"greaterthan", kGreater},
      {">", kGreater},
      {"ge", kAtLeast},
      {">=", kAtLeast},
  };
  return kTests;
}

}  // namespace

bool apply_test(const std::string& name, const Value& value, const Arguments& arguments, Budget& budget) {
  const auto it = tests().find(name);
  if (it == tests().end()) refuse("test '{}' is not supported", name);
  const bool needs_other = it->second.needs_other;
  if (!arguments.named.empty() || arguments.positional.size() != (needs_other ? 1u : 0u))
    refuse("test '{}' takes {} argument", name, needs_other ? "one" : "no");
  return it->second.test(value, needs_other ? &arguments.positional[0] : nullptr, budget);
}

}  // namespace quire::jinja
