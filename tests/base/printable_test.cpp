#include "base/printable.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(Printable, LeavesTextAlone) {
  EXPECT_EQ(printable(""), "");
  EXPECT_EQ(printable("model.layers.0 'x' caf\xC3\xA9 \xE4\xB8\xAD \xF0\x9F\x98\x80"),
            "model.layers.0 'x' caf\xC3\xA9 \xE4\xB8\xAD \xF0\x9F\x98\x80");
}

TEST(Printable, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(printable("\x1b[2J\a\n\t\\\x7f"), "\\x1b[2J\\x07\\n\\t\\\\\\x7f");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m"),
            "\\u009b31m");  // the one-character escape sequence of C1
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
}

// Text that a terminal shows in another order than it is written, or on another line.
TEST(Printable, EscapesWhatTurnsText) {
  EXPECT_EQ(printable("a\u202Egnp.exe"), "a\\u202egnp.exe");
  EXPECT_EQ(printable("\u061C\u200E\u200F\u2028\u2029\u202A\u2066\u2069"),
            "\\u061c\\u200e\\u200f\\u2028\\u2029\\u202a\\u2066\\u2069");
  EXPECT_EQ(printable("\u061B\u061D\u200D\u2010\u2027\u202F\u2065\u206A"),
            "\u061B\u061D\u200D\u2010\u2027\u202F\u2065\u206A");
}

TEST(Printable, EscapesBytesThatAreNotUtf8) {
  EXPECT_EQ(printable("\xFF\xC3"), "\\xff\\xc3");
  EXPECT_EQ(printable("\xC0\xAF"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(printable("\xED\xA0\x80"), "\\xed\\xa0\\x80");  // surrogate
}

TEST(Printable, CutsBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdef", 5), "abcde...");
  EXPECT_EQ(printable("ab\xE4\xB8\xAD", 4), "ab...");
  EXPECT_EQ(printable("ab\n\n", 5), "ab\\n...");
}

}  // namespace
}  // namespace quire
