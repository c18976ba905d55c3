#include "quant/scheme.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

std::string error_of(const std::string& scheme, const std::string& kv = {}) {
  try {
    parse_scheme(scheme, kv);
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

TEST(Scheme, NothingIsTheModelsOwnFormats) {
  for (const char* text : {"", "own"}) {
    const Scheme s = parse_scheme(text);
    EXPECT_EQ(s.name, "own");
    EXPECT_TRUE(s.native);
    EXPECT_TRUE(s.native_activation);
    EXPECT_EQ(s.kv.name, "kvf16");
    EXPECT_EQ(s.kv.k, KvFormat{});
    EXPECT_EQ(s.kv.v, KvFormat{});
  }
}

TEST(Scheme, WeightWords) {
  struct Case {
    const char* text;
    const char* weight;
    const char* activation;
  };
  const Case cases[] = {
      {"w8", "int8", "f32"},           {"w8a16", "int8", "f32"},
      {"w8a8", "int8", "int8"},        {"w8a8g64", "int8", "int8/g64"},
      {"w4", "int4z/g64", "f32"},      {"w4a16", "int4z/g64", "f32"},
      {"w4a8", "qoq4/g64", "int8"},    {"w4a8g64", "qoq4/g64", "int8/g64"},
      {"w4row", "int4z", "f32"},       {"w4rowa8", "int4z", "int8"},
      {"w4g128", "int4z/g128", "f32"}, {"w4g128a8", "qoq4/g128", "int8"},
      {"w3", "int3z/g64", "f32"},      {"w3a8", "int3z/g64", "int8"},
      {"w2", "int2z/g64", "f32"},      {"w2a8g64", "int2z/g64", "int8/g64"},
      {"w6", "e3m2", "f32"},           {"w6a16", "e3m2", "f32"},
      {"wfp8", "e4m3", "f32"},         {"wfp8a16", "e4m3", "f32"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const Scheme s = parse_scheme(c.text);
    EXPECT_FALSE(s.native);
    EXPECT_FALSE(s.native_activation);
    EXPECT_EQ(to_string(s.weight), c.weight);
    EXPECT_EQ(to_string(s.activation), c.activation);
    EXPECT_EQ(to_string(s.embedding), "int8");
    EXPECT_EQ(s.kv.k, KvFormat{});
  }
}

TEST(Scheme, WholeSchemes) {
  for (const char* text : {"f32", "f16", "bf16"}) {
    const Scheme s = parse_scheme(text);
    EXPECT_FALSE(s.native);
    EXPECT_FALSE(s.native_activation);
    EXPECT_EQ(to_string(s.weight), text);
    EXPECT_EQ(to_string(s.embedding), text);
    EXPECT_EQ(to_string(s.activation), "f32");
    EXPECT_EQ(s.name, text);
  }
  EXPECT_EQ(parse_scheme("f32kv4").kv.name, "kv4");
  EXPECT_EQ(parse_scheme("f16kv8").weight.codec, id<F16>);
}

TEST(Scheme, ActivationAloneKeepsTheModelsWeights) {
  const Scheme s = parse_scheme("a8g64");
  EXPECT_TRUE(s.native);
  EXPECT_FALSE(s.native_activation);
  EXPECT_EQ(to_string(s.activation), "int8/g64");
  EXPECT_EQ(s.name, "a8g64");
}

TEST(Scheme, CacheWords) {
  const KvFormat row8{id<UInt8O>}, row4{id<UInt4O>}, row3{id<UInt3O>}, row2{id<UInt2O>}, fp8{id<E4M3>}, f16{id<F16>};
  struct Case {
    const char* text;
    KvFormat k, v;
  };
  const Case cases[] = {
      {"kvf16", f16, f16},
      {"kv8", row8, row8},
      {"kvfp8", fp8, fp8},
      {"k8v4", row8, row4},
      {"kv4", {id<UInt4O>, 1, 64, Order::natural}, row4},
      {"kv2", {id<UInt2O>, 1, 32, Order::natural}, {id<UInt2O>, 32, 1, Order::value_tiles}},
      {"kv4row", row4, row4},
      {"kv3row", row3, row3},
      {"kv2row", row2, row2},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const KvScheme alone = parse_kv(c.text), inside = parse_scheme(std::string("w4a8") + c.text).kv;
    const KvScheme apart = parse_scheme("w8a8kv8", c.text).kv;
    for (const KvScheme& s : {alone, inside, apart}) {
      EXPECT_EQ(s.name, c.text);
      EXPECT_EQ(s.k, c.k);
      EXPECT_EQ(s.v, c.v);
    }
    const Scheme own = parse_scheme(c.text);
    EXPECT_TRUE(own.native);
    EXPECT_TRUE(own.native_activation);
    EXPECT_EQ(own.kv.k, c.k);
    kv_layout(c.k, c.v, 64);  // every cache word can be laid out
  }
  EXPECT_EQ(parse_kv("f16").name, "kvf16");
}

TEST(Scheme, FullSpellingsAndCanonicalNames) {
  const std::pair<const char*, const char*> cases[] = {
      {"w4a8kv4", "w4a8kv4"},
      {"w8a8g64kv4", "w8a8g64kv4"},
      {"W8A8KV8", "w8a8kv8"},
      {"w8", "w8a16"},
      {"w8kv2", "w8a16kv2"},
      {"w8a8kvf16", "w8a8"},
      {"ownkv8", "kv8"},
      {"w4g128a8g64k8v4", "w4g128a8g64k8v4"},
      {"w4rowkv4row", "w4rowa16kv4row"},
  };
  for (const auto& [text, name] : cases) {
    SCOPED_TRACE(text);
    const Scheme s = parse_scheme(text), again = parse_scheme(s.name);
    EXPECT_EQ(s.name, name);
    EXPECT_EQ(again.name, s.name);
    EXPECT_EQ(again.weight, s.weight);
    EXPECT_EQ(again.activation, s.activation);
    EXPECT_EQ(again.native, s.native);
    EXPECT_EQ(again.native_activation, s.native_activation);
    EXPECT_EQ(again.kv.k, s.kv.k);
    EXPECT_EQ(again.kv.v, s.kv.v);
  }
  EXPECT_EQ(parse_scheme("w8a8kv8", "f16").name, "w8a8");  // the cache given apart wins
}

TEST(Scheme, ImpossibleOnesAreErrorsThatSayWhatWorks) {
  for (const char* text : {"w5", "w8a4", "a8w8", "kv4w8", "w8a8kv5", "w8w4", "w8a8a8", "kv4kv4", "f32a8", "w8a8kv4x",
                           "q4_0", "8", " w8", "w4g64", "w", "kv", "f32f16"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(error_of(text),
                testing::AllOf(testing::HasSubstr("w4g128"), testing::HasSubstr("a8g64"), testing::HasSubstr("kv2row"),
                               testing::HasSubstr("bf16"), testing::HasSubstr(std::string("'") + text + "'")));
  }
  for (const char* text : {"w6a8", "wfp8a8", "w6a8g64", "wfp8a8g64kv8"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(error_of(text), testing::AllOf(testing::HasSubstr("a16 works"), testing::HasSubstr("w8 w4")));
  }
  for (const char* kv : {"8", "kv5", "w8", "kv", "k4v8", "kv8 ", "bf16"}) {
    SCOPED_TRACE(kv);
    EXPECT_THAT(error_of("w8a8", kv),
                testing::AllOf(testing::HasSubstr("kv4row"), testing::HasSubstr(std::string("'") + kv + "'")));
  }
}

TEST(Scheme, HelpNamesEveryWord) {
  const std::string help = scheme_help();
  for (const char* word : {"w8 ",  "w6 ",     "wfp8 ",   "w4 ",     "w4g128 ", "w4row ", "w3 ",   "w2 ",
                           "a16 ", "a8 ",     "a8g64 ",  "kvf16 ",  "kv8 ",    "kvfp8 ", "k8v4 ", "kv4 ",
                           "kv2 ", "kv4row ", "kv3row ", "kv2row ", "own ",    "f32 ",   "f16 ",  "bf16 "}) {
    EXPECT_THAT(help, testing::HasSubstr(std::string("    ") + word));
  }
}

}  // namespace
}  // namespace quire
