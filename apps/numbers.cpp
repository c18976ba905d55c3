#include "apps/numbers.h"

#include <array>
#include <cctype>
#include <string>

namespace quire {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::vector<int64_t> parse_numbers(std::string_view what, std::string_view text, int64_t least, int64_t most) {
  constexpr size_t kMostValues = 1000;
  std::vector<int64_t> values;
  for (const std::string& part : split(text, ',')) {
    const size_t dash = part.find('-'), step_at = part.find_first_of("+*", dash == std::string::npos ? 0 : dash);
    if (dash == std::string::npos || dash == 0) {
      values.push_back(parse_number<int64_t>(what, part, least, most));
      continue;
    }
    const bool multiply = step_at != std::string::npos && part[step_at] == '*';
    const int64_t first = parse_number<int64_t>(what, part.substr(0, dash), least, most);
    const size_t length = step_at == std::string::npos ? step_at : step_at - dash - 1;
    const int64_t last = parse_number<int64_t>(what, part.substr(dash + 1, length), least, most);
    const int64_t step =
        step_at == std::string::npos ? 1 : parse_number<int64_t>(what, part.substr(step_at + 1), 1, most);
    check(first <= last, "{}: '{}' runs backwards; {}-{} runs forwards", what, part, last, first);
    check(!multiply || (step > 1 && first > 0), "{}: '{}' never ends; such as 1-64*2", what, part);
    for (int64_t v = first; v <= last; v = multiply ? v * step : v + step) {
      check(values.size() < kMostValues, "{}: '{}' is more than {} values", what, text, kMostValues);
      values.push_back(v);
    }
  }
  return values;
}

int64_t parse_bytes(std::string_view what, std::string_view text) {
  size_t digits = 0;
  while (digits < text.size() && (std::isdigit(static_cast<unsigned char>(text[digits])) || text[digits] == '.'))
    ++digits;
  std::string unit;
  for (const char c : text.substr(digits)) {
    if (c != ' ') unit += char(std::toupper(static_cast<unsigned char>(c)));
  }
  constexpr std::string_view kUnits = "BKMGT";
  const size_t exponent = unit.empty() ? 0 : kUnits.find(unit[0]);
  const bool known = unit.size() <= 1 || (exponent > 0 && (unit.substr(1) == "B" || unit.substr(1) == "IB"));
  check(digits > 0 && exponent < kUnits.size() && known,
        "{}: '{}' is not an amount of memory; such as 2G, 500M, 1.5GiB", what, text);
  const double bytes = std::ldexp(parse_number<double>(what, text.substr(0, digits)), int(10 * exponent));
  check(bytes < 9e18, "{}: '{}' is out of range", what, text);
  return int64_t(bytes);
}

std::string bytes_text(int64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = double(bytes);
  size_t unit = 0;
  while (std::abs(value) >= 1024.0 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace quire
