#include "apps/line_reader.h"

#include <gtest/gtest.h>

#include "apps/terminal.h"

namespace quire {
namespace {

std::vector<std::string> messages_of(const std::vector<std::string>& lines) {
  MessageAssembler assembler;
  std::vector<std::string> messages;
  for (const std::string& line : lines) {
    if (auto message = assembler.feed(line)) messages.push_back(*message);
  }
  if (assembler.open()) messages.push_back("(open)");
  return messages;
}
using Messages = std::vector<std::string>;

TEST(MessageAssembler, ALineIsAMessage) {
  EXPECT_EQ(messages_of({"hello", "", "/help"}), (Messages{"hello", "", "/help"}));
}

TEST(MessageAssembler, Blocks) {
  EXPECT_EQ(messages_of({"\"\"\"", "one", "", "two", "\"\"\""}), Messages{"one\n\ntwo"});
  EXPECT_EQ(messages_of({"\"\"\"one", "two\"\"\""}), Messages{"one\ntwo"});
  EXPECT_EQ(messages_of({"\"\"\"one\"\"\"", "next"}), (Messages{"one", "next"}));
  EXPECT_EQ(messages_of({"\"\"\"", "ends with \\", "\"\"\""}), Messages{"ends with \\"});
  EXPECT_EQ(messages_of({"\"\"\"", "one"}), Messages{"(open)"});
  EXPECT_EQ(messages_of({"say \"\"\" here"}), Messages{"say \"\"\" here"});
}

TEST(MessageAssembler, BackslashContinues) {
  EXPECT_EQ(messages_of({"one\\", "two\\", "three"}), Messages{"one\ntwo\nthree"});
  EXPECT_EQ(messages_of({"one\\", ""}), Messages{"one\n"});
  EXPECT_EQ(messages_of({"one\\", "\"\"\"two"}), Messages{"one\n\"\"\"two"});
  EXPECT_EQ(messages_of({"one\\"}), Messages{"(open)"});
}

TEST(Terminal, HarmlessTextCannotDriveIt) {
  EXPECT_EQ(harmless("a\tb\nc \xC3\xA9 \xE4\xB8\xAD \xF0\x9F\x98\x80"),
            "a\tb\nc \xC3\xA9 \xE4\xB8\xAD \xF0\x9F\x98\x80");
  EXPECT_EQ(harmless("\x1b[31m"), "\xEF\xBF\xBD[31m");
  EXPECT_EQ(harmless("\xC2\x9B"
                     "31m"),
            "\xEF\xBF\xBD"
            "31m");  // C1 control
  EXPECT_EQ(harmless("\r\x7F"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(harmless("\xC2\xA0"), "\xC2\xA0");  // no-break space is no control
}

}  // namespace
}  // namespace quire
