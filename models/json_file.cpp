#include "models/json_file.h"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <unordered_set>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/printable.h"

namespace quire {

namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxCost = 30;    // memory of a parsed text to its bytes
constexpr size_t kSmallest = 256;  // shorter texts may cost as much as one of so many bytes

[[noreturn]] void wrong_type(const JsonObject& object, const std::string& key, const Json& value, const char* wanted) {
  fail(fmt::format("{}: '{}' must be {} and is {}", object.where(), printable(key), wanted, printable_json(value)));
}

// Bounds what a parsed text takes on the heap: its values and names, and, at one time or another, a string as the lexer
// collects it, an array as it grows, or the list in which ~Json() keeps the values that are still to go (those of all
// containers around the one it takes apart; never less than the array).
class Cost {
 public:
  void value() {
    if (open_.empty()) return;
    Container& c = open_.back();
    ++c.size;
    if (++waiting_ > most_waiting_) most_waiting_ = waiting_;
    if (open_.size() == 1) outermost_ = c.size;
    if (c.array && c.size == 1) fixed_ += block(kValue);
    if (c.array && std::has_single_bit(c.size - 1))
      fixed_ += (c.size - 1) * kValue;  // an array doubles when it is full
  }
  void text(size_t size) {
    fixed_ += block(sizeof(std::string)) + characters(size);
    longest_ = std::max(longest_, size);
  }
  void key(size_t size) {
    fixed_ += block(kTreeNode + sizeof(std::string) + kValue) + characters(size);
    longest_ = std::max(longest_, size);
  }
  void open(bool array) {
    value();
    fixed_ += block(array ? sizeof(Json::array_t) : sizeof(Json::object_t));
    open_.push_back({array, 0});
  }
  void close() {
    if (open_.back().array)
      waiting_ -= open_.back().size;  // ~Json() takes the last element first, as they are read last
    open_.pop_back();
  }
  size_t bytes() const {
    const size_t list = most_waiting_ > outermost_ ? 3 * most_waiting_ : outermost_;  // old and new one as it doubles
    return fixed_ + std::max(kValue * list, 6 * longest_);
  }

 private:
  static constexpr size_t kValue = sizeof(Json), kTreeNode = 32;
  static size_t block(size_t n) { return (n + 8 + 15) / 16 * 16 - 8; }  // as malloc rounds it
  static size_t characters(size_t n) { return n < 16 ? 0 : block(n + 1); }

  struct Container {
    bool array;
    size_t size;  // so far
  };
  std::vector<Container> open_;
  size_t fixed_ = 0, longest_ = 0, waiting_ = 0, most_waiting_ = 0, outermost_ = 0;
};

// Goes through a text before it is parsed. (The parser's own callback would cost the square of an array's length.)
struct Watch {
  const std::string& where;
  size_t size;                                        // of the text
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  Cost cost;
  int depth = 0;

  bool value() {
    cost.value();
    return paid();
  }
  bool paid() {
    check(cost.bytes() <= kMaxCost * std::max(size, kSmallest),
          "{}: {} bytes with so many empty or tiny values are refused: they would take {} times that", where, size,
          kMaxCost);
    return true;
  }
  bool null() { return value(); }
  bool boolean(bool) { return value(); }
  bool number_integer(int64_t) { return value(); }
  bool number_unsigned(uint64_t) { return value(); }
  bool number_float(double, const std::string&) { return value(); }
  bool string(std::string& text) {
    cost.text(text.size());
    return value();
  }
  bool binary(Json::binary_t&) { return true; }
  bool start_object(size_t) {
    keys.emplace_back();
    return start(false);
  }
  bool key(std::string& key) {
    check(keys.back().insert(key).second, "{}: key '{}' appears twice in an object", where, printable(key));
    cost.key(key.size());
    return true;
  }
  bool end_object() {
    keys.pop_back();
    return end_array();
  }
  bool start_array(size_t) { return start(true); }
  bool start(bool array) {
    check(++depth <= kMaxDepth, "{}: nested deeper than {}", where, kMaxDepth);
    cost.open(array);
    return paid();
  }
  bool end_array() {
    cost.close();
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

  KeyWatch(const std::string& where, const std::vector<std::string>& path, size_t size)
      : Watch{where, size, {}, {}}, path(path) {}
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
  KeyWatch watch(where, path, text.size());
  Json::sax_parse(text.begin(), text.end(), &watch);
  return std::move(watch.found);
}

Json parse_json(std::string_view text, const std::string& where) {
  {
    Watch watch{where, text.size(), {}, {}};
    Json::sax_parse(text.begin(), text.end(), &watch);
  }
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
