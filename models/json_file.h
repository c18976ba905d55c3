// JSON from model files, read strictly: duplicate keys, wrong types and values out of range are errors that name the
// place.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quire {

using Json = nlohmann::json;

// `where` ("'config.json'") begins every error. Nesting is bounded, and so is memory: a text that would take more than
// 30 times its bytes (nothing but empty lists, say) is an error too.
Json parse_json(std::string_view text, const std::string& where);
Json read_json_file(const std::string& path, size_t max_bytes);
// The keys of the object at `path` (keys from the outermost in), in the order of the text, which Json does not keep.
std::vector<std::string> keys_in_order(std::string_view text, const std::vector<std::string>& path,
                                       const std::string& where);

// An object and where it is from, for typed access. A key that is null counts as absent.
class JsonObject {
 public:
  JsonObject(const Json& json, std::string where);  // Error unless it is an object
  const Json& json() const { return json_; }
  const std::string& where() const { return where_; }

  const Json* find(const std::string& key) const;  // null if absent or null
  std::optional<int64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  std::optional<JsonObject> object(const std::string& key) const;
  const Json* array(const std::string& key) const;
  int64_t needed_integer(const std::string& key) const;

 private:
  const Json& json_;
  std::string where_;
};

std::string printable_json(const Json& value);  // short and safe to show

}  // namespace quire
