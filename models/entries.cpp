#include "models/entries.h"

#include "base/error.h"
#include "base/printable.h"
#include "models/json_file.h"

namespace quire {

Entries::Entries(std::span<const SafetensorsFile> files, std::string path) : path_(std::move(path)) {
  for (const SafetensorsFile& file : files) {
    for (const SafetensorsTensor& t : file.tensors()) {
      check(by_name_.emplace(t.name, Entry{&t, false}).second, "'{}': tensor '{}' appears twice", path_,
            printable(t.name));
    }
  }
}

const SafetensorsTensor* Entries::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second.tensor;
}

const SafetensorsTensor& Entries::take(const std::string& name) {
  const auto it = by_name_.find(name);
  check(it != by_name_.end(), "'{}': tensor '{}' is missing", path_, printable(name));
  it->second.used = true;
  return *it->second.tensor;
}

std::span<const std::byte> Entries::take(const std::string& name, const std::string& dtype,
                                         const std::vector<int64_t>& shape) {
  const SafetensorsTensor& t = take(name);
  check(t.dtype == dtype && t.shape == shape, "'{}': tensor '{}' is {} {} where the configuration needs {} {}", path_,
        printable(name), t.dtype, printable_json(t.shape), dtype, printable_json(shape));
  return t.bytes;  // as many as dtype and shape say: safetensors.cpp
}

void Entries::check_all_used() const {
  for_each_left([&](const SafetensorsTensor& t) {
    fail(fmt::format("'{}': tensor '{}' is not part of the network; without it the results would not be the model's",
                     path_, printable(t.name)));
  });
}

}  // namespace quire
