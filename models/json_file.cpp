#include "models/json_file.h"

#include <algorithm>
#include <filesystem>
#include <unordered_set>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/printable.h"

namespace quire {

namespace {

constexpr int kMaxDepth = 64;

[[noreturn]] void wrong_type(const JsonObject& object, const std::string& key, const Json& value, const char* wanted) {
  fail(fmt::format("{}: '{}' must be {} and is {}", object.where(), printable(key), wanted, printable_json(value)));
}

// Goes through a text before it is parsed. (The parser's own callback would cost the square of an array's length.)
struct Watch {
  const std::string& where;
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  int depth;

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(int64_t) { return true; }
  bool number_unsigned(uint64_t) { return true; }
  bool number_float(double, const std::string&) { return true; }
  bool string(std::string&) { return true; }
  bool binary(Json::binary_t&) { return true; }
  bool start_object(size_t) {
    keys.emplace_back();
    return start_array(0);
  }
  bool key(std::string& key) {
    check(keys.back().insert(key).second, "{}: key '{}' appears twice in an object", where, printable(key));
    return true;
  }
  bool end_object() {
    keys.pop_back();
    return end_array();
  }
  bool start_array(size_t) {
    check(++depth <= kMaxDepth, "{}: nested deeper than {}", where, kMaxDepth);
    return true;
  }
  bool end_array() {
    --depth;
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception& e) {
    fail(fmt::format("{}: not valid JSON: {}", where, printable(e.what(), 300)));
  }
};

struct KeyWatch : Watch {
  const std::vector<std::string>& path;
  std::vector<std::string> open, found;  // open: the last key of each object or array around

  KeyWatch(const std::string& where, const std::vector<std::string>& path) : Watch{where, {}, 0}, path(path) {}
  bool start_object(size_t n) {
    open.emplace_back();
    return Watch::start_object(n);
  }
  bool start_array(size_t n) {
    open.emplace_back();
    return Watch::start_array(n);
  }
  bool end_object() {
    open.pop_back();
    return Watch::end_object();
  }
  bool end_array() {
    open.pop_back();
    return Watch::end_array();
  }
  bool key(std::string& key) {
    Watch::key(key);
    open.back() = key;
    if (open.size() == path.size() + 1 && std::equal(path.begin(), path.end(), open.begin())) found.push_back(key);
    return true;
  }
};

}  // namespace

std::vector<std::string> keys_in_order(std::string_view text, const std::vector<std::string>& path,
                                       const std::string& where) {
  KeyWatch watch(where, path);
  Json::sax_parse(text.begin(), text.end(), &watch);
  return std::move(watch.found);
}

Json parse_json(std::string_view text, const std::string& where) {
  Watch watch{where, {}, 0};
  Json::sax_parse(text.begin(), text.end(), &watch);
  return Json::parse(text.begin(), text.end());
}

Json read_json_file(const std::string& path, size_t max_bytes) {
  // Reading a named pipe would wait for ever.
  std::error_code unknown;  // what cannot be looked at is reported by whoever opens it
  const bool other = std::filesystem::exists(path, unknown) && !std::filesystem::is_regular_file(path, unknown);
  check(!other, "'{}' is not a regular file", path);
  return parse_json(read_text_file(path, max_bytes), fmt::format("'{}'", path));
}

JsonObject::JsonObject(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
  check(json.is_object(), "{}: an object is needed, not {}", where_, printable_json(json));
}

const Json* JsonObject::find(const std::string& key) const {
  const auto it = json_.find(key);
  return it == json_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<int64_t> JsonObject::integer(const std::string& key) const {
  const Json* v = find(key);
  if (!v) return std::nullopt;
  const bool fits = v->is_number_integer() && (!v->is_number_unsigned() || v->get<uint64_t>() <= uint64_t(INT64_MAX));
  if (!fits) wrong_type(*this, key, *v, "an integer");
  return v->get<int64_t>();
}

std::optional<double> JsonObject::number(const std::string& key) const {
  const Json* v = find(key);
  if (!v) return std::nullopt;
  if (!v->is_number()) wrong_type(*this, key, *v, "a number");
  return v->get<double>();
}

std::optional<bool> JsonObject::boolean(const std::string& key) const {
  const Json* v = find(key);
  if (!v) return std::nullopt;
  if (!v->is_boolean()) wrong_type(*this, key, *v, "true or false");
  return v->get<bool>();
}

std::optional<std::string> JsonObject::text(const std::string& key) const {
  const Json* v = find(key);
  if (!v) return std::nullopt;
  if (!v->is_string()) wrong_type(*this, key, *v, "a string");
  return v->get<std::string>();
}

std::optional<JsonObject> JsonObject::object(const std::string& key) const {
  const Json* v = find(key);
  if (!v) return std::nullopt;
  if (!v->is_object()) wrong_type(*this, key, *v, "an object");
  return JsonObject(*v, fmt::format("{}, '{}'", where_, printable(key)));
}

const Json* JsonObject::array(const std::string& key) const {
  const Json* v = find(key);
  if (v && !v->is_array()) wrong_type(*this, key, *v, "an array");
  return v;
}

int64_t JsonObject::needed_integer(const std::string& key) const {
  const auto value = integer(key);
  check(value.has_value(), "{}: '{}' is missing", where_, key);
  return *value;
}

std::string printable_json(const Json& value) {
  if (value.is_string()) return "\"" + printable(value.get_ref<const std::string&>(), 200) + "\"";
  if (value.is_structured() && value.size() > 16) {
    return fmt::format("{} of {}", value.is_array() ? "an array" : "an object", value.size());
  }
  return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace), 200);
}

}  // namespace quire
