// Pairs of formats that the tensor cores' matmul takes, and weights in its layout.
#pragma once
#include <vector>

#include "kernels/frag_pack.h"
#include "tests/op_test.h"
#include "tests/random_blocks.h"

namespace quire {

struct Pair {
  Format w, x;
};
inline std::vector<Pair> pairs() {
  std::vector<Pair> list;
  const Format int8{id<Int8>};
  for (const Codec c : {id<Int8>, id<Int4>, id<Int4Z>, id<TwoLevel4>}) list.push_back({{c}, int8});
  for (const int32_t g : {32, 64, 128}) list.push_back({{id<TwoLevel4>, g}, int8});
  for (const int32_t g : {32, 64, 128, 256}) {
    for (const Codec c : {id<Int8>, id<Int4>, id<Int4Z>}) list.push_back({{c, g}, int8});
    list.push_back({{id<Int8>}, {id<Int8>, g}});
  }
  list.push_back({{id<Int8>, 64}, {id<Int8>, 64}});
  list.push_back({{id<Int4>, 128}, {id<Int8>, 64}});
  list.push_back({{id<Int4Z>, 64}, {id<Int8>, 128}});
  list.push_back({{id<TwoLevel4>, 64}, {id<Int8>, 128}});
  for (const int32_t g : {0, 32, 64}) {
    for (const Codec c : {id<Q8_0>, id<Q4_0>, id<Q4_1>}) list.push_back({{c, 32}, {id<Int8>, g}});
    for (const int32_t group : {0, 32, 64, 256}) list.push_back({{id<UInt4O>, group}, {id<Int8>, g}});
  }
  for (const Codec c : {id<Q5_0>, id<IQ4_NL>, id<IQ4_XS>, id<MXFP4>}) list.push_back({{c, 32}, {id<Int8>, 32}});
  for (const Codec c : {id<Q8_0>, id<Q4_0>, id<Q5_0>}) list.push_back({{c, 32}, {id<F16>}});
  for (const int32_t g : {0, 32, 64, 128, 512}) {
    for (const Codec c : {id<Int8>, id<Int4>, id<Int4Z>, id<E4M3>}) list.push_back({{c, g}, {id<F16>}});
    list.push_back({{id<E4M3>, g}, {id<E4M3>}});
  }
  list.push_back({{id<E4M3>, 128}, {id<E4M3>, 128}});
  list.push_back({{id<F16>}, {id<F16>}});
  list.push_back({{id<BF16>}, {id<BF16>}});
  return list;
}

inline OwnedTensor random_operand(Rng& rng, Format format, int64_t rows, int64_t cols) {
  StorageOptions options;
  options.sums = format.codec == id<Int8>;
  OwnedTensor t = make_tensor(format, rows, cols, options);
  if (!info(format.codec).encode) {
    fill_random_blocks(rng, t);
    return t;
  }
  const std::vector<float> values = normal(rng, rows * cols, 0.5f, 0.3f);
  for (int64_t r = 0; r < rows; ++r) {
    info(format.codec).encode(t.tensor, r, 1, values.data() + r * cols, cols, ScaleSource::found);
  }
  return t;
}

inline std::vector<std::byte> packed(const FragShape& s, const Tensor& w) {
  std::vector<std::byte> bytes(size_t(s.bytes()), std::byte(0xff));
  frag_pack(s, w, 0, bytes.data());
  return bytes;
}

}  // namespace quire
