// How cached codes become operands of tensor cores: which dimension each half of each register is, and that its f16
// number is the code. The device's own functions, run on the host.
#include "kernels/cuda/kv_fields.h"

#include "quant/formats.h"
#include "quant/scheme.h"
#include "tests/op_test.h"

namespace quire {
namespace {

using namespace quire::cuda;

// A page of 64 random rows in the format of one side.
template <class Side, int C>
struct Page {
  std::vector<std::byte> block;
  Tensor part;
  static constexpr float kOne = 1.0f;

  Page() {
    const KvFormat format{id<typename Side::Codec>, Side::kGroup, Side::kSpan, Side::kOrder};
    const KvLayout layout = kv_layout(format, format, C);
    block.resize(size_t(layout.bytes));
    part = kv_keys(block.data(), layout, &kOne);
    Rng rng(7);
    const std::vector<float> x = normal(rng, kPageTokens * C);
    for (int64_t r = 0; r < kPageTokens; r += Side::kSpan) {
      info(part.codec).encode(part, r, Side::kSpan, x.data() + r * C, C, scale_source(part));
    }
  }
  std::vector<float> codes(int64_t row) const {
    std::vector<float> values(C);
    info(part.codec).values(part, row, 0, C, values.data());
    return values;
  }
  // The bytes of lane `lane`, piece by piece as the kernels load them.
  template <class L>
  void load(int64_t row, int lane, uint32_t* words, uint32_t* high) const {
    for (int p = 0; p < L::kPieces; ++p) {
      const std::byte* from = part.data.row<std::byte>(row) + L::row_byte(p * L::kPiece, lane);
      std::memcpy(words + p * (L::kPiece / 4), from, L::kPiece);
    }
    if (L::kHighBytes > 0) std::memcpy(high, part.high.row<std::byte>(row) + lane * L::kHighBytes, L::kHighBytes);
  }
};

template <class F>
double number(uint32_t pair, int half, int r) {
  return std::ldexp(double(f16_to_f32(uint16_t(pair >> (16 * half)))), F::kExponent - F::shift(r % F::kPer));
}

template <class Side, int C>
void expect_keys() {
  using F = typename Side::F;
  using L = KeyLane<F, C>;
  const Page<Side, C> page;
  for (int row = 0; row < 64; ++row) {
    const std::vector<float> codes = page.codes(row);
    std::vector<int> seen(C);
    for (int t = 0; t < 4; ++t) {
      uint32_t words[L::kWords] = {}, high[2] = {}, out[L::kRegisters];
      page.template load<L>(row, t, words, high);
      L::unpack(words, high, out);
      for (int r = 0; r < L::kRegisters; ++r) {
        for (int half = 0; half < 2; ++half) {
          const int d = L::dim(r, half, t);
          ++seen[size_t(d)];
          ASSERT_EQ(number<F>(out[r], half, r), double(codes[size_t(d)])) << "row " << row << ", dimension " << d;
        }
      }
    }
    ASSERT_EQ(seen, std::vector<int>(C, 1)) << "each dimension once";
  }
}

template <class Side, int C>
void expect_values() {
  using F = typename Side::F;
  using L = ValueLane<F, C, Side::kOrder>;
  const Page<Side, C> page;
  for (int row = 0; row < 64; row += 2) {
    const std::vector<float> codes[2] = {page.codes(row), page.codes(row + 1)};
    std::vector<int> seen(C);
    for (int g = 0; g < 8; ++g) {
      uint32_t words[2][L::kWords] = {}, high[2] = {}, out[L::kRegisters];
      for (int i = 0; i < 2; ++i) page.template load<L>(row + i, g, words[i], &high[i]);
      L::unpack(words[0], words[1], high[0], high[1], out);
      for (int r = 0; r < L::kRegisters; ++r) {
        const int d = L::dim(r, g);
        ++seen[size_t(d)];
        for (int i = 0; i < 2; ++i) {
          ASSERT_EQ(number<F>(out[r], i, r), double(codes[i][size_t(d)])) << "row " << row + i << ", dimension " << d;
        }
        // A tile of 16 dimensions multiplies weights with the scale of one group.
        if (Side::kGroup > 1) {
          ASSERT_EQ(d / Side::kGroup, r / 2 * (C / Side::kGroup) / (C / 16));
        }
      }
    }
    ASSERT_EQ(seen, std::vector<int>(C, 1)) << "each dimension once";
  }
}

template <class... Pairs>
void expect_pairs(KvPairList<Pairs...>) {
  (expect_keys<typename Pairs::Key, 64>(), ...);
  (expect_keys<typename Pairs::Key, 128>(), ...);
  (expect_values<typename Pairs::Value, 64>(), ...);
  (expect_values<typename Pairs::Value, 128>(), ...);
}
TEST(KvFields, RegistersAreTheCodes) { expect_pairs(KvPairs{}); }

template <class... Pairs>
int kernels_for(KvPairList<Pairs...>, const KvLayout& layout) {
  return (int(Pairs::is(layout)) + ...);
}
TEST(KvFields, EveryNamedCacheHasOneKernel) {
  for (const char* word : {"kvf16", "kv8", "kvfp8", "k8v4", "kv4", "kv2", "kv4row", "kv3row", "kv2row"}) {
    const KvScheme scheme = parse_kv(word);
    EXPECT_EQ(kernels_for(KvPairs{}, kv_layout(scheme.k, scheme.v, 128)), 1) << word;
  }
}

}  // namespace
}  // namespace quire
