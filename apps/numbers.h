// Numbers as people type them. Never depends on the locale; the whole text must be the number.
#pragma once
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace quire {

// `what` names the value in the error ("--top-k", "temperature").
template <class T>
T parse_number(std::string_view what, std::string_view text) {
  std::string_view digits = text;
  if (digits.size() > 1 && digits[0] == '+' && digits[1] != '-') digits.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  check(error != std::errc::result_out_of_range, "{}: '{}' is out of range", what, text);
  bool ok = error == std::errc() && end == digits.data() + digits.size();
  if constexpr (std::is_floating_point_v<T>) ok = ok && std::isfinite(value);
  check(ok, "{}: '{}' is not {} number", what, text, std::is_floating_point_v<T> ? "a" : "a whole");
  return value;
}

template <class T>
T parse_number(std::string_view what, std::string_view text, T least, T most) {
  const T value = parse_number<T>(what, text);
  check(value >= least && value <= most, "{}: {} is not between {} and {}", what, text, least, most);
  return value;
}

// "512", "128,256", "1-4", "0-1024+256", "1-64*2", and these separated by commas, as llama-bench takes them.
std::vector<int64_t> parse_numbers(std::string_view what, std::string_view text, int64_t least, int64_t most);
std::vector<std::string> split(std::string_view text, char separator);  // "a,,b": three parts

int64_t parse_bytes(std::string_view what, std::string_view text);  // "2G", "500M", "1.5GiB", "4096": units of 1024
std::string bytes_text(int64_t bytes);                              // "1.5 GiB"

}  // namespace quire
