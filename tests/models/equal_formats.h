// One network in two formats of the same numbers, and on two devices.
#pragma once
#include <cmath>

#include "tests/models/quantized_model.h"
#include "tests/op_test.h"

namespace quire {

// The same numbers in two formats. On a GPU these run on different kernels, which round differently.
inline bool equal_on_cpu(const std::string& a, const std::string& b, const std::string& scheme = "") {
  return compute(*open_small(a, scheme, "", "cpu")) == compute(*open_small(b, "", "", "cpu"));
}
// Where there is a GPU: what it computes of a directory with float activations. It rounds them to halfs before each of
// the four matmuls a layer and the head; see Network::expect_close for how that adds up.
inline void expect_near_on_gpu(const std::string& path) {
  if (!gpu_is_here()) return;
  const auto here = open_small(path, "", "", "cpu"), there = open_small(path, "", "", "cuda");
  const std::vector<float> expected = compute(*here).logits, got = compute(*there).logits;
  ASSERT_EQ(got.size(), expected.size());
  double error = 0.0, size = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double(got[i]) - double(expected[i]), 2);
    size += std::pow(double(expected[i]), 2);
  }
  const double roundings = 4.0 * double(here->config().layers) + 1.0;
  EXPECT_LE(std::sqrt(error), 2.0 * roundings * 0x1p-11 * std::sqrt(size)) << path;
}

}  // namespace quire
