// Values of the template language. They never change once made (HuggingFace's sandbox forbids templates to change lists
// and dicts, too); only namespaces can be assigned to.
#pragma once
#include <fmt/core.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace quire::jinja {

// Thrown by operations that do not know where in the template they stand; the evaluator adds the line and makes it an
// Error.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(fmt::format(format, std::forward<Args>(args)...));
}

// What a template may use up, so that every one ends. A unit is about 10 ns; none that serves a conversation comes
// near.
struct Budget {
  uint64_t left = 200'000'000;
  void spend(uint64_t units) {
    if (units > left) refuse("the template takes too long (its budget of steps and text is spent)");
    left -= units;
  }
};
constexpr size_t kMaxText = 16u << 20;          // bytes of one string, and of the output
constexpr uint32_t kMaxValueDepth = 100;        // lists in lists
constexpr uint64_t kMaxValueWeight = 4u << 20;  // elements, those of inner lists counted too
constexpr int64_t kMaxRange = 100000;           // as in Jinja's sandbox

void append_text(std::string& out, std::string_view piece);  // Failure above kMaxText

class Value;
using Entry = std::pair<Value, Value>;
struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

enum class Type : uint8_t { undefined, none, boolean, integer, number, text, list, dict, name_space, callable, loop };
const char* to_string(Type type);

class Value {
 public:
  Value() = default;                         // undefined
  static Value undefined(std::string hint);  // hint: what is missing, for errors ("'x' is undefined")
  static Value none();
  static Value boolean(bool value);
  static Value integer(int64_t value);
  static Value number(double value);
  static Value text(std::string value);
  static Value list(std::vector<Value> items, bool tuple = false);
  static Value dict(std::vector<Entry> entries);  // of equal keys the last one's value
  static Value name_space(std::shared_ptr<Namespace> value);
  static Value callable(Callable value);
  static Value loop(Loop value);

  Type type() const { return static_cast<Type>(data_.index()); }
  bool is(Type t) const { return type() == t; }
  bool is_text() const { return is(Type::text); }
  bool is_numeric() const {
    return is(Type::boolean) || is(Type::integer) || is(Type::number);
  }  // bool is a number in Python

  // Of the type asked for, which the caller has checked.
  bool as_boolean() const { return std::get<bool>(data_); }
  int64_t as_integer() const;  // boolean, too
  double as_number() const;    // integer and boolean, too
  const std::string& as_text() const { return *std::get<Text>(data_); }
  const List& as_list() const { return *std::get<std::shared_ptr<const List>>(data_); }
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Namespace& as_namespace() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  const Callable& as_callable() const { return *std::get<std::shared_ptr<const Callable>>(data_); }
  const Loop& as_loop() const { return *std::get<std::shared_ptr<const Loop>>(data_); }
  const std::string& hint() const;

  bool truth() const;
  bool same(const Value& other) const;  // the very same object (or an equal scalar)
  uint32_t depth() const;
  uint64_t weight() const;

 private:
  struct Undefined {
    std::shared_ptr<const std::string> hint;
    bool operator==(const Undefined& other) const { return hint == other.hint; }
  };
  using Text = std::shared_ptr<const std::string>;
  std::variant<Undefined, std::monostate, bool, int64_t, double, Text, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<const Callable>,
               std::shared_ptr<const Loop>>
      data_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  uint32_t depth = 1;
  uint64_t weight = 1;
};

struct Dict {
  std::vector<Entry> entries;  // in order of insertion
  uint32_t depth = 1;
  uint64_t weight = 1;
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
};

struct Loop {   // the `loop` of a for statement
  Value items;  // list
  size_t index = 0;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> variables;
};

struct Macro;  // ast.h
struct Scope;  // evaluator.h
struct Callable {
  enum class Kind : uint8_t { global, method, macro } kind;
  std::string name;
  Value self = Value();                          // method
  std::shared_ptr<const Macro> macro = nullptr;  // macro
  std::weak_ptr<Scope> scope = {};               // macro: where it is defined; the evaluator keeps it
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The arguments in the order of `names`, null where one is not given. Failure on one too many, unknown or given
  // twice.
  std::vector<const Value*> bind(std::string_view what, std::initializer_list<const char*> names) const;
};

bool equal(const Value& a, const Value& b, Budget& budget);
int compare(const Value& a, const Value& b, Budget& budget);  // < 0, 0, > 0; Failure if Python has no order for them
bool contains(const Value& container, const Value& item, Budget& budget);

std::string to_text(const Value& value);                 // Python's str()
void append_repr(std::string& out, const Value& value);  // Python's repr()
std::string number_text(double value);
// Python's json.dumps(); indent < 0: on one line.
std::string to_json(const Value& value, bool ensure_ascii, int64_t indent, bool sort_keys,
                    std::string_view item_separator, std::string_view key_separator);

// What `for` and the list filters go through: items, keys of a dict, characters; undefined has none. Failure for the
// rest.
std::vector<Value> iterate(const Value& value, Budget& budget);

}  // namespace quire::jinja
