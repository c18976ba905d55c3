// Filters of single values; those of lists are in list_filters.cpp.
#include "engine/jinja/filters.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "engine/jinja/operations.h"
#include "engine/jinja/text.h"

namespace quire::jinja {

namespace {

template <std::string (*kChange)(std::string_view)>
Value case_filter(const Value& value, const Arguments& a, Budget& budget) {
  a.bind("a change of case", {});
  const std::string text = to_text(value);
  budget.spend(text.size() * 2);
  return Value::text(kChange(text));
}

Value trim(const Value& value, const Arguments& a, Budget&) {
  const Value* chars = a.bind("trim", {"chars"})[0];
  const bool given = chars && !chars->is(Type::none);
  const std::string set = given ? to_text(*chars) : "";
  return Value::text(
      std::string(strip(to_text(value), given ? std::optional<std::string_view>(set) : std::nullopt, true, true)));
}

Value length_filter(const Value& value, const Arguments& a, Budget&) {
  a.bind("length", {});
  size_t n = 0;
  switch (value.type()) {
    case Type::undefined:
      break;
    case Type::text:
      n = length(value.as_text());
      break;
    case Type::list:
      n = value.as_list().items.size();
      break;
    case Type::dict:
      n = value.as_dict().entries.size();
      break;
    default:
      refuse("a {} has no length", to_string(value.type()));
  }
  return Value::integer(static_cast<int64_t>(n));
}

Value default_filter(const Value& value, const Arguments& a, Budget&) {
  const auto args = a.bind("default", {"default_value", "boolean"});
  const bool replaces = value.is(Type::undefined) || (args[1] && args[1]->truth() && !value.truth());
  return !replaces ? value : args[0] ? *args[0] : Value::text("");
}

Value tojson(const Value& value, const Arguments& a, Budget&) {
  const auto args = a.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  int64_t indent = -1;
  if (args[1] && !args[1]->is(Type::none)) {
    if (!args[1]->is(Type::integer)) refuse("tojson: indent is a {}, not an int", to_string(args[1]->type()));
    indent = std::max<int64_t>(0, args[1]->as_integer());
  }
  std::string item = indent < 0 ? ", " : ",", key = ": ";
  if (args[2] && !args[2]->is(Type::none)) {
    const bool pair = args[2]->is(Type::list) && args[2]->as_list().items.size() == 2;
    if (!pair) refuse("tojson: separators are two texts");
    item = to_text(args[2]->as_list().items[0]);
    key = to_text(args[2]->as_list().items[1]);
  }
  return Value::text(to_json(value, args[0] && args[0]->truth(), indent, args[3] && args[3]->truth(), item, key));
}

Value replace_filter(const Value& value, const Arguments& a, Budget&) {
  const auto args = a.bind("replace", {"old", "new", "count"});
  if (!args[0] || !args[1]) refuse("replace needs an old and a new text");
  const bool counted = args[2] && !args[2]->is(Type::none);
  if (counted && !args[2]->is(Type::integer)) refuse("replace: count is a {}, not an int", to_string(args[2]->type()));
  return Value::text(
      replace(to_text(value), to_text(*args[0]), to_text(*args[1]), counted ? args[2]->as_integer() : -1));
}

Value indent(const Value& value, const Arguments& a, Budget&) {
  const auto args = a.bind("indent", {"width", "first", "blank"});
  std::string space(4, ' ');
  if (args[0] && args[0]->is_text()) {
    space = args[0]->as_text();
  } else if (args[0]) {
    if (!args[0]->is(Type::integer)) refuse("indent: width is a {}, not an int or text", to_string(args[0]->type()));
    const int64_t width = args[0]->as_integer();
    if (width > 1024) refuse("indent: a width of {}; at most 1024 is supported", width);
    space = std::string(static_cast<size_t>(std::max<int64_t>(0, width)), ' ');
  }
  const bool first = args[1] && args[1]->truth(), blank = args[2] && args[2]->truth();
  const std::string text = to_text(value) + "\n";  // so that a newline at the end is followed by an empty line
  std::string out;
  size_t n = 0;
  for (const std::string_view line : split_lines(text, false)) {
    const bool indents = n == 0 ? first : blank || !line.empty();
    if (n++) append_text(out, "\n");
    if (indents) append_text(out, space);
    append_text(out, line);
  }
  return Value::text(std::move(out));
}

// The number in `text` as Python's float() reads it.
bool parse_number(std::string_view text, double& out) {
  std::string s(strip(text, std::nullopt, true, true));
  if (s.empty() || s.find_first_of("xXpP(") != std::string::npos) return false;  // strtod's own forms
  char* end = nullptr;
  out = std::strtod(s.c_str(), &end);
  return end == s.c_str() + s.size();
}

bool parse_integer(std::string_view text, int base, int64_t& out) {
  const std::string s(strip(text, std::nullopt, true, true));
  if (s.empty()) return false;
  char* end = nullptr;
  errno = 0;
  out = std::strtoll(s.c_str(), &end, base);
  if (errno == ERANGE) refuse("int: '{}' does not fit 64 bits", s.substr(0, 40));
  return end == s.c_str() + s.size();
}

Value int_filter(const Value& value, const Arguments& a, Budget&) {
  const auto args = a.bind("int", {"default", "base"});
  Value fallback = args[0] ? *args[0] : Value::integer(0);
  int64_t base = 10;
  if (args[1]) base = args[1]->is(Type::integer) ? args[1]->as_integer() : 0;
  if (base != 2 && base != 8 && base != 10 && base != 16) refuse("int: base must be 2, 8, 10 or 16");
  if (value.is(Type::undefined)) refuse("int: {}", value.hint());
  if (value.is(Type::integer) || value.is(Type::boolean)) return Value::integer(value.as_integer());
  int64_t integer = 0;
  double number = 0;
  if (value.is(Type::number))
    number = value.as_number();
  else if (!value.is_text())
    return fallback;
  else if (parse_integer(value.as_text(), static_cast<int>(base), integer))
    return Value::integer(integer);
  else if (!parse_number(value.as_text(), number))
    return fallback;
  if (std::isnan(number)) return fallback;
  if (std::fabs(number) >= 9.2e18) refuse("int: {} does not fit 64 bits", number);
  return Value::integer(static_cast<int64_t>(number));
}

Value float_filter(const Value& value, const Arguments& a, Budget&) {
  const Value* fallback = a.bind("float", {"default"})[0];
  if (value.is(Type::undefined)) refuse("float: {}", value.hint());
  double number = 0;
  if (value.is_numeric()) return Value::number(value.as_number());
  if (value.is_text() && parse_number(value.as_text(), number)) return Value::number(number);
  return fallback ? *fallback : Value::number(0);
}

Value string_filter(const Value& value, const Arguments& a, Budget&) {
  a.bind("string", {});
  return Value::text(to_text(value));
}

Value safe(const Value& value, const Arguments& a, Budget&) {  // nothing is escaped, so everything is safe
  a.bind("safe", {});
  return value;
}

Value escape(const Value& value, const Arguments& a, Budget&) {
  a.bind("escape", {});
  std::string out;
  for (const char c : to_text(value))
    append_text(out, c == '&'    ? "&amp;"
                     : c == '<'  ? "&lt;"
                     : c == '>'  ? "&gt;"
                     : c == '"'  ? "&#34;"
                     : c == '\'' ? "&#39;"
                                 : std::string_view(&c, 1));
  return Value::text(std::move(out));
}

Value abs_filter(const Value& value, const Arguments& a, Budget&) {
  a.bind("abs", {});
  if (!value.is_numeric()) refuse("abs of a {}", to_string(value.type()));
  if (value.is(Type::number)) return Value::number(std::fabs(value.as_number()));
  return value.as_integer() < 0 ? negative(value) : Value::integer(value.as_integer());
}

Value round_filter(const Value& value, const Arguments& a, Budget&) {
  const auto args = a.bind("round", {"precision", "method"});
  if (!value.is_numeric()) refuse("round of a {}", to_string(value.type()));
  const int64_t precision = args[0] && args[0]->is(Type::integer) ? args[0]->as_integer() : 0;
  if (precision < 0 || precision > 15) refuse("round: a precision of {}; 0 to 15 are supported", precision);
  const std::string method = args[1] ? to_text(*args[1]) : "common";
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::number(std::ceil(value.as_number() * scale) / scale);
  if (method == "floor") return Value::number(std::floor(value.as_number() * scale) / scale);
  if (method != "common") refuse("round: method '{}'; common, ceil and floor are known", method);
  if (!value.is(Type::number)) return Value::integer(value.as_integer());
  return Value::number(std::strtod(fmt::format("{:.{}f}", value.as_number(), precision).c_str(), nullptr));
}

}  // namespace

const Filters& value_filters() {
  static const Filters kFilters = {
      {"upper", case_filter<to_upper>},
      {"lower", case_filter<to_lower>},
      {"capitalize", case_filter<capitalize>},
      {"title", case_filter<title_filter>},
      {"trim", trim},
      {"length", length_filter},
      {"count", length_filter},
      {"default", default_filter},
      {"d", default_filter},
      {"tojson", tojson},
      {"replace", replace_filter},
      {"indent", indent},
      {"int", int_filter},
      {"float", float_filter},
      {"string", string_filter},
      {"safe", safe},
      {"escape", escape},
      {"e", escape},
      {"abs", abs_filter},
      {"round", round_filter},
  };
  return kFilters;
}

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments, Budget& budget) {
  budget.spend(value.is_text() ? value.as_text().size() : value.weight());
  for (const Filters* filters : {&value_filters(), &list_filters()})
    if (const auto it = filters->find(name); it != filters->end()) {
      Value result = it->second(value, arguments, budget);
      budget.spend(result.is_text() ? result.as_text().size() / 2 : 0);  // here, as map applies filters many times
      return result;
    }
  refuse("filter '{}' is not supported", name);
}

}  // namespace quire::jinja
