#include "tests/fuzz/heap.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>

#include "models/hf_tokenizer.h"
#include "models/json_file.h"
#include "models/safetensors.h"
#include "tests/fuzz/target.h"
#include "tests/models/gguf_writer.h"
#include "tests/models/safetensors_writer.h"

namespace quire::fuzz {

namespace {

std::atomic<size_t> held{0}, most{0};
size_t start = 0;

[[maybe_unused]] void* taken(void* p) {
  if (!p) throw std::bad_alloc();
  const size_t now = held += malloc_usable_size(p);
  size_t peak = most;
  while (now > peak && !most.compare_exchange_weak(peak, now)) {
  }
  return p;
}

[[maybe_unused]] void given_back(void* p) {
  if (p) held -= malloc_usable_size(p);
  std::free(p);
}

}  // namespace

void start_heap_count() { most = start = held; }
size_t heap_peak() { return most - start; }

// The address sanitizer brings an allocator of its own, with checks of its own: nothing is counted under it.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kCounted = false;
#else
constexpr bool kCounted = true;
#endif

TEST(Heap, CountsThePeakAndRefusesTheAbsurd) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  start_heap_count();
  { const std::unique_ptr<char[]> a(new char[1 << 20]), b(new char[1 << 20]); }
  const std::unique_ptr<char[]> c(new char[1 << 20]);
  EXPECT_GE(heap_peak(), size_t{2} << 20);
  EXPECT_LT(heap_peak(), size_t{3} << 20);
  volatile size_t absurd = kMostAtOnce + 1;
  EXPECT_THROW(std::make_unique<char[]>(absurd), std::bad_alloc);
}

// Whether `read` takes what it is given; its memory is held to kHeapFactor times `size`, and a little for messages.
template <class Read>
bool read_bounded(size_t size, const std::string& what, Read&& read) {
  start_heap_count();
  const bool taken = accepted(read);
  EXPECT_LE(heap_peak(), kHeapFactor * size + 4096) << what << ", " << size << " bytes";
  return taken;
}

bool read_json_bounded(const std::string& text, const std::string& what) {
  const std::string path = put_file("text.json", text);
  return read_bounded(text.size(), what, [&] { read_json_file(path, size_t{1} << 28); });
}

std::string repeated(const std::string& piece, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += piece;
  return text;
}

// Arrays of what costs most for its bytes, around the lengths at which they double; also with an element at their end
// that makes ~Json()'s list of them double.
TEST(Heap, TinyJsonValuesTakeABoundedMultipleOfTheirBytes) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  const std::string deep = repeated("[", 50) + repeated("]", 50) + ",",
                    deep_objects = repeated("{\"\":", 50) + "0" + repeated("}", 50) + ",";
  for (const std::string& piece :
       {std::string("0,"), std::string("[],"), std::string("{},"), std::string("\"\","), std::string("[0],"),
        std::string("[[]],"), std::string("[{}],"), std::string("[0,0,0],"), std::string("{\"\":0},"),
        std::string("{\"\":{}},"), std::string("{\"a\":0,\"b\":[]},"), std::string("\"0123456789abcde\","),
        std::string("\"0123456789abcdef\","), std::string("{\"0123456789abcdef\":0},"), deep, deep_objects}) {
    for (const size_t count : {1, 2, 3, 5, 1000, 16'383, 16'384, 16'385, 25'000}) {
      if (piece.size() * count > size_t{1} << 20) continue;
      std::string all = "[" + repeated(piece, count);
      for (const char* end : {"[0,0]", "{\"a\":[0],\"b\":0}", "0"}) {
        read_json_bounded(all + end + "]", piece + " ... " + end);
        read_json_bounded("{\"\":" + all + end + "]}", "{ " + piece + " ... " + end);
      }
    }
  }
}

TEST(Heap, RandomJsonTakesABoundedMultipleOfItsBytes) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  const unsigned seed = std::random_device()();
  std::mt19937 rng(seed);
  int taken = 0;
  constexpr int kTexts = 100;
  for (int i = 0; i < kTexts; ++i) {
    std::string text;
    std::vector<char> open;  // what closes each container
    const auto key = [&] {   // short ones come twice, and that is refused
      if (!open.empty() && open.back() == '}') text += fmt::format("\"{:x}\":", rng() % 100'000'000);
    };
    const auto start = [&](bool array) {
      key();
      text += array ? '[' : '{';
      open.push_back(array ? ']' : '}');
    };
    const auto end = [&] {
      if (text.back() == ',') text.pop_back();
      text += open.back();
      open.pop_back();
      if (!open.empty()) text += ',';
    };
    start(true);
    const size_t nesting = rng() % 12, size = rng() % 200'000;
    while (text.size() < size) {
      const unsigned what = rng() % 8;
      if (what < 2 && open.size() < 40) {
        start(what == 0);
      } else if (what < 4 && open.size() > 1 + nesting) {
        end();
      } else {
        key();
        text += what < 6 ? std::string("0,") : '"' + std::string(rng() % (what == 6 ? 3 : 40), 'x') + "\",";
      }
    }
    while (!open.empty()) end();
    taken += read_json_bounded(text, fmt::format("seed {}, text {}", seed, i));
  }
  EXPECT_GT(taken, kTexts / 2) << "seed " << seed;  // what is bounded by a refusal alone says little of the reading
}

