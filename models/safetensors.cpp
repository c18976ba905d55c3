#include "models/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "models/json_file.h"

namespace quire {

static_assert(std::endian::native == std::endian::little, "safetensors files are read as they lie: little endian");

namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the official reader's limit

struct DataType {
  const char* name;
  int64_t bytes;
};
constexpr DataType kDataTypes[] = {{"F64", 8},     {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
                                   {"F8_E8M0", 1}, {"I64", 8}, {"I32", 4}, {"I16", 2},  {"I8", 1},      {"U64", 8},
                                   {"U32", 4},     {"U16", 2}, {"U8", 1},  {"BOOL", 1}};

uint64_t unsigned_of(const Json& value, const std::string& where, const char* what) {
  check(value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t(INT64_MAX), "{}: {} {} is not a size", where,
        what, printable_json(value));
  return value.get<uint64_t>();
}

SafetensorsTensor read_entry(const std::string& name, const Json& json, std::span<const std::byte> data,
                             const std::string& path) {
  const std::string where = fmt::format("'{}': tensor '{}'", path, printable(name));
  const JsonObject entry(json, where);
  SafetensorsTensor t;
  t.name = name;
  t.dtype = entry.text("dtype").value_or("");
  const auto type =
      std::find_if(std::begin(kDataTypes), std::end(kDataTypes), [&](const DataType& d) { return t.dtype == d.name; });
  check(type != std::end(kDataTypes), "{}: '{}' is not a known dtype", where, printable(t.dtype));
  const Json *shape = entry.array("shape"), *offsets = entry.array("data_offsets");
  check(shape && offsets && offsets->size() == 2, "{}: 'shape' and 'data_offsets' [begin, end] are needed", where);
  uint64_t size = uint64_t(type->bytes);
  for (const Json& d : *shape) {
    const uint64_t n = unsigned_of(d, where, "dimension");
    check(n == 0 || size <= uint64_t(INT64_MAX) / n, "{}: the shape {} has too many values", where,
          printable_json(*shape));
    size *= n;
    t.shape.push_back(int64_t(n));
  }
  const uint64_t begin = unsigned_of((*offsets)[0], where, "offset"), end = unsigned_of((*offsets)[1], where, "offset");
  check(begin <= end && end <= data.size(),
        "{}: data [{}, {}) is not within the {} bytes there are (is the file cut short?)", where, begin, end,
        data.size());
  check(end - begin == size, "{}: {} {} needs {} bytes, but {} are given", where, t.dtype, printable_json(*shape), size,
        end - begin);
  t.bytes = data.subspan(size_t(begin), size_t(size));
  return t;
}

}  // namespace

SafetensorsFile::SafetensorsFile(MappedFile file) : file_(std::move(file)) {
  const auto all = file_.bytes();
  check(all.size() >= 8, "'{}': {} bytes are too few for a safetensors file", path(), all.size());
  uint64_t length;
  std::memcpy(&length, all.data(), 8);
  check(length <= kMaxHeader && length <= all.size() - 8,
        "'{}': a header of {} bytes is announced; {} are left (and at most {} allowed)", path(), length, all.size() - 8,
        kMaxHeader);
  const std::string_view text(reinterpret_cast<const char*>(all.data()) + 8, size_t(length));
  const Json header = parse_json(text, fmt::format("'{}': header", path()));
  const JsonObject object(header, fmt::format("'{}': header", path()));
  const auto data = all.subspan(8 + size_t(length));
  tensors_.reserve(header.size());
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      tensors_.push_back(read_entry(name, value, data, path()));
      continue;
    }
    metadata_.reserve(value.size());
    for (const auto& [key, entry] : JsonObject(value, fmt::format("'{}': __metadata__", path())).json().items()) {
      check(entry.is_string(), "'{}': __metadata__ '{}' must be a string", path(), printable(key));
      metadata_.emplace_back(key, entry.get<std::string>());
    }
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    return a.bytes.data() != b.bytes.data() ? a.bytes.data() < b.bytes.data() : a.bytes.size() < b.bytes.size();
  });
  for (size_t i = 1; i < tensors_.size(); ++i) {
    const SafetensorsTensor &a = tensors_[i - 1], &b = tensors_[i];
    check(a.bytes.data() + a.bytes.size() <= b.bytes.data(), "'{}': tensors '{}' and '{}' overlap", path(),
          printable(a.name), printable(b.name));
  }
}

std::optional<Codec> safetensors_codec(const std::string& dtype) {
  if (dtype == "F32") return id<F32>;
  if (dtype == "F16") return id<F16>;
  if (dtype == "BF16") return id<BF16>;
  return std::nullopt;
}

}  // namespace quire
