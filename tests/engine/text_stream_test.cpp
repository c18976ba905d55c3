// Bytes in, text out: the text and where it stops do not depend on how the bytes are cut.
#include "engine/text_stream.h"

#include <gtest/gtest.h>

#include "base/utf8.h"
#include "tests/op_test.h"

namespace quire {
namespace {

struct Result {
  std::string text;
  bool stopped;
  bool operator==(const Result&) const = default;
};

// Every piece that leaves must be well formed by itself.
Result stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stop = {}) {
  TextStream s(stop);
  Result result{"", false};
  const auto add = [&](const std::string& text) {
    EXPECT_EQ(utf8_valid_prefix(text), text.size()) << "half a sequence left";
    result.text += text;
  };
  for (const std::string& piece : pieces) {
    const bool before = s.stopped();
    const std::string text = s.push(piece);
    if (before) {
      EXPECT_EQ(text, "");
    }
    add(text);
  }
  result.stopped = s.stopped();
  add(s.finish());
  return result;
}

std::vector<std::string> bytes_of(const std::string& text) {
  std::vector<std::string> pieces;
  for (const char c : text) pieces.emplace_back(1, c);
  return pieces;
}

const char* const kText = "a\u00e9\u20ac\U0001F600z \u0416\uFFFD\u4e2d";  // sequences of 1, 2, 3 and 4 bytes

TEST(TextStream, CutAnywhere) {
  const std::string text = kText;
  EXPECT_EQ(stream({text}), (Result{text, false}));
  EXPECT_EQ(stream(bytes_of(text)), (Result{text, false}));
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      EXPECT_EQ(stream({text.substr(0, i), text.substr(i, j - i), text.substr(j)}), (Result{text, false}))
          << i << " " << j;
    }
  }
}

TEST(TextStream, NothingWaitsWithoutReason) {
  TextStream s;
  EXPECT_EQ(s.push("ab"), "ab");
  EXPECT_EQ(s.push("\xe2"), "");
  EXPECT_EQ(s.push("\x82"), "");
  EXPECT_EQ(s.push("\xac!"), "\u20ac!");
  EXPECT_EQ(s.finish(), "");
  TextStream t({"STOP"});
  EXPECT_EQ(t.push("xS"), "x");
  EXPECT_EQ(t.push("T"), "");
  EXPECT_EQ(t.push("A"), "STA");
  EXPECT_EQ(t.push("no ST"), "no ");
  EXPECT_EQ(t.finish(), "ST");
}

TEST(TextStream, BytesThatAreNoTextBecomeReplacements) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(stream({"a\xff"
                    "b"})
                .text,
            "a" + r + "b");
  EXPECT_EQ(stream({"\x80\xbf"}).text, r + r);
  EXPECT_EQ(stream({"\xc3", "("}).text, r + "(");
  EXPECT_EQ(stream({"\xc0\xaf"}).text, r + r) << "overlong";
  EXPECT_EQ(stream({"\xed\xa0\x80"}).text, r + r + r) << "a surrogate";
  EXPECT_EQ(stream({"\xf4\x90\x80\x80"}).text, r + r + r + r) << "beyond U+10FFFF";
  EXPECT_EQ(stream({"\xf5z"}).text, r + "z");
  EXPECT_EQ(stream({"ok\xf0\x9f\x98"}).text, "ok" + r + r + r) << "unfinished at the end";
  EXPECT_EQ(stream({"\xf0\x9f", "\xe2\x82\xac"}).text, r + r + "\u20ac") << "unfinished, then a whole one";
}

// What bytes give in one piece, they give byte by byte.
TEST(TextStream, RandomBytesCutAnywhere) {
  Rng rng(1);
  const char* const alphabet[] = {"a",    "\xc3", "\xa9", "\xe2", "\x82", "\xac",
                                  "\xf0", "\x9f", "\x98", "\x80", "\xff", "\xed"};
  for (int i = 0; i < 3000; ++i) {
    std::string bytes;
    for (int64_t n = between(rng, 0, 12); n > 0; --n) bytes += alphabet[rng() % 12];
    const std::vector<std::string> stop =
        i % 2 ? std::vector<std::string>{"a\xc3", "\xac"} : std::vector<std::string>{};
    const Result byte_by_byte = stream(bytes_of(bytes), stop);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = size_t(between(rng, 1, 4));
      pieces.push_back(bytes.substr(at, n));
      at += n;
    }
    // A stop string that ends later but starts earlier can only be seen when both come in one piece; these cannot
    // overlap.
    EXPECT_EQ(stream(pieces, stop), byte_by_byte) << testing::PrintToString(bytes);
  }
}

TEST(TextStream, StopsAcrossPieces) {
  const std::string text = "Hello<|end|>rest";
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      EXPECT_EQ(stream({text.substr(0, i), text.substr(i, j - i), text.substr(j)}, {"<|end|>"}),
                (Result{"Hello", true}));
    }
  }
  EXPECT_EQ(stream(bytes_of(text), {"<|end|>"}), (Result{"Hello", true}));
}

TEST(TextStream, FalseStartsComeOut) {
  EXPECT_EQ(stream(bytes_of("aab"), {"aac"}), (Result{"aab", false}));
  EXPECT_EQ(stream(bytes_of("aaab!"), {"aab"}), (Result{"a", true})) << "the match starts inside a failed one";
  EXPECT_EQ(stream(bytes_of("ababac"), {"abac"}), (Result{"ab", true}));
  EXPECT_EQ(stream(bytes_of("\n\n\n"), {"\n\n\n\n"}), (Result{"\n\n\n", false})) << "held to the end";
}

TEST(TextStream, SeveralStops) {
  EXPECT_EQ(stream({"one two three"}, {"three", "two"}), (Result{"one ", true})) << "the first in the text";
  EXPECT_EQ(stream({"xyz"}, {"", "z"}), (Result{"xy", true})) << "an empty one never matches";
  EXPECT_EQ(stream({"xyz"}, {""}), (Result{"xyz", false}));
  EXPECT_EQ(stream({"abc"}, {"abc"}), (Result{"", true}));
  EXPECT_EQ(stream(bytes_of("one two"), {"two", "e t"}), (Result{"on", true}));
}

TEST(TextStream, StopsInOtherAlphabets) {
  const std::string text = "\u4e2d\u6587\u3002\u4e2d";
  EXPECT_EQ(stream(bytes_of(text), {"\u3002"}), (Result{"\u4e2d\u6587", true}));
  // A stop string that begins like a character of the text: held, then released whole.
  EXPECT_EQ(stream(bytes_of("\u4e2d\u4e2e"), {"\u4e2f"}), (Result{"\u4e2d\u4e2e", false}));
  // Half a sequence before a stop string cannot be finished any more.
  EXPECT_EQ(stream({"\xe4\xb8", "STOP"}, {"STOP"}), (Result{"\uFFFD\uFFFD", true}));
}

TEST(TextStream, NothingAfterTheStop) {
  TextStream s({"."});
  EXPECT_EQ(s.push("a.b"), "a");
  EXPECT_TRUE(s.stopped());
  EXPECT_EQ(s.push("more"), "");
  EXPECT_EQ(s.finish(), "");
}

}  // namespace
}  // namespace quire
