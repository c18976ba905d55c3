#include "apps/numbers.h"

#include <array>
#include <cctype>
#include <string>

namespace quire {

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
