#include "quant/e8.h"

namespace quire {

// For each quarter the row of the book with the largest product, one sign
// turned (where it costs the least) if the signs of x would leave the sum odd.
uint16_t nearest_e8p(const float* x) {
  uint16_t best_code = 0;
  float least = 3.4e38f;
  for (int odd = 0; odd < 2; ++odd) {
    float y[8], norm = 0.0f;
    uint32_t negative = 0;
    for (int i = 0; i < 8; ++i) {
      y[i] = x[i] - (odd ? -0.25f : 0.25f);
      norm += y[i] * y[i];
      negative |= uint32_t(y[i] < 0.0f) << (e8_shift(i) / 4);
      y[i] = y[i] < 0.0f ? -y[i] : y[i];
    }
    for (uint32_t row = 0; row < 256; ++row) {
      const uint32_t word = e8_book<false>().words[row];
      const uint32_t turned = (word >> e8_shift(7) & 15) < 8 ? 1u << (e8_shift(7) / 4) : 0;
      float dot = 0.0f, squared = 0.0f, cheapest = 3.4e38f;
      uint32_t turn = 0;
      for (int i = 0; i < 8; ++i) {
        const float n = 0.5f * float(word >> e8_shift(i) & 15) - 4.0f, v = n < 0.0f ? -n : n, product = v * y[i];
        dot += product;
        squared += v * v;
        turn = product < cheapest ? 1u << (e8_shift(i) / 4) : turn;
        cheapest = product < cheapest ? product : cheapest;
      }
      uint32_t signs = negative ^ turned;
      if (__builtin_popcount(signs) % 2 != 0) {
        signs ^= turn;
        dot -= 2.0f * cheapest;
      }
      const float distance = norm - (2.0f * dot - squared);
      if (distance >= least) continue;
      least = distance;
      best_code = uint16_t(row << 8 | (signs ^ uint32_t(odd)));
    }
  }
  return best_code;
}

}  // namespace quire
