#include "engine/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "engine/jinja/text.h"

namespace quire::jinja {

void append_text(std::string& out, std::string_view piece) {
  if (out.size() + piece.size() > kMaxText) refuse("a text passes {} bytes", kMaxText);
  out += piece;
}

const char* to_string(Type type) {
  static const char* const kNames[] = {"undefined", "none", "bool",      "int",      "float", "str",
                                       "list",      "dict", "namespace", "function", "loop"};
  return kNames[static_cast<size_t>(type)];
}

Value Value::undefined(std::string hint) {
  Value v;
  v.data_ = Undefined{std::make_shared<const std::string>(std::move(hint))};
  return v;
}

Value Value::none() {
  Value v;
  v.data_ = std::monostate();
  return v;
}

Value Value::boolean(bool value) {
  Value v;
  v.data_ = value;
  return v;
}

Value Value::integer(int64_t value) {
  Value v;
  v.data_ = value;
  return v;
}

Value Value::number(double value) {
  Value v;
  v.data_ = value;
  return v;
}

Value Value::text(std::string value) {
  if (value.size() > kMaxText) refuse("a text passes {} bytes", kMaxText);
  Value v;
  v.data_ = std::make_shared<const std::string>(std::move(value));
  return v;
}

namespace {

// Nested values are walked by recursion (to print, compare, destroy), and inner lists can be shared many times over.
template <class Container>
void take_in(Container& container, const Value& item) {
  container.depth = std::max(container.depth, item.depth() + 1);
  container.weight += item.weight();
  if (container.depth > kMaxValueDepth) refuse("lists and dicts nest more than {} deep", kMaxValueDepth);
  if (container.weight > kMaxValueWeight) refuse("a list or dict holds more than {} values", kMaxValueWeight);
}

bool hashable(const Value& key) { return key.is(Type::none) || key.is_numeric() || key.is_text(); }

bool same_key(const Value& a, const Value& b) {
  if (a.is_text() || b.is_text()) return a.is_text() && b.is_text() && a.as_text() == b.as_text();
  if (a.is(Type::none) || b.is(Type::none)) return a.type() == b.type();
  return a.is_numeric() && b.is_numeric() && a.as_number() == b.as_number();
}

}  // namespace

Value Value::list(std::vector<Value> items, bool tuple) {
  auto list = std::make_shared<List>();
  list->tuple = tuple;
  for (const Value& item : items) take_in(*list, item);
  list->items = std::move(items);
  Value v;
  v.data_ = std::shared_ptr<const List>(std::move(list));
  return v;
}

Value Value::dict(std::vector<Entry> entries) {
  auto dict = std::make_shared<Dict>();
  if (entries.size() > 4096) refuse("a dict of {} entries; at most 4096 are supported", entries.size());
  for (Entry& entry : entries) {
    if (!hashable(entry.first)) refuse("a {} cannot be the key of a dict", to_string(entry.first.type()));
    take_in(*dict, entry.second);
    const auto at = std::find_if(dict->entries.begin(), dict->entries.end(),
                                 [&](const Entry& e) { return same_key(e.first, entry.first); });
    if (at == dict->entries.end())
      dict->entries.push_back(std::move(entry));
    else
      at->second = std::move(entry.second);
  }
  Value v;
  v.data_ = std::shared_ptr<const Dict>(std::move(dict));
  return v;
}

Value Value::name_space(std::shared_ptr<Namespace> value) {
  Value v;
  v.data_ = std::move(value);
  return v;
}

Value Value::callable(Callable value) {
  Value v;
  v.data_ = std::make_shared<const Callable>(std::move(value));
  return v;
}

Value Value::loop(Loop value) {
  Value v;
  v.data_ = std::make_shared<const Loop>(std::move(value));
  return v;
}

int64_t Value::as_integer() const { return is(Type::boolean) ? as_boolean() : std::get<int64_t>(data_); }
double Value::as_number() const {
  return is(Type::number) ? std::get<double>(data_) : static_cast<double>(as_integer());
}

const std::string& Value::hint() const {
  static const std::string kUnknown = "a value is undefined";
  const auto& hint = std::get<Undefined>(data_).hint;
  return hint ? *hint : kUnknown;
}

bool Value::truth() const {
  switch (type()) {
    case Type::undefined:
    case Type::none:
      return false;
    case Type::boolean:
    case Type::integer:
      return as_integer() != 0;
    case Type::number:
      return as_number() != 0;
    case Type::text:
      return !as_text().empty();
    case Type::list:
      return !as_list().items.empty();
    case Type::dict:
      return !as_dict().entries.empty();
    case Type::name_space:
    case Type::callable:
    case Type::loop:
      return true;
  }
  return false;
}

bool Value::same(const Value& other) const {
  if (type() != other.type()) return false;
  switch (type()) {
    case Type::undefined:
      return std::get<Undefined>(data_).hint == std::get<Undefined>(other.data_).hint;
    case Type::none:
      return true;
    case Type::boolean:
      return as_boolean() == other.as_boolean();
    case Type::integer:
      return as_integer() == other.as_integer();
    case Type::number:
      return as_number() == other.as_number();
    default:
      return data_ == other.data_;  // pointers
  }
}

uint32_t Value::depth() const {
  if (is(Type::loop)) return as_loop().items.depth() + 1;
  return is(Type::list) ? as_list().depth : is(Type::dict) ? as_dict().depth : 0;
}

uint64_t Value::weight() const {
  if (is(Type::loop)) return as_loop().items.weight() + 1;
  return is(Type::list) ? as_list().weight : is(Type::dict) ? as_dict().weight : 1;
}

const Value* Dict::find(std::string_view key) const {
  for (const Entry& e : entries)
    if (e.first.is_text() && e.first.as_text() == key) return &e.second;
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  for (const Entry& e : entries)
    if (same_key(e.first, key)) return &e.second;
  return nullptr;
}

std::vector<const Value*> Arguments::bind(std::string_view what, std::initializer_list<const char*> names) const {
  if (positional.size() > names.size())
    refuse("{} takes at most {} arguments, not {}", what, names.size(), positional.size());
  std::vector<const Value*> bound(names.size(), nullptr);
  for (size_t i = 0; i < positional.size(); ++i) bound[i] = &positional[i];
  for (const auto& [name, value] : named) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) refuse("{} takes no argument '{}'", what, name);
    const Value*& slot = bound[static_cast<size_t>(at - names.begin())];
    if (slot) refuse("{}: argument '{}' is given twice", what, name);
    slot = &value;
  }
  return bound;
}

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (a.is_numeric() && b.is_numeric()) return compare(a, b, budget) == 0;
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::undefined:
    case Type::none:
      return true;
    case Type::text:
      budget.spend(std::min(a.as_text().size(), b.as_text().size()) / 64);
      return a.as_text() == b.as_text();
    case Type::list: {
      const List &x = a.as_list(), &y = b.as_list();
      if (x.tuple != y.tuple || x.items.size() != y.items.size()) return false;
      for (size_t i = 0; i < x.items.size(); ++i)
        if (!equal(x.items[i], y.items[i], budget)) return false;
      return true;
    }
    case Type::dict: {
      const Dict &x = a.as_dict(), &y = b.as_dict();
      if (x.entries.size() != y.entries.size()) return false;
      for (const Entry& e : x.entries) {
        budget.spend(y.entries.size());
        const Value* other = y.find(e.first);
        if (!other || !equal(e.second, *other, budget)) return false;
      }
      return true;
    }
    default:
      return a.same(b);
  }
}

