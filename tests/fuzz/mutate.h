// Damage to an input, the same everywhere for the same seed: bits, numbers as files hold them, pieces taken out,
// doubled or moved in from elsewhere.
#pragma once
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace quire::fuzz {

using Rng = std::mt19937_64;

inline size_t below(Rng& rng, size_t n) { return n == 0 ? 0 : size_t(rng() % n); }

// Headers come first: half of the places are in the first 4 KiB.
inline size_t place_in(Rng& rng, const std::string& text) {
  return below(rng, rng() % 2 == 0 ? std::min<size_t>(text.size(), 4096) : text.size());
}

inline void mutate_number(Rng& rng, std::string& text) {
  constexpr uint64_t kNumbers[] = {0,          1,          2,          31,         255,        256,
                                   65535,      1 << 20,    0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1ull << 32,
                                   1ull << 62, ~0ull >> 1, ~0ull,      0x7FC00000, 0x7F800000};
  const size_t at = place_in(rng, text), size = size_t{1} << rng() % 4;
  const uint64_t number = kNumbers[below(rng, std::size(kNumbers))];
  if (at + size <= text.size()) std::memcpy(text.data() + at, &number, size);
}

inline void mutate_digits(Rng& rng, std::string& text) {
  constexpr const char* kNumbers[] = {"0",
                                      "-1",
                                      "1",
                                      "3",
                                      "255",
                                      "4294967296",
                                      "9223372036854775807",
                                      "1e99",
                                      "1e-99",
                                      "0.5",
                                      "1e999",
                                      "18446744073709551615",
                                      "null",
                                      "\"1\""};
  const size_t begin = text.find_first_of("0123456789", place_in(rng, text));
  if (begin == std::string::npos) return;
  const size_t end = std::min(text.find_first_not_of("0123456789", begin), text.size());
  text.replace(begin, end - begin, kNumbers[below(rng, std::size(kNumbers))]);
}

inline std::string mutated(Rng& rng, const std::vector<std::string>& seeds, const std::vector<std::string>& words) {
  std::string text = seeds[below(rng, seeds.size())];
  for (size_t steps = 1 + below(rng, 4); steps > 0; --steps) {
    const size_t at = place_in(rng, text), length = 1 + below(rng, 1 + below(rng, 64));
    switch (rng() % 8) {
      case 0:
        if (!text.empty()) text[at] = char(text[at] ^ (1 << rng() % 8));
        break;
      case 1:
        mutate_number(rng, text);
        break;
      case 2:
        mutate_digits(rng, text);
        break;
      case 3:
        text.erase(at, length);
        break;
      case 4:
        text.insert(at, text.substr(at, length));
        break;
      case 5:
        if (!words.empty()) text.insert(at, words[below(rng, words.size())]);
        break;
      case 6: {  // of the same length, so that what follows stays in place
        const std::string& word = words.empty() ? text : words[below(rng, words.size())];
        if (at + word.size() <= text.size()) text.replace(at, word.size(), word);
        break;
      }
      default: {
        const std::string& other = seeds[below(rng, seeds.size())];
        text.replace(at, std::min(length, text.size() - at), other.substr(place_in(rng, other), length));
      }
    }
  }
  return text;
}

}  // namespace quire::fuzz
