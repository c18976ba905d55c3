// Reads a GGUF file's header, metadata and tensor table.
#include <algorithm>
#include <bit>
#include <unordered_set>

#include "base/error.h"
#include "base/printable.h"
#include "models/gguf_parts.h"

namespace quire {

using namespace gguf;

static_assert(std::endian::native == std::endian::little, "GGUF files are read as they lie: little endian");

namespace {

constexpr uint64_t kMaxName = 65535;  // the specification's bound for keys
constexpr int kMaxDims = 4, kMaxDepth = 4;
constexpr size_t kMaxHeader = 100'000'000;  // metadata and tensor table; the largest vocabularies take a tenth of it

// Least bytes an element takes: what bounds a count by the file's length.
size_t least_bytes(GgufType type) {
  return type == GgufType::string ? 8 : type == GgufType::array ? 12 : scalar_bytes(type);
}

// Reads forward through the file; every failure names the file, the byte and what was being read.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, const std::string& path)
      : bytes_(file.first(std::min(file.size(), kMaxHeader))),
        path_(path),
        where_(file.size() > kMaxHeader ? "of the 100 MB that a header may take" : "in the file") {}

  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }
  const char* where() const { return where_; }  // what is left is left there
  void describe(std::string what) { what_ = std::move(what); }

  template <class... Args>
  void require(bool ok, fmt::format_string<Args...> format, Args&&... args) const {
    if (!ok)
      fail(fmt::format("'{}': {} at byte {}: {}", path_, what_, at_, fmt::format(format, std::forward<Args>(args)...)));
  }
  std::span<const std::byte> take(uint64_t n) {
    require(n <= left(), "{} bytes are needed and {} are left {}", n, left(), where_);
    const auto span = bytes_.subspan(at_, size_t(n));
    at_ += size_t(n);
    return span;
  }
  template <class T>
  T take() {
    return load<T>(take(sizeof(T)).data());
  }
  std::span<const std::byte> take_string() {
    const auto length = take<uint64_t>();
    require(length <= left(), "a string of {} bytes is announced and {} are left {}", length, left(), where_);
    return take(length);
  }
  std::string take_name() {
    const auto span = take_string();
    require(!span.empty() && span.size() <= kMaxName, "a name of {} bytes; 1 to {} are allowed", span.size(), kMaxName);
    return {reinterpret_cast<const char*>(span.data()), span.size()};
  }
  GgufType take_type() {
    const auto type = take<uint32_t>();
    require(type <= uint32_t(GgufType::f64), "{} is not a metadata type (0 to 12 are)", type);
    return GgufType(type);
  }
  // Steps over the elements of an array.
  std::span<const std::byte> take_elements(GgufType type, uint64_t count, int depth) {
    const size_t least = least_bytes(type);
    require(count <= left() / least, "an array of {} {} cannot fit in the {} bytes left {}", count,
            kTypeNames[size_t(type)], left(), where_);
    const size_t begin = at_;
    if (const size_t size = scalar_bytes(type); size > 0) take(count * size);
    for (uint64_t i = 0; type == GgufType::string && i < count; ++i) take_string();
    for (uint64_t i = 0; type == GgufType::array && i < count; ++i) {
      require(depth < kMaxDepth, "arrays are nested deeper than {}", kMaxDepth);
      const GgufType element = take_type();
      const auto n = take<uint64_t>();
      take_elements(element, n, depth + 1);
    }
    return bytes_.subspan(begin, at_ - begin);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
  const char* where_;
  size_t at_ = 0;
  std::string what_ = "header";
};

GgufValue read_value(Cursor& in, uint64_t index, uint64_t count) {
  GgufValue value;
  in.describe(fmt::format("metadata key {} of {}", index + 1, count));
  value.key = in.take_name();
  in.describe(fmt::format("metadata key '{}'", printable(value.key)));
  value.type = value.element = in.take_type();
  if (value.type == GgufType::string) {
    value.bytes = in.take_string();
  } else if (value.type == GgufType::array) {
    value.element = in.take_type();
    value.count = in.take<uint64_t>();
    value.bytes = in.take_elements(value.element, value.count, 1);
  } else {
    value.bytes = in.take(scalar_bytes(value.type));
    in.require(value.type != GgufType::boolean || uint8_t(value.bytes[0]) <= 1, "{} is not a bool",
               uint8_t(value.bytes[0]));
  }
  return value;
}

struct TensorEntry {
  GgufTensor tensor;
  uint64_t offset = 0, size = 0;
};

TensorEntry read_tensor(Cursor& in, uint64_t index, uint64_t count) {
  TensorEntry entry;
  GgufTensor& t = entry.tensor;
  in.describe(fmt::format("tensor {} of {}", index + 1, count));
  t.name = in.take_name();
  in.describe(fmt::format("tensor '{}'", printable(t.name)));
  const auto dims = in.take<uint32_t>();
  in.require(dims >= 1 && dims <= kMaxDims, "{} dimensions; 1 to {} are allowed", dims, kMaxDims);
  uint64_t values = 1;
  for (uint32_t d = 0; d < dims; ++d) {
    const auto n = in.take<uint64_t>();
    in.require(n > 0 && n <= uint64_t(INT64_MAX) / values, "dimension {} is {}: none, or too many values", d, n);
    values *= n;
    t.dims.push_back(int64_t(n));
  }
  t.type = in.take<uint32_t>();
  const GgufTensorType* type = find_gguf_type(t.type);
  in.require(type != nullptr, "unknown tensor type {}; {} can be read", t.type, readable_gguf_types());
  in.require(t.dims[0] % type->block == 0, "rows of {} values are no whole blocks of {} ({})", t.dims[0], type->block,
             type->name);
  const uint64_t blocks = values / uint64_t(type->block);
  in.require(blocks <= uint64_t(INT64_MAX) / uint64_t(type->bytes), "{} values of {} are too many", values, type->name);
  entry.size = blocks * uint64_t(type->bytes);
  entry.offset = in.take<uint64_t>();
  return entry;
}

// Gives every tensor its bytes; refuses what lies outside the file, off the alignment, or over another tensor.
void place(std::vector<TensorEntry>& entries, std::span<const std::byte> data, uint64_t alignment,
           const std::string& path) {
  std::vector<const TensorEntry*> order;
  for (TensorEntry& e : entries) {
    const std::string name = printable(e.tensor.name);
    check(e.offset % alignment == 0, "'{}': tensor '{}' has offset {}, not a multiple of the alignment {}", path, name,
          e.offset, alignment);
    check(e.offset <= data.size() && e.size <= data.size() - e.offset,
          "'{}': tensor '{}' takes {} bytes from {} of the data, which has {} (is the file cut short?)", path, name,
          e.size, e.offset, data.size());
    e.tensor.bytes = data.subspan(size_t(e.offset), size_t(e.size));
    order.push_back(&e);
  }
  std::sort(order.begin(), order.end(),
            [](const TensorEntry* a, const TensorEntry* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorEntry &a = *order[i - 1], &b = *order[i];
    check(a.offset + a.size <= b.offset, "'{}': tensors '{}' ([{}, {})) and '{}' (from {}) overlap", path,
          printable(a.tensor.name), a.offset, a.offset + a.size, printable(b.tensor.name), b.offset);
  }
}

uint32_t read_version(Cursor& in) {
  const auto magic = in.take(4);
  in.require(std::memcmp(magic.data(), "GGUF", 4) == 0,
             "not a GGUF file: it does not begin with 'GGUF' (for safetensors, give the directory)");
  const auto version = in.take<uint32_t>();
  in.require((version & 0xFFFF) != 0, "a big-endian GGUF file; only little-endian ones can be read");
  in.require(version == 2 || version == 3, "GGUF version {}; 2 and 3 can be read", version);
  return version;
}

}  // namespace

GgufFile::GgufFile(MappedFile file) : file_(std::move(file)) {
  Cursor in(file_.bytes(), path());
  version_ = read_version(in);
  const auto tensors = in.take<uint64_t>(), keys = in.take<uint64_t>();
  // Fewest bytes of a key: length, one character, type, value; of a tensor: length, character, dimensions, type,
  // offset.
  in.require(keys <= in.left() / 14, "{} metadata keys cannot fit in the {} bytes left {}", keys, in.left(),
             in.where());
  in.require(tensors <= in.left() / 33, "{} tensors cannot fit in the {} bytes left {}", tensors, in.left(),
             in.where());
  for (uint64_t i = 0; i < keys; ++i) metadata_.push_back(read_value(in, i, keys));
  for (size_t i = 0; i < metadata_.size(); ++i) {
    check(by_key_.emplace(metadata_[i].key, i).second, "'{}': metadata key '{}' appears twice", path(),
          printable(metadata_[i].key));
  }
  std::vector<TensorEntry> entries;
  for (uint64_t i = 0; i < tensors; ++i) entries.push_back(read_tensor(in, i, tensors));

  const int64_t alignment = integer("general.alignment").value_or(32);
  check(alignment > 0 && std::has_single_bit(uint64_t(alignment)), "'{}': general.alignment is {}, not a power of two",
        path(), alignment);
  const uint64_t mask = uint64_t(alignment) - 1, size = file_.bytes().size();
  const uint64_t begin = std::min<uint64_t>((in.position() + mask) & ~mask, size);
  place(entries, file_.bytes().subspan(size_t(begin)), uint64_t(alignment), path());
  std::unordered_set<std::string_view> names;
  for (const TensorEntry& e : entries) {
    check(names.insert(e.tensor.name).second, "'{}': tensor '{}' appears twice", path(), printable(e.tensor.name));
  }
  for (TensorEntry& e : entries) tensors_.push_back(std::move(e.tensor));
}

}  // namespace quire
