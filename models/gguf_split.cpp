#include "models/gguf_split.h"

#include <filesystem>

#include "base/error.h"
#include "base/printable.h"

namespace quire {

namespace {

constexpr const char *kNumber = "split.no", *kCount = "split.count", *kTensors = "split.tensors.count";
constexpr int64_t kMostParts = 99'999;  // five digits

std::string ending(int64_t number, int64_t count) { return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count); }

// What a further part may say: the network is described by the first alone.
void check_part(const GgufFile& part, int64_t number, int64_t count) {
  const auto at = part.integer(kNumber), of = part.integer(kCount);
  check(at == number && of == count, "'{}': the file says it is part {} of {}, its name part {} of {}", part.path(),
        at ? fmt::format("{}", *at + 1) : "?", of ? fmt::format("{}", *of) : "?", number + 1, count);
  for (const GgufValue& v : part.metadata()) {
    check(v.key.starts_with("split.") || v.key.starts_with("general."),
          "'{}': part {} of a split model has the key '{}'; only the first part may describe the network", part.path(),
          number + 1, printable(v.key));
  }
}

}  // namespace

std::vector<GgufFile> open_gguf_parts(const std::string& path) {
  std::vector<GgufFile> parts;
  parts.emplace_back(MappedFile(path));
  const int64_t count = parts[0].integer(kCount).value_or(0), number = parts[0].integer(kNumber).value_or(0);
  if (count == 0 || count == 1) return parts;
  check(count > 1 && count <= kMostParts, "'{}': {} is {}; 1 to {} are allowed", path, kCount, count, kMostParts);
  check(number == 0, "'{}' is part {} of {} of a split model; open the first part, '...{}'", path, number + 1, count,
        ending(0, count));
  const std::string first = ending(0, count);
  check(path.ends_with(first), "'{}' is the first of {} parts, but its name does not end in '{}'", path, count, first);
  const std::string stem = path.substr(0, path.size() - first.size());
  for (int64_t i = 1; i < count; ++i) {
    const std::string name = stem + ending(i, count);
    check(std::filesystem::exists(name), "'{}': part {} of {} is missing: there is no '{}'", path, i + 1, count, name);
    parts.emplace_back(MappedFile(name));
    check_part(parts.back(), i, count);
  }
  int64_t tensors = 0;
  for (const GgufFile& part : parts) tensors += int64_t(part.tensors().size());
  const int64_t announced = parts[0].integer(kTensors).value_or(-1);
  check(tensors == announced, "'{}': {} is {}, the {} parts have {} tensors", path, kTensors, announced, count,
        tensors);
  return parts;
}

}  // namespace quire
