// Functions that every template can call.
#include <ctime>

#include "engine/jinja/operations.h"

namespace quire::jinja {

namespace {

Value range(const Arguments& a, Budget& budget) {
  if (!a.named.empty() || a.positional.empty() || a.positional.size() > 3) refuse("range takes one to three ints");
  int64_t n[3] = {0, 0, 1};
  for (size_t i = 0; i < a.positional.size(); ++i) {
    const Value& v = a.positional[i];
    if (!v.is(Type::integer) && !v.is(Type::boolean)) refuse("range needs ints, not a {}", to_string(v.type()));
    n[i] = v.as_integer();
  }
  if (a.positional.size() == 1) n[1] = std::exchange(n[0], 0);
  const auto [start, stop, step] = n;
  if (step == 0) refuse("range: the step is 0");
  std::vector<Value> out;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(out.size()) == kMaxRange)
      refuse("range({}, {}, {}) has more than {} values", start, stop, step, kMaxRange);
    out.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  budget.spend(out.size() * 16);
  return Value::list(std::move(out));
}

// Keys and values of dict(...) and namespace(...): a dict or list of pairs, then names.
std::vector<Entry> entries(const char* what, const Arguments& a, Budget& budget) {
  std::vector<Entry> out;
  if (a.positional.size() > 1) refuse("{} takes at most one argument without a name", what);
  if (!a.positional.empty() && a.positional[0].is(Type::dict)) {
    out = a.positional[0].as_dict().entries;
  } else if (!a.positional.empty()) {
    for (const Value& pair : iterate(a.positional[0], budget)) {
      const std::vector<Value> parts = iterate(pair, budget);
      if (parts.size() != 2) refuse("{} needs pairs, not {} values", what, parts.size());
      out.emplace_back(parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : a.named) out.emplace_back(Value::text(name), value);
  budget.spend(64 + out.size() * out.size() / 4);
  return out;
}

Value strftime_now(const Arguments& a) {
  const Value* format = a.bind("strftime_now", {"format"})[0];
  if (!format || !format->is_text() || format->as_text().size() > 256)
    refuse("strftime_now needs a format of at most 256 bytes");
  if (format->as_text().empty()) return *format;
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[2048];
  const size_t n = std::strftime(text, sizeof(text), format->as_text().c_str(), &local);
  if (n == 0) refuse("strftime_now: '{}' gives no text", format->as_text());
  return Value::text(std::string(text, n));
}

}  // namespace

bool is_global(std::string_view name) {
  return name == "range" || name == "dict" || name == "namespace" || name == "raise_exception" ||
         name == "strftime_now";
}

Value call_global(const std::string& name, const Arguments& arguments,
                  std::vector<std::shared_ptr<Namespace>>& namespaces, Budget& budget) {
  if (name == "range") return range(arguments, budget);
  if (name == "dict") return Value::dict(entries("dict", arguments, budget));
  if (name == "strftime_now") return strftime_now(arguments);
  if (name == "raise_exception") {
    const Value* message = arguments.bind(name, {"message"})[0];
    refuse("{}", message ? to_text(*message) : "the template raises an exception");
  }
  budget.spend(256);
  const auto space = std::make_shared<Namespace>();
  const Value dict = Value::dict(entries("namespace", arguments, budget));  // of equal names the last counts
  for (const Entry& e : dict.as_dict().entries) space->variables.emplace_back(to_text(e.first), e.second);
  namespaces.push_back(space);
  return Value::name_space(space);
}

}  // namespace quire::jinja
