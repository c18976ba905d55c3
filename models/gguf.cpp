#include "models/gguf.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "models/gguf_parts.h"

namespace quire {

using namespace gguf;

namespace {

std::optional<int64_t> as_integer(GgufType type, const std::byte* p) {
  switch (type) {
    case GgufType::u8:
      return load<uint8_t>(p);
    case GgufType::i8:
      return load<int8_t>(p);
    case GgufType::u16:
      return load<uint16_t>(p);
    case GgufType::i16:
      return load<int16_t>(p);
    case GgufType::u32:
      return load<uint32_t>(p);
    case GgufType::i32:
      return load<int32_t>(p);
    case GgufType::i64:
      return load<int64_t>(p);
    case GgufType::u64:
      if (const auto v = load<uint64_t>(p); v <= uint64_t(INT64_MAX)) return int64_t(v);
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

std::optional<double> as_number(GgufType type, const std::byte* p) {
  if (type == GgufType::f32) return load<float>(p);
  if (type == GgufType::f64) return load<double>(p);
  const auto i = as_integer(type, p);
  return i ? std::optional<double>(double(*i)) : std::nullopt;
}

// The i-th string of an array's elements; `at` walks along.
std::string_view next_string(std::span<const std::byte> bytes, size_t& at) {
  const auto n = size_t(load<uint64_t>(bytes.data() + at));
  at += 8 + n;
  return {reinterpret_cast<const char*>(bytes.data() + at - n), n};
}

std::string printable_scalar(GgufType type, const std::byte* p) {
  if (type == GgufType::boolean) return uint8_t(*p) != 0 ? "true" : "false";
  if (type == GgufType::f32) return fmt::format("{}", load<float>(p));
  if (type == GgufType::f64) return fmt::format("{}", load<double>(p));
  if (type == GgufType::u64) return fmt::format("{}", load<uint64_t>(p));
  return fmt::format("{}", as_integer(type, p).value_or(0));
}

[[noreturn]] void wrong_type(const std::string& path, const GgufValue& v, const char* wanted) {
  const bool array = v.type == GgufType::array;
  fail(fmt::format("'{}': metadata key '{}' must be {} and is {}{} ({})", path, printable(v.key), wanted,
                   array ? "an array of " : "", kTypeNames[size_t(v.element)], printable_value(v)));
}

}  // namespace

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : &metadata_[it->second];
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) return std::nullopt;
  const auto i = as_integer(v->type, v->bytes.data());
  if (!i) wrong_type(path(), *v, "an integer");
  return i;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) return std::nullopt;
  const auto x = as_number(v->type, v->bytes.data());
  if (!x) wrong_type(path(), *v, "a number");
  return x;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) return std::nullopt;
  if (v->type != GgufType::boolean) wrong_type(path(), *v, "a bool");
  return uint8_t(v->bytes[0]) != 0;
}

std::optional<std::string> GgufFile::text(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) return std::nullopt;
  if (v->type != GgufType::string) wrong_type(path(), *v, "a string");
  return std::string(reinterpret_cast<const char*>(v->bytes.data()), v->bytes.size());
}

std::optional<std::vector<int64_t>> GgufFile::integers(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) return std::nullopt;
  const size_t size = scalar_bytes(v->element);
  if (v->type != GgufType::array || size == 0) wrong_type(path(), *v, "an array of integers");
  std::vector<int64_t> out;
  out.reserve(size_t(v->count));
  for (uint64_t i = 0; i < v->count; ++i) {
    const auto x = as_integer(v->element, v->bytes.data() + i * size);
    if (!x) wrong_type(path(), *v, "an array of integers");
    out.push_back(*x);
  }
  return out;
}

std::optional<std::vector<float>> GgufFile::floats(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) return std::nullopt;
  if (v->type != GgufType::array || v->element != GgufType::f32) wrong_type(path(), *v, "an array of f32");
  std::vector<float> out(size_t(v->count), 0.0f);
  if (!out.empty()) std::memcpy(out.data(), v->bytes.data(), out.size() * sizeof(float));
  return out;
}

std::optional<std::vector<std::string>> GgufFile::texts(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) return std::nullopt;
  if (v->type != GgufType::array || v->element != GgufType::string) wrong_type(path(), *v, "an array of strings");
  std::vector<std::string> out;
  out.reserve(size_t(v->count));
  size_t at = 0;
  for (uint64_t i = 0; i < v->count; ++i) out.emplace_back(next_string(v->bytes, at));
  return out;
}

std::string printable_value(const GgufValue& v) {
  constexpr uint64_t kShown = 6;
  if (v.type == GgufType::string) {
    return printable({reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size()}, 200);
  }
  if (v.type != GgufType::array) return printable_scalar(v.type, v.bytes.data());
  std::string out = fmt::format("{} x {}: ", v.count, kTypeNames[size_t(v.element)]);
  if (v.element == GgufType::array) return out + "[...]";
  size_t at = 0;
  for (uint64_t i = 0; i < std::min(v.count, kShown); ++i) {
    if (i > 0) out += ", ";
    if (v.element == GgufType::string)
      out += fmt::format("\"{}\"", printable(next_string(v.bytes, at), 40));
    else
      out += printable_scalar(v.element, v.bytes.data() + i * scalar_bytes(v.element));
  }
  return v.count > kShown ? out + ", ..." : out;
}

}  // namespace quire
