// QuIP#'s books, decoded as their description says, with nothing of quant/e8.h.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace quire {

using E8Value = std::array<double, 8>;

inline double squared_norm(const E8Value& v) {
  double sum = 0.0;
  for (const double x : v) sum += x * x;
  return sum;
}
inline double sum_of(const E8Value& v) {
  double sum = 0.0;
  for (const double x : v) sum += x;
  return sum;
}

// Every vector with coordinates of `steps`, in lexicographic order.
template <class Keep>
std::vector<E8Value> all_vectors(const std::vector<double>& steps, Keep&& keep) {
  std::vector<E8Value> out;
  std::array<size_t, 8> at{};
  for (;;) {
    E8Value v;
    for (size_t i = 0; i < 8; ++i) v[i] = steps[at[i]];
    if (keep(v)) out.push_back(v);
    int i = 7;
    while (i >= 0 && ++at[size_t(i)] == steps.size()) at[size_t(i--)] = 0;
    if (i < 0) break;
  }
  std::sort(out.begin(), out.end());
  return out;
}

inline const std::vector<E8Value>& e8p_rows() {
  static const std::vector<E8Value> rows = [] {
    std::vector<E8Value> all =
        all_vectors({0.5, 1.5, 2.5, 3.5}, [](const E8Value& v) { return squared_norm(v) <= 10.0; });
    for (const char* text :
         {"31113333", "13113333", "11313333", "11133333", "33313311", "33313131", "33311331", "33313113",
          "33311313", "33311133", "33133311", "33133131", "33131331", "33133113", "33131313", "33131133",
          "31333311", "31333131", "31331331", "31333113", "31331313", "13331133", "13333311", "13333131",
          "13331331", "13333113", "13331313", "11331333", "33113331"}) {
      E8Value v;
      for (size_t i = 0; i < 8; ++i) v[i] = (text[i] - '0') / 2.0;
      all.push_back(v);
    }
    return all;
  }();
  return rows;
}

inline E8Value e8p_value(uint32_t code) {
  constexpr int kCoordinate[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // of sign bit u
  E8Value v = e8p_rows()[code >> 8];
  uint32_t signs = code & 255;
  const bool odd = __builtin_popcount(signs) % 2 != 0;
  if (odd) signs ^= 1;
  if (int64_t(sum_of(v)) % 2 != 0) v[7] = -v[7];
  for (int u = 0; u < 8; ++u) {
    if (signs >> u & 1) v[size_t(kCoordinate[u])] *= -1.0;
  }
  for (double& x : v) x += odd ? -0.25 : 0.25;
  return v;
}

inline const std::vector<E8Value>& e8_one_bit() {
  static const std::vector<E8Value> rows = [] {
    const auto even = [](const E8Value& v) { return int64_t(sum_of(v)) % 2 == 0 && squared_norm(v) <= 2.0; };
    std::vector<E8Value> all = all_vectors({-1.0, 0.0, 1.0}, even);
    for (const E8Value& v : all_vectors({-0.5, 0.5}, even)) all.push_back(v);
    for (const double sign : {2.0, -2.0}) {
      for (size_t i = 0; i < (sign > 0 ? 8u : 7u); ++i) {
        E8Value v{};
        v[i] = sign;
        all.push_back(v);
      }
    }
    return all;
  }();
  return rows;
}

}  // namespace quire