int compare(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (a.is_numeric() && b.is_numeric()) {
    if (a.is(Type::number) || b.is(Type::number)) {
      const double x = a.as_number(), y = b.as_number();
      if (std::isnan(x) || std::isnan(y)) refuse("nan cannot be compared");
      return x < y ? -1 : x > y;
    }
    return a.as_integer() < b.as_integer() ? -1 : a.as_integer() > b.as_integer();
  }
  if (a.is_text() && b.is_text()) {
    budget.spend(std::min(a.as_text().size(), b.as_text().size()) / 64);
    const int order = a.as_text().compare(b.as_text());  // UTF-8 keeps the order of code points
    return order < 0 ? -1 : order > 0;
  }
  if (a.is(Type::list) && b.is(Type::list)) {
    const auto &x = a.as_list().items, &y = b.as_list().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i], budget)) return compare(x[i], y[i], budget);
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  if (a.is(Type::undefined)) refuse("{}", a.hint());
  if (b.is(Type::undefined)) refuse("{}", b.hint());
  refuse("a {} and a {} have no order", to_string(a.type()), to_string(b.type()));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  switch (container.type()) {
    case Type::undefined:
      return false;
    case Type::text:
      if (!item.is_text()) refuse("'in' a text needs a text on its left, not a {}", to_string(item.type()));
      budget.spend(container.as_text().size() / 2);
      return find_text(container.as_text(), item.as_text(), 0) != std::string::npos;
    case Type::list:
      for (const Value& v : container.as_list().items)
        if (equal(v, item, budget)) return true;
      return false;
    case Type::dict:
      budget.spend(container.as_dict().entries.size());
      return container.as_dict().find(item) != nullptr;
    default:
      refuse("'in' needs a text, list or dict on its right, not a {}", to_string(container.type()));
  }
}

std::vector<Value> iterate(const Value& value, Budget& budget) {
  std::vector<Value> out;
  switch (value.type()) {
    case Type::undefined:
      break;
    case Type::text:
      budget.spend(value.as_text().size() * 16);
      if (value.as_text().size() > kMaxValueWeight)
        refuse("a text of {} bytes cannot be iterated", value.as_text().size());
      for (const std::string_view c : characters(value.as_text())) out.push_back(Value::text(std::string(c)));
      break;
    case Type::list:
      budget.spend(value.as_list().items.size() * 4);
      out = value.as_list().items;
      break;
    case Type::dict:
      budget.spend(value.as_dict().entries.size() * 4);
      for (const Entry& e : value.as_dict().entries) out.push_back(e.first);
      break;
    default:
      refuse("a {} cannot be iterated", to_string(value.type()));
  }
  return out;
}

}  // namespace quire::jinja
