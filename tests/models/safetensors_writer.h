// Writes safetensors files for tests.
#pragma once
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace quire {

class SafetensorsWriter {
 public:
  nlohmann::ordered_json header = nlohmann::ordered_json::object();  // may be spoiled before file()
  size_t shift = 0;  // spaces after the header: moves the data off alignment

  void tensor(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
              std::string_view data) {
    header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + data.size()}}};
    data_ += data;
  }
  static std::string file_of(std::string_view header_text, std::string_view data) {
    const uint64_t length = header_text.size();
    std::string out(8, '\0');
    std::memcpy(out.data(), &length, 8);
    return out + std::string(header_text) + std::string(data);
  }
  std::string file() const {
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8 + shift, ' ');
    return file_of(text, data_);
  }

 private:
  std::string data_;
};

}  // namespace quire
