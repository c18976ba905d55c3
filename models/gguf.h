// GGUF files (versions 2 and 3) as they lie: header, metadata and tensor table, every length checked. Knows no
// networks.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "quant/formats.h"

namespace quire {

enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufValue {
  std::string key;
  GgufType type{};
  GgufType element{};                // of an array
  uint64_t count = 1;                // of an array
  std::span<const std::byte> bytes;  // in the map: a scalar, a string's characters, an array's elements
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> dims;  // innermost first, 1 to 4, all > 0
  uint32_t type = 0;          // ggml's number
  std::span<const std::byte> bytes;
};

struct GgufTensorType {
  uint32_t id;
  const char* name;
  int64_t block, bytes;        // `block` values take `bytes` bytes
  std::optional<Codec> codec;  // what Quire reads it as; empty: it cannot
};
const GgufTensorType* find_gguf_type(uint32_t id);  // null if there is no such type
std::string readable_gguf_types();                  // "F32, F16, ..." for errors

class GgufFile {
 public:
  // Error (file, place, what) if anything in the header, the metadata or the tensor table is not as it must be.
  explicit GgufFile(MappedFile file);

  uint32_t version() const { return version_; }
  const std::string& path() const { return file_.path(); }
  const std::vector<GgufValue>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufValue* find(std::string_view key) const;  // null if absent

  // Empty if the key is absent; Error if it is there with another type or out of range.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // floats and integers
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key) const;
  std::optional<std::vector<float>> floats(std::string_view key) const;
  std::optional<std::vector<std::string>> texts(std::string_view key) const;

  MappedFile release() && { return std::move(file_); }  // spans stay valid as long as the map

 private:
  MappedFile file_;
  uint32_t version_ = 0;
  std::vector<GgufValue> metadata_;
  std::unordered_map<std::string_view, size_t> by_key_;
  std::vector<GgufTensor> tensors_;
};

std::string printable_value(const GgufValue& value);  // arrays as count and first elements, long strings cut

}  // namespace quire
