// safetensors files as they lie: header and tensor table, every length checked. Knows no networks.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "quant/formats.h"

namespace quire {

struct SafetensorsTensor {
  std::string name;
  std::string dtype;                 // "F32", "BF16", "I32", ...
  std::vector<int64_t> shape;        // outermost first; empty: one value
  std::span<const std::byte> bytes;  // in the map; not necessarily aligned
};

class SafetensorsFile {
 public:
  // Error (file, tensor, what) if anything in the header is not as it must be. Holes in the data are allowed, overlaps
  // not.
  explicit SafetensorsFile(MappedFile file);
  const std::string& path() const { return file_.path(); }
  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }  // in the order of their data
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
  MappedFile release() && { return std::move(file_); }

 private:
  MappedFile file_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

std::optional<Codec> safetensors_codec(const std::string& dtype);  // F32, F16 and BF16 have one

}  // namespace quire
