#include "engine/jinja/operations.h"

#include <algorithm>
#include <cmath>

#include "engine/jinja/text.h"

namespace quire::jinja {

namespace {

[[noreturn]] void refuse_operands(std::string_view op, const Value& a, const Value& b) {
  if (a.is(Type::undefined)) refuse("{}", a.hint());
  if (b.is(Type::undefined)) refuse("{}", b.hint());
  refuse("'{}' of a {} and a {}", op, to_string(a.type()), to_string(b.type()));
}

Value repeat(const Value& sequence, int64_t times, Budget& budget) {
  const uint64_t n = times > 0 ? static_cast<uint64_t>(times) : 0;
  if (sequence.is_text()) {
    const std::string& text = sequence.as_text();
    if (!text.empty() && n > kMaxText / text.size())
      refuse("a text of {} bytes, {} times, passes {} bytes", text.size(), n, kMaxText);
    std::string out;
    if (!text.empty())
      for (uint64_t i = 0; i < n; ++i) out += text;
    return Value::text(std::move(out));
  }
  const auto& items = sequence.as_list().items;
  if (!items.empty() && n > kMaxValueWeight / items.size())
    refuse("a list of {} values, {} times, passes {}", items.size(), n, kMaxValueWeight);
  budget.spend(items.size() * n * 16);
  std::vector<Value> out;
  if (!items.empty())
    for (uint64_t i = 0; i < n; ++i) out.insert(out.end(), items.begin(), items.end());
  return Value::list(std::move(out), sequence.as_list().tuple);
}

Value number_operation(std::string_view op, double a, double b) {
  if (op == "+") return Value::number(a + b);
  if (op == "-") return Value::number(a - b);
  if (op == "*") return Value::number(a * b);
  if (op == "**") {
    if (a == 0 && b < 0) refuse("division by zero");
    return Value::number(std::pow(a, b));
  }
  if (b == 0) refuse("division by zero");
  if (op == "/") return Value::number(a / b);
  if (op == "//") return Value::number(std::floor(a / b));
  const double rest = std::fmod(a, b);  // Python's sign: the divisor's
  return Value::number(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return number_operation("**", static_cast<double>(base), static_cast<double>(exponent));
  int64_t result = 1;
  if (base == 0 || base == 1) return Value::integer(exponent == 0 ? 1 : base);
  if (base == -1) return Value::integer(exponent % 2 ? -1 : 1);
  for (; exponent > 0; --exponent)
    if (__builtin_mul_overflow(result, base, &result)) refuse("the result of '**' does not fit 64 bits");
  return Value::integer(result);
}

Value integer_operation(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "/") return number_operation(op, static_cast<double>(a), static_cast<double>(b));
  if (op == "**") return integer_power(a, b);
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else {  // "//" rounds down, "%" takes the sign of the divisor
    if (b == 0) refuse("division by zero");
    if (b == -1) {
      if (op == "//") overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      const int64_t quotient = a / b, rest = a % b;
      const bool down = rest != 0 && (rest < 0) != (b < 0);
      result = op == "//" ? quotient - down : rest + (down ? b : 0);
    }
  }
  if (overflow) refuse("the result of '{}' does not fit 64 bits", op);
  return Value::integer(result);
}

}  // namespace

Value arithmetic(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  if (a.is_numeric() && b.is_numeric()) {
    if (a.is(Type::number) || b.is(Type::number)) return number_operation(op, a.as_number(), b.as_number());
    return integer_operation(op, a.as_integer(), b.as_integer());
  }
  const auto is_sequence = [](const Value& v) { return v.is_text() || v.is(Type::list); };
  const auto is_count = [](const Value& v) { return v.is(Type::integer) || v.is(Type::boolean); };
  if (op == "*" && is_sequence(a) && is_count(b)) return repeat(a, b.as_integer(), budget);
  if (op == "*" && is_count(a) && is_sequence(b)) return repeat(b, a.as_integer(), budget);
  if (op == "+" && a.is_text() && b.is_text()) {
    budget.spend(a.as_text().size() / 4);  // here, as sum adds many times
    std::string out = a.as_text();
    append_text(out, b.as_text());
    return Value::text(std::move(out));
  }
  if (op == "+" && a.is(Type::list) && b.is(Type::list) && a.as_list().tuple == b.as_list().tuple) {
    budget.spend(a.as_list().items.size() * 16);
    std::vector<Value> items = a.as_list().items;
    items.insert(items.end(), b.as_list().items.begin(), b.as_list().items.end());
    return Value::list(std::move(items), a.as_list().tuple);
  }
  if (op == "%" && a.is_text()) refuse("formatting with '%' is not supported; join texts with '~'");
  refuse_operands(op, a, b);
}

Value negative(const Value& a) {
  if (a.is(Type::undefined)) refuse("{}", a.hint());
  if (!a.is_numeric()) refuse("'-' of a {}", to_string(a.type()));
  if (a.is(Type::number)) return Value::number(-a.as_number());
  return integer_operation("-", 0, a.as_integer());
}

namespace {

Value missing(const Value& value, const std::string& name) {
  return Value::undefined("a " + std::string(to_string(value.type())) + " has no '" + name + "' here");
}

Value method(const Value& value, const std::string& name) {
  return Value::callable({Callable::Kind::method, name, value});
}

const Value* find_variable(const Namespace& space, std::string_view name) {
  for (const auto& [key, value] : space.variables)
    if (key == name) return &value;
  return nullptr;
}

Value loop_attribute(const Loop& loop, const std::string& name) {
  const auto& items = loop.items.as_list().items;
  const size_t i = loop.index, n = items.size();
  const auto number = [](size_t v) { return Value::integer(static_cast<int64_t>(v)); };
  if (name == "index") return number(i + 1);
  if (name == "index0") return number(i);
  if (name == "revindex") return number(n - i);
  if (name == "revindex0") return number(n - i - 1);
  if (name == "first") return Value::boolean(i == 0);
  if (name == "last") return Value::boolean(i + 1 == n);
  if (name == "length") return number(n);
  if (name == "previtem") return i > 0 ? items[i - 1] : Value::undefined("there is no previous item");
  if (name == "nextitem") return i + 1 < n ? items[i + 1] : Value::undefined("there is no next item");
  refuse("'loop.{}' is not supported", name);
}

}  // namespace

Value attribute(const Value& value, const std::string& name) {
  if (value.is(Type::undefined)) refuse("{}, so it has no '{}'", value.hint(), name);
  if (name.compare(0, 2, "__") == 0) refuse("attribute '{}' is not accessible", name);
  if (has_method(value, name)) return method(value, name);
  if (value.is(Type::name_space)) {
    const Value* v = find_variable(value.as_namespace(), name);
    return v ? *v : missing(value, name);
  }
  if (value.is(Type::loop)) return loop_attribute(value.as_loop(), name);
  if (!value.is(Type::dict)) return missing(value, name);
  if (const Value* v = value.as_dict().find(name)) return *v;
  return missing(value, name);
}

Value subscript(const Value& value, const Value& key, Budget& budget) {
  if (value.is(Type::undefined)) refuse("{}, so it has no elements", value.hint());
  if (value.is(Type::dict)) {
    budget.spend(value.as_dict().entries.size());
    if (const Value* v = value.as_dict().find(key)) return *v;
  }
  if ((value.is(Type::list) || value.is_text()) && (key.is(Type::integer) || key.is(Type::boolean))) {
    const auto texts = value.is_text() ? characters(value.as_text()) : std::vector<std::string_view>();
    budget.spend(texts.size() * 2);
    const int64_t n = static_cast<int64_t>(value.is_text() ? texts.size() : value.as_list().items.size());
    const int64_t k = key.as_integer();
    const int64_t i = k < 0 ? k + n : k;
    if (i < 0 || i >= n)
      return Value::undefined(fmt::format("a {} of {} has no element {}", to_string(value.type()), n, k));
    if (value.is_text()) return Value::text(std::string(texts[static_cast<size_t>(i)]));
    return value.as_list().items[static_cast<size_t>(i)];
  }
  if (key.is_text() && !value.is(Type::dict)) return attribute(value, key.as_text());
  if (key.is_text() && has_method(value, key.as_text())) return method(value, key.as_text());
  std::string shown;
  append_repr(shown, key);
  return missing(value, shown);
}

Value slice(const Value& value, const Value& start, const Value& stop, const Value& step, Budget& budget) {
  if (value.is(Type::undefined)) refuse("{}, so it has no elements", value.hint());
  if (!value.is_text() && !value.is(Type::list)) refuse("a {} cannot be sliced", to_string(value.type()));
  const auto number = [](const Value& v, int64_t fallback) {
    if (v.is(Type::none)) return fallback;
    if (!v.is(Type::integer) && !v.is(Type::boolean)) refuse("a slice needs ints, not a {}", to_string(v.type()));
    return v.as_integer();
  };
  const auto texts = value.is_text() ? characters(value.as_text()) : std::vector<std::string_view>();
  const int64_t n = static_cast<int64_t>(value.is_text() ? texts.size() : value.as_list().items.size());
  budget.spend(static_cast<uint64_t>(n) * 2);
  const int64_t by = number(step, 1);
  if (by == 0) refuse("the step of a slice is 0");
  // As in CPython: bounds count from the end if negative, and are held to the places where an index can stand.
  const int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
  const auto bound = [&](const Value& v, int64_t fallback) {
    if (v.is(Type::none)) return fallback;
    const int64_t i = number(v, 0);
    return i < 0 ? std::max(i < -n ? low : i + n, low) : std::min(i, high);
  };
  const int64_t from = bound(start, by < 0 ? high : low), to = bound(stop, by < 0 ? low : high);
  std::string text;
  std::vector<Value> items;
  for (int64_t i = from; by < 0 ? i > to : i < to; i += by) {
    if (value.is_text())
      append_text(text, texts[static_cast<size_t>(i)]);
    else
      items.push_back(value.as_list().items[static_cast<size_t>(i)]);
    if (by > n || by < -n) break;  // a second element is out of reach, and i + by might overflow
  }
  return value.is_text() ? Value::text(std::move(text)) : Value::list(std::move(items), value.as_list().tuple);
}

}  // namespace quire::jinja
