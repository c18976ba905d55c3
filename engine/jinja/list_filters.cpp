#include <algorithm>
#include <charconv>

#include "engine/jinja/filters.h"
#include "engine/jinja/operations.h"
#include "engine/jinja/text.h"

namespace quire::jinja {

namespace {

// "a.b.0": what attribute= and selectattr name.
Value value_at(Value value, const Value& path, Budget& budget) {
  if (!path.is_text()) return subscript(value, path, budget);
  for (const std::string_view part : split(path.as_text(), ".", -1)) {
    int64_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = error == std::errc() && end == part.data() + part.size();
    value = subscript(value, is_index ? Value::integer(index) : Value::text(std::string(part)), budget);
  }
  return value;
}

bool given(const Value* v) { return v && !v->is(Type::none); }

// What is compared: the attribute if there is one, without case unless asked for.
Value sort_key(const Value& item, const Value* attribute, bool with_case, Budget& budget) {
  Value key = given(attribute) ? value_at(item, *attribute, budget) : item;
  if (!key.is_text() || with_case) return key;
  budget.spend(key.as_text().size() * 2);
  return Value::text(to_lower(key.as_text()));
}

void sort_by(std::vector<Value>& items, const std::vector<Value>& keys, bool reverse, Budget& budget) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // Reversed, equal ones still keep their order, as in Python.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? compare(keys[b], keys[a], budget) < 0 : compare(keys[a], keys[b], budget) < 0;
  });
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t i : order) sorted.push_back(items[i]);
  items = std::move(sorted);
}

Value sort(const Value& value, const Arguments& a, Budget& budget) {
  const auto args = a.bind("sort", {"reverse", "case_sensitive", "attribute"});
  std::vector<Value> items = iterate(value, budget), keys;
  for (const Value& item : items) keys.push_back(sort_key(item, args[2], args[1] && args[1]->truth(), budget));
  sort_by(items, keys, args[0] && args[0]->truth(), budget);
  return Value::list(std::move(items));
}

Value dictsort(const Value& value, const Arguments& a, Budget& budget) {
  const auto args = a.bind("dictsort", {"case_sensitive", "by", "reverse"});
  if (!value.is(Type::dict)) refuse("dictsort of a {}", to_string(value.type()));
  const std::string by = args[1] ? to_text(*args[1]) : "key";
  if (by != "key" && by != "value") refuse("dictsort by '{}'; key and value are known", by);
  std::vector<Value> items, keys;
  for (const Entry& e : value.as_dict().entries) {
    items.push_back(Value::list({e.first, e.second}, true));
    keys.push_back(sort_key(by == "key" ? e.first : e.second, nullptr, args[0] && args[0]->truth(), budget));
  }
  sort_by(items, keys, args[2] && args[2]->truth(), budget);
  return Value::list(std::move(items));
}

template <bool kMax>
Value extreme(const Value& value, const Arguments& a, Budget& budget) {
  const auto args = a.bind(kMax ? "max" : "min", {"case_sensitive", "attribute"});
  const std::vector<Value> items = iterate(value, budget);
  if (items.empty()) return Value::undefined("the list is empty");
  const bool with_case = args[0] && args[0]->truth();
  size_t best = 0;
  Value best_key = sort_key(items[0], args[1], with_case, budget);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = sort_key(items[i], args[1], with_case, budget);
    const int order = compare(key, best_key, budget);
    if (kMax ? order <= 0 : order >= 0) continue;
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Value unique(const Value& value, const Arguments& a, Budget& budget) {
  const auto args = a.bind("unique", {"case_sensitive", "attribute"});
  std::vector<Value> out, seen;
  for (const Value& item : iterate(value, budget)) {
    Value key = sort_key(item, args[1], args[0] && args[0]->truth(), budget);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return equal(s, key, budget); })) continue;
    seen.push_back(std::move(key));
    out.push_back(item);
  }
  return Value::list(std::move(out));
}

Value join(const Value& value, const Arguments& a, Budget& budget) {
  const auto args = a.bind("join", {"d", "attribute"});
  const std::string between = args[0] ? to_text(*args[0]) : "";
  std::string out;
  bool first = true;
  for (const Value& item : iterate(value, budget)) {
    if (!std::exchange(first, false)) append_text(out, between);
    append_text(out, to_text(given(args[1]) ? value_at(item, *args[1], budget) : item));
  }
  return Value::text(std::move(out));
}