// What real files come closest to the bound with must be read: compact headers of short names.
TEST(Heap, CompactMetadataIsReadWithinItsBound) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  std::string numbers = "[", merges = "{\"merges\":[", vocab = "{\"vocab\":{";
  for (int i = 0; i < 70'000; ++i) {
    numbers += "0,";
    merges += fmt::format("[\"{}\",\"{}\"],", char('a' + i % 26), char('a' + i / 26 % 26));
    vocab += fmt::format("\"{:x}\":{},", i, i);
  }
  numbers.back() = ']', merges.back() = ']', vocab.back() = '}';
  for (const std::string& text : {numbers, merges + "}", vocab + "}", std::string("{}"), std::string("[]")})
    EXPECT_TRUE(read_json_bounded(text, text.substr(0, 30)));

  std::string header = "{", metadata = "{";
  for (int i = 0; i < 65'536; ++i) {
    header += fmt::format("\"{:x}\":{{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[{},{}]}},", i, i, i + 1);
    metadata += fmt::format("\"{:x}\":\"\",", i);
  }
  metadata.back() = '}';
  header += "\"__metadata__\":" + metadata + "}";
  const std::string path = put_file("many.safetensors", SafetensorsWriter::file_of(header, std::string(65'536, 'x')));
  EXPECT_TRUE(read_bounded(header.size(), "safetensors", [&] {
    const SafetensorsFile read{MappedFile(path)};
    EXPECT_EQ(read.tensors().size(), 65'536u);
    EXPECT_EQ(read.metadata().size(), 65'536u);
  }));
}

// Vocabulary and merges with short names, and one name as long as a file: also of the tokenizer that is made from them.
TEST(Heap, TokenizersTakeABoundedMultipleOfTheirBytes) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  const std::string letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN", longest(1'000'000, 'x');
  std::vector<std::string> tokens, merges;
  for (const char a : letters) tokens.push_back({a});
  for (const char a : letters) {
    for (const char b : letters) {
      tokens.push_back({a, b}), merges.push_back({a, ' ', b});
      for (const char c : letters) tokens.push_back({a, b, c}), merges.push_back({a, b, ' ', c});
    }
  }
  const auto expect_bounded = [](const Json& json) {
    const std::string text = json.dump(), directory = put_bundle(bundle({{"tokenizer.json", text}}));
    const Json config = Json::object();
    EXPECT_TRUE(read_bounded(text.size(), text.substr(0, 40), [&] {
      const Tokenizer tokenizer(read_hf_tokenizer(directory, JsonObject(config, "config.json"), 100'000));
      EXPECT_EQ(tokenizer.encode("abc").size(), 1u);
    }));
  };
  Json json = {{"model", {{"type", "BPE"}, {"merges", merges}}},
               {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
               {"decoder", {{"type", "ByteLevel"}}}};
  for (size_t id = 0; id < tokens.size(); ++id) json["model"]["vocab"][tokens[id]] = id;
  expect_bounded(json);
  json["model"]["merges"] = {"a b", "ab c"};
  json["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"abc", 4}};
  json["added_tokens"] = {{{"id", 5}, {"content", longest}}};
  expect_bounded(json);
}

TEST(Heap, GgufMetadataTakesABoundedMultipleOfItsBytes) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  GgufWriter writer;
  for (int i = 0; i < 65'536; ++i) writer.raw(fmt::format("{:04x}", i), uint32_t(GgufType::u8), "x");
  for (int i = 0; i < 65'536; ++i) writer.tensor_info(fmt::format("{:04x}", i), {1}, 0, uint64_t(i) * 32);
  writer.texts("empty", std::vector<std::string>(100'000));
  const std::string header = writer.header(), path = put_file("many.gguf", header + std::string(65'537 * 32, '\0'));
  start_heap_count();
  const GgufFile file{MappedFile(path)};
  EXPECT_EQ(file.texts("empty")->size(), 100'000u);
  EXPECT_EQ(file.tensors().size(), 65'536u);
  EXPECT_LT(heap_peak(), kHeapFactor * header.size());
}

}  // namespace quire::fuzz

#ifndef __SANITIZE_ADDRESS__
void* operator new(size_t size) {
  return quire::fuzz::taken(size > quire::fuzz::kMostAtOnce ? nullptr : std::malloc(size > 0 ? size : 1));
}
void* operator new(size_t size, std::align_val_t alignment) {
  const size_t a = size_t(alignment);
  return quire::fuzz::taken(size > quire::fuzz::kMostAtOnce ? nullptr : std::aligned_alloc(a, (size + a - 1) / a * a));
}
void operator delete(void* p) noexcept { quire::fuzz::given_back(p); }
void operator delete(void* p, size_t) noexcept { quire::fuzz::given_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { quire::fuzz::given_back(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { quire::fuzz::given_back(p); }
#endif
