// Methods of texts, lists and dicts: those of Python's that change nothing.
#include <algorithm>
#include <unordered_map>

#include "engine/jinja/operations.h"
#include "engine/jinja/text.h"

namespace quire::jinja {

namespace {

using Method = Value (*)(const Value& self, const Arguments& arguments, Budget& budget);
using Methods = std::unordered_map<std::string_view, Method>;

const std::string& text_argument(const Value* v, const char* what) {
  if (!v) refuse("{} needs a text", what);
  if (!v->is_text()) refuse("{} needs a text, not a {}", what, to_string(v->type()));
  return v->as_text();
}

int64_t count_argument(const Value* v, const char* what) {
  if (!v) return -1;
  if (!v->is(Type::integer)) refuse("{} needs an int, not a {}", what, to_string(v->type()));
  return v->as_integer();
}

Value list_of(const std::vector<std::string_view>& parts) {
  if (parts.size() > kMaxValueWeight) refuse("a text splits into {} parts", parts.size());
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.push_back(Value::text(std::string(part)));
  return Value::list(std::move(items));
}

template <bool kLeft, bool kRight>
Value strip_method(const Value& self, const Arguments& a, Budget&) {
  const Value* chars = a.bind("strip", {"chars"})[0];
  const bool given = chars && !chars->is(Type::none);
  return Value::text(std::string(
      strip(self.as_text(), given ? std::optional<std::string_view>(text_argument(chars, "strip")) : std::nullopt,
            kLeft, kRight)));
}

template <bool kRight>
Value split_method(const Value& self, const Arguments& a, Budget&) {
  const auto args = a.bind("split", {"sep", "maxsplit"});
  const int64_t count = count_argument(args[1], "split");
  if (!args[0] || args[0]->is(Type::none)) {
    if (kRight && count >= 0) refuse("rsplit at white space with a limit is not supported");
    return list_of(split_space(self.as_text(), count));
  }
  const std::string& separator = text_argument(args[0], "split");
  return list_of(kRight ? split_from_right(self.as_text(), separator, count) : split(self.as_text(), separator, count));
}

Value split_lines_method(const Value& self, const Arguments& a, Budget&) {
  const Value* keep = a.bind("splitlines", {"keepends"})[0];
  return list_of(split_lines(self.as_text(), keep && keep->truth()));
}

template <bool kEnd>
Value affix_method(const Value& self, const Arguments& a, Budget&) {
  const char* const what = kEnd ? "endswith" : "startswith";
  const Value* affix = a.bind(what, {"prefix"})[0];
  const std::string& text = self.as_text();
  const auto matches = [&](const Value& v) {
    const std::string& s = text_argument(&v, what);
    return s.size() <= text.size() && text.compare(kEnd ? text.size() - s.size() : 0, s.size(), s) == 0;
  };
  if (affix && affix->is(Type::list) && affix->as_list().tuple) {
    const auto& items = affix->as_list().items;
    return Value::boolean(std::any_of(items.begin(), items.end(), matches));
  }
  text_argument(affix, what);
  return Value::boolean(matches(*affix));
}

template <bool kEnd>
Value remove_affix_method(const Value& self, const Arguments& a, Budget& budget) {
  const Value* affix = a.bind(kEnd ? "removesuffix" : "removeprefix", {"affix"})[0];
  const size_t n = text_argument(affix, "removeprefix and removesuffix").size();
  if (!affix_method<kEnd>(self, a, budget).truth()) return self;
  return Value::text(self.as_text().substr(kEnd ? 0 : n, self.as_text().size() - n));
}

template <std::string (*kChange)(std::string_view)>
Value case_method(const Value& self, const Arguments& a, Budget& budget) {
  a.bind("a change of case", {});
  budget.spend(self.as_text().size() * 2);
  return Value::text(kChange(self.as_text()));
}

Value replace_method(const Value& self, const Arguments& a, Budget&) {
  const auto args = a.bind("replace", {"old", "new", "count"});
  return Value::text(replace(self.as_text(), text_argument(args[0], "replace"), text_argument(args[1], "replace"),
                             count_argument(args[2], "replace")));
}

template <bool kLast>
Value find_method(const Value& self, const Arguments& a, Budget&) {
  const std::string& needle = text_argument(a.bind("find", {"sub"})[0], "find");
  if (kLast && needle.size() > 64) refuse("rfind of {} bytes; at most 64 are supported", needle.size());
  const size_t at = kLast ? self.as_text().rfind(needle) : find_text(self.as_text(), needle, 0);
  if (at == std::string::npos) return Value::integer(-1);
  return Value::integer(static_cast<int64_t>(length(std::string_view(self.as_text()).substr(0, at))));
}

Value count_method(const Value& self, const Arguments& a, Budget&) {
  const std::string& needle = text_argument(a.bind("count", {"sub"})[0], "count");
  if (needle.empty()) return Value::integer(static_cast<int64_t>(length(self.as_text())) + 1);
  return Value::integer(static_cast<int64_t>(split(self.as_text(), needle, -1).size()) - 1);
}

Value join_method(const Value& self, const Arguments& a, Budget& budget) {
  const Value* items = a.bind("join", {"iterable"})[0];
  if (!items) refuse("join needs a list of texts");
  std::string out;
  bool first = true;
  for (const Value& item : iterate(*items, budget)) {
    if (!std::exchange(first, false)) append_text(out, self.as_text());
    append_text(out, text_argument(&item, "join"));
  }
  return Value::text(std::move(out));
}

// Python's str.format with fields by order, number or name, without conversions and format specifications.
Value format_method(const Value& self, const Arguments& a, Budget&) {
  const std::string& form = self.as_text();
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < form.size(); ++at) {
    const size_t brace = std::min(form.find_first_of("{}", at), form.size());
    append_text(out, std::string_view(form).substr(at, brace - at));
    at = brace;
    if (at == form.size()) break;
    if (at + 1 < form.size() && form[at + 1] == form[at]) {
      append_text(out, std::string_view(form).substr(at++, 1));
      continue;
    }
    const size_t end = form.find('}', at);
    if (form[at] == '}' || end == std::string::npos) refuse("format: a single '{}' in the text", form[at]);
    const std::string_view field = std::string_view(form).substr(at + 1, end - at - 1);
    const bool number = field.find_first_not_of("0123456789") == std::string_view::npos && field.size() < 4;
    const size_t index = field.empty() ? next++ : number ? size_t(std::stoi(std::string(field))) : SIZE_MAX;
    const auto named =
        std::find_if(a.named.begin(), a.named.end(), [&](const auto& argument) { return argument.first == field; });
    if (index < a.positional.size())
      append_text(out, to_text(a.positional[index]));
    else if (!field.empty() && !number && named != a.named.end())
      append_text(out, to_text(named->second));
    else
      refuse("format: there is no argument for '{{{}}}', or it is more than a name", std::string(field));
    at = end;
  }
  return Value::text(std::move(out));
}

// Like Python's is...(): all characters, and at least one.
template <bool (*kIs)(std::string_view)>
Value all_method(const Value& self, const Arguments& a, Budget& budget) {
  a.bind("a test of characters", {});
  budget.spend(self.as_text().size() * 8);
  const auto all = characters(self.as_text());
  return Value::boolean(!all.empty() && std::all_of(all.begin(), all.end(), kIs));
}

template <bool kUpper>
Value is_case_method(const Value& self, const Arguments& a, Budget& budget) {
  a.bind("a test of case", {});
  const std::string& s = self.as_text();
  budget.spend(s.size() * 4);
  const std::string upper = to_upper(s), lower = to_lower(s);
  return Value::boolean(upper != lower && s == (kUpper ? upper : lower));
}

Value items_method(const Value& self, const Arguments& a, Budget&) {
  a.bind("items", {});
  std::vector<Value> out;
  for (const Entry& e : self.as_dict().entries) out.push_back(Value::list({e.first, e.second}, true));
  return Value::list(std::move(out));
}

Value keys_method(const Value& self, const Arguments& a, Budget& budget) {
  a.bind("keys", {});
  return Value::list(iterate(self, budget));
}

Value values_method(const Value& self, const Arguments& a, Budget&) {
  a.bind("values", {});
  std::vector<Value> out;
  for (const Entry& e : self.as_dict().entries) out.push_back(e.second);
  return Value::list(std::move(out));
}

Value get_method(const Value& self, const Arguments& a, Budget&) {
  const auto args = a.bind("get", {"key", "default"});
  if (!args[0]) refuse("get needs a key");
  if (const Value* v = self.as_dict().find(*args[0])) return *v;
  return args[1] ? *args[1] : Value::none();
}

Value list_index_method(const Value& self, const Arguments& a, Budget& budget) {
  const Value* item = a.bind("index", {"value"})[0];
  if (!item) refuse("index needs a value");
  const auto& items = self.as_list().items;
  for (size_t i = 0; i < items.size(); ++i)
    if (equal(items[i], *item, budget)) return Value::integer(static_cast<int64_t>(i));
  refuse("index: the value is not in the list");
}

Value list_count_method(const Value& self, const Arguments& a, Budget& budget) {
  const Value* item = a.bind("count", {"value"})[0];
  if (!item) refuse("count needs a value");
  int64_t n = 0;
  for (const Value& v : self.as_list().items) n += equal(v, *item, budget);
  return Value::integer(n);
}

const Methods* methods_of(const Value& value) {
  static const Methods kText = {
      {"strip", strip_method<true, true>},
      {"lstrip", strip_method<true, false>},
      {"rstrip", strip_method<false, true>},
      {"split", split_method<false>},
      {"rsplit", split_method<true>},
      {"splitlines", split_lines_method},
      {"startswith", affix_method<false>},
      {"endswith", affix_method<true>},
      {"removeprefix", remove_affix_method<false>},
      {"removesuffix", remove_affix_method<true>},
      {"upper", case_method<to_upper>},
      {"lower", case_method<to_lower>},
      {"capitalize", case_method<capitalize>},
      {"title", case_method<title_method>},
      {"replace", replace_method},
      {"find", find_method<false>},
      {"rfind", find_method<true>},
      {"count", count_method},
      {"join", join_method},
      {"format", format_method},
      {"isspace", all_method<is_space>},
      {"isalpha", all_method<is_letter>},
      {"isdigit", all_method<is_digit>},
      {"isupper", is_case_method<true>},
      {"islower", is_case_method<false>},
  };
  static const Methods kDict = {
      {"items", items_method}, {"keys", keys_method}, {"values", values_method}, {"get", get_method}};
  static const Methods kList = {{"index", list_index_method}, {"count", list_count_method}};
  if (value.is_text()) return &kText;
  if (value.is(Type::list)) return &kList;
  if (value.is(Type::dict)) return &kDict;
  return nullptr;
}

}  // namespace

bool has_method(const Value& value, std::string_view name) {
  const Methods* methods = methods_of(value);
  return methods && methods->count(name) > 0;
}

Value call_method(const Callable& method, const Arguments& arguments, Budget& budget) {
  if (method.self.is_text()) budget.spend(method.self.as_text().size());
  return methods_of(method.self)->at(method.name)(method.self, arguments, budget);
}

}  // namespace quire::jinja