template <bool kLast>
Value end_item(const Value& value, const Arguments& a, Budget& budget) {
  a.bind(kLast ? "last" : "first", {});
  const std::vector<Value> items = iterate(value, budget);
  if (items.empty()) return Value::undefined("the list is empty");
  return kLast ? items.back() : items.front();
}

Value list(const Value& value, const Arguments& a, Budget& budget) {
  a.bind("list", {});
  return Value::list(iterate(value, budget));
}

Value reverse(const Value& value, const Arguments& a, Budget& budget) {
  a.bind("reverse", {});
  std::vector<Value> items = iterate(value, budget);
  std::reverse(items.begin(), items.end());
  if (!value.is_text()) return Value::list(std::move(items));
  std::string out;
  for (const Value& c : items) out += c.as_text();
  return Value::text(std::move(out));
}

Value items(const Value& value, const Arguments& a, Budget& budget) {
  a.bind("items", {});
  if (value.is(Type::undefined)) return Value::list({});
  if (!value.is(Type::dict)) refuse("items of a {}", to_string(value.type()));
  return call_method({Callable::Kind::method, "items", value}, {}, budget);
}

Value sum(const Value& value, const Arguments& a, Budget& budget) {
  const auto args = a.bind("sum", {"attribute", "start"});
  Value total = args[1] ? *args[1] : Value::integer(0);
  for (const Value& item : iterate(value, budget))
    total = arithmetic("+", total, given(args[0]) ? value_at(item, *args[0], budget) : item, budget);
  return total;
}

// As Jinja's map, select and their kin: what is false, be it none or undefined, has no items.
std::vector<Value> items_if_any(const Value& value, Budget& budget) {
  return value.truth() ? iterate(value, budget) : std::vector<Value>{};
}

Value map(const Value& value, const Arguments& a, Budget& budget) {
  std::vector<Value> out;
  if (a.positional.empty()) {
    const auto args = a.bind("map", {"attribute", "default"});
    if (!args[0]) refuse("map needs the name of a filter or an attribute");
    for (const Value& item : items_if_any(value, budget)) {
      out.push_back(value_at(item, *args[0], budget));
      if (out.back().is(Type::undefined) && args[1]) out.back() = *args[1];
    }
    return Value::list(std::move(out));
  }
  if (!a.positional[0].is_text()) refuse("map needs the name of a filter, not a {}", to_string(a.positional[0].type()));
  const Arguments rest{{a.positional.begin() + 1, a.positional.end()}, a.named};
  for (const Value& item : items_if_any(value, budget))
    out.push_back(apply_filter(a.positional[0].as_text(), item, rest, budget));
  return Value::list(std::move(out));
}

template <bool kKeep, bool kAttribute>
Value select(const Value& value, const Arguments& a, Budget& budget) {
  const size_t first = kAttribute ? 1 : 0;
  if (a.positional.size() < first) refuse("selectattr and rejectattr need the name of an attribute");
  const bool has_test = a.positional.size() > first;
  if (has_test && !a.positional[first].is_text())
    refuse("the name of a test is a {}, not a text", to_string(a.positional[first].type()));
  const Arguments rest{{a.positional.begin() + static_cast<ptrdiff_t>(first + has_test), a.positional.end()}, a.named};
  std::vector<Value> out;
  for (const Value& item : items_if_any(value, budget)) {
    const Value tested = kAttribute ? value_at(item, a.positional[0], budget) : item;
    const bool holds = has_test ? apply_test(a.positional[first].as_text(), tested, rest, budget) : tested.truth();
    if (holds == kKeep) out.push_back(item);
  }
  return Value::list(std::move(out));
}

}  // namespace

const Filters& list_filters() {
  static const Filters kFilters = {
      {"sort", sort},
      {"dictsort", dictsort},
      {"min", extreme<false>},
      {"max", extreme<true>},
      {"unique", unique},
      {"join", join},
      {"first", end_item<false>},
      {"last", end_item<true>},
      {"list", list},
      {"reverse", reverse},
      {"items", items},
      {"sum", sum},
      {"map", map},
      {"select", select<true, false>},
      {"reject", select<false, false>},
      {"selectattr", select<true, true>},
      {"rejectattr", select<false, true>},
  };
  return kFilters;
}

}  // namespace quire::jinja
