// What expressions can do with values.
#pragma once
#include <string>
#include <string_view>

#include "engine/jinja/value.h"

namespace quire::jinja {

Value arithmetic(std::string_view op, const Value& a, const Value& b, Budget& budget);  // + - * / // % **
Value negative(const Value& a);

// value.name: methods first, then keys of a dict; value[key]: the other way round. What is missing is undefined.
Value attribute(const Value& value, const std::string& name);
Value subscript(const Value& value, const Value& key, Budget& budget);
Value slice(const Value& value, const Value& start, const Value& stop, const Value& step, Budget& budget);

// Each Failure names what is not known.
Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments, Budget& budget);
bool apply_test(const std::string& name, const Value& value, const Arguments& arguments, Budget& budget);
Value call_method(const Callable& method, const Arguments& arguments, Budget& budget);
bool has_method(const Value& value, std::string_view name);
bool is_global(std::string_view name);
// namespaces: where new ones are kept.
Value call_global(const std::string& name, const Arguments& arguments,
                  std::vector<std::shared_ptr<Namespace>>& namespaces, Budget& budget);

}  // namespace quire::jinja
