#pragma once
#include <string_view>
#include <unordered_map>

#include "engine/jinja/value.h"

namespace quire::jinja {

using Filter = Value (*)(const Value& value, const Arguments& arguments, Budget& budget);
using Filters = std::unordered_map<std::string_view, Filter>;
const Filters& value_filters();
const Filters& list_filters();

}  // namespace quire::jinja
