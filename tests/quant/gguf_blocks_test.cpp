// The blocks of GGUF files against the reference package (tools/golden_gguf_blocks.py wrote the values). Dequantization
// is equal bit for bit. Quantization differs by method: here codes are found with the scale as it is stored, there with
// the scale before it was rounded to half precision, so a code may differ by one where a value lies between two.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "quant/element.h"
#include "tests/quant/codec_cases.h"
#include "tests/random_blocks.h"
#include "tests/test_data.h"

namespace quire {
namespace {

using namespace testing_quant;
using nlohmann::json;

const json& golden() {
  static const json data = json::parse(std::ifstream(source_file("tests/quant/golden_gguf_blocks.json")));
  return data;
}

std::vector<uint8_t> bytes_of(const std::string& hex) {
  std::vector<uint8_t> out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) out.push_back(uint8_t(std::stoul(hex.substr(i, 2), nullptr, 16)));
  return out;
}
std::vector<float> floats_of(const std::string& hex) {
  std::vector<float> out;
  for (size_t i = 0; i + 7 < hex.size(); i += 8)
    out.push_back(f32_from_bits(uint32_t(std::stoul(hex.substr(i, 8), nullptr, 16))));
  return out;
}

struct Kind {
  Codec codec;
  int header;
};
const Kind kKinds[] = {{id<Q8_0>, 2}, {id<Q4_0>, 2}, {id<Q4_1>, 4}, {id<Q5_0>, 2}, {id<Q5_1>, 4}};
constexpr Codec kOnlyRead[] = {id<Q2_K>, id<Q3_K>, id<Q4_K>, id<Q5_K>, id<Q6_K>, id<IQ4_NL>, id<IQ4_XS>, id<MXFP4>};

OwnedTensor block_of(Codec codec, const std::vector<uint8_t>& bytes) {
  OwnedTensor t = make_tensor({codec, info(codec).group}, 1, info(codec).align);
  EXPECT_EQ(int64_t(bytes.size()), t.tensor.data.pitch);
  std::memcpy(t.tensor.data.ptr, bytes.data(), bytes.size());
  return t;
}

// All of a block at once, in pieces, and value by value as a GPU's threads do.
void expect_values(Codec codec, const std::vector<uint8_t>& bytes, const std::vector<float>& expected) {
  const OwnedTensor t = block_of(codec, bytes);
  const size_t n = size_t(t.tensor.cols);
  const std::vector<float> got = decode_all(t);
  std::vector<float> pieces(n);
  ASSERT_EQ(expected.size(), n);
  for (size_t c = 0; c < n; c += 7) {
    info(codec).decode(t, 0, int64_t(c), int64_t(std::min<size_t>(7, n - c)), pieces.data() + c);
  }
  for (size_t k = 0; k < n; ++k) {
    const float one = visit(codec, [&]<class C>(C) { return decode_at<C>(t, 0, int64_t(k)); });
    ASSERT_EQ(f32_bits(got[k]), f32_bits(expected[k])) << info(codec).name << " value " << k;
    ASSERT_EQ(f32_bits(pieces[k]), f32_bits(expected[k])) << info(codec).name << " value " << k;
    ASSERT_EQ(f32_bits(one), f32_bits(expected[k])) << info(codec).name << " value " << k;
  }
}

TEST(GgufBlocks, DequantizeAsTheReferenceBitForBit) {
  for (const Kind& kind : kKinds) {
    const json& g = golden()[info(kind.codec).name];
    for (const auto& [blocks, values] : {std::pair{"quantized", "dequantized"}, {"stored", "stored_values"}}) {
      ASSERT_GE(g[blocks].size(), 6u);
      for (size_t i = 0; i < g[blocks].size(); ++i) {
        expect_values(kind.codec, bytes_of(g[blocks][i]), floats_of(g[values][i]));
      }
    }
  }
}

TEST(GgufBlocks, WhatIsOnlyReadIsDequantizedBitForBit) {
  for (const Codec codec : kOnlyRead) {
    EXPECT_EQ(info(codec).encode, nullptr) << info(codec).name;
    const json& g = golden()[info(codec).name];
    ASSERT_GE(g["stored"].size(), 3u);
    for (size_t i = 0; i < g["stored"].size(); ++i) {
      expect_values(codec, bytes_of(g["stored"][i]), floats_of(g["stored_values"][i]));
    }
  }
}

// Scale and codes of panels are bytes: what a block may hold fits.
TEST(GgufBlocks, FieldsAndLevelsFitInBytes) {
  std::mt19937 rng(3);
  for (const Codec codec : kOnlyRead) {
    const OwnedTensor t = make_tensor({codec, info(codec).group}, 40, info(codec).align);
    fill_random_blocks(rng, t);
    visit(codec, [&]<class C>(C) {
      if constexpr (requires { typename C::Block; }) {
        using B = typename C::Block;
        for (int64_t r = 0; r < 40; ++r) {
          const uint8_t* p = C::block(t, r, 0);
          for (int c = 0; c < B::kValues; ++c) {
            ASSERT_GE(B::code(p, c) + B::kBias, 0) << B::kName;
            ASSERT_LT(B::code(p, c) + B::kBias, 256) << B::kName;
            if constexpr (!requires { B::level(0); }) {
              ASSERT_LT(B::code(p, c) + B::kBias, 1 << B::kField) << B::kName;
            }
          }
          if constexpr (B::kSuper > 0) {
            for (int j = 0; j < B::kSuper; ++j) {
              ASSERT_EQ(B::scale(p, j), int8_t(B::scale(p, j))) << B::kName;
              if constexpr (B::kOffset) {
                ASSERT_EQ(B::min(p, j), int8_t(B::min(p, j))) << B::kName;
              }
            }
          }
        }
      }
    });
  }
}

TEST(GgufBlocks, QuantizeCloseToTheReference) {
  for (const Kind& kind : kKinds) {
    const json& g = golden()[info(kind.codec).name];
    for (size_t i = 0; i < g["values"].size(); ++i) {
      const std::vector<float> x = floats_of(g["values"][i]);
      const std::vector<uint8_t> bytes = bytes_of(g["quantized"][i]);
      const OwnedTensor theirs = block_of(kind.codec, bytes), ours = make_tensor({kind.codec, 32}, 1, 32);
      encode_all(ours, x.data());
      for (int b = 0; b < kind.header; b += 2) {  // scale and minimum: at most the last bit of a half apart
        const auto half = [&](const OwnedTensor& t) {
          const uint8_t* p = t.tensor.data.row<const uint8_t>(0) + b;
          return int(p[0] | p[1] << 8);
        };
        EXPECT_LE(std::abs(half(ours) - half(theirs)), 1) << info(kind.codec).name << " block " << i;
      }
      int16_t a[32], c[32];
      info(kind.codec).codes(ours, 0, 0, 32, a);
      info(kind.codec).codes(theirs, 0, 0, 32, c);
      for (int k = 0; k < 32; ++k)
        EXPECT_LE(std::abs(a[k] - c[k]), 1) << info(kind.codec).name << " block " << i << " value " << k;
    }
  }
}

TEST(GgufBlocks, LieAsTheFilesHaveThem) {
  std::vector<float> x(32, 0.0f);
  x[0] = -8.0f;
  x[1] = 3.0f;
  x[16] = 7.0f;
  const OwnedTensor t = make_tensor({id<Q4_0>, 32}, 1, 32);
  encode_all(t, x.data());
  const uint8_t* p = t.tensor.data.row<const uint8_t>(0);
  EXPECT_EQ(p[0] | p[1] << 8, 0x3c00);  // scale 1: the extreme value sits on code -8
  EXPECT_EQ(p[2], 15 << 4 | 0);         // values 16 and 0
  EXPECT_EQ(p[3], 8 << 4 | 11);         // values 17 and 1
  EXPECT_EQ(decode_all(t), x);
}

}  // namespace
}  // namespace quire
