// Text operations with Python's meaning: a character is a code point, white space and case are Unicode's. A byte that
// is not UTF-8 counts as one character and has no case.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quire::jinja {

std::vector<std::string_view> characters(std::string_view text);
size_t length(std::string_view text);  // characters
bool is_space(std::string_view character);

// Position of `needle`, npos if there is none; linear also for needles made to be slow.
size_t find_text(std::string_view text, std::string_view needle, size_t from);

// Without characters of `chars` (white space if not given) at its ends.
std::string_view strip(std::string_view text, std::optional<std::string_view> chars, bool left, bool right);
std::string to_upper(std::string_view text);  // simple (one to one) case mapping, and sharp s
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);    // first character upper, the rest lower
std::string title_method(std::string_view text);  // str.title(): runs of letters
std::string title_filter(std::string_view text);  // Jinja's filter: what follows space, hyphen or an opening bracket
bool is_letter(std::string_view character);
bool is_digit(std::string_view character);

// count < 0: all.
std::string replace(std::string_view text, std::string_view old_text, std::string_view new_text, int64_t count);
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t count);
std::vector<std::string_view> split_from_right(std::string_view text, std::string_view separator, int64_t count);
std::vector<std::string_view> split_space(std::string_view text, int64_t count);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

}  // namespace quire::jinja
