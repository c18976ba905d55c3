// The chat in a terminal: what a person types and sees.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kPrompt = ">>> ";
const std::string kCtrlD = "\x04";

struct ChatTerminal : ::testing::Test {
  TempDir dir;
  std::string tiny = write_tiny_gguf(make_tiny_model({.context = 2048}), dir.file("tiny.gguf"));
  Environment environment = {{"TERM", "xterm"}, {"NO_COLOR", "1"}, {"XDG_STATE_HOME", dir.file("state")}};

  // With no end of text (--logit-bias) an answer takes minutes to fill this context: there is time to stop it.
  void endless_model() { write_tiny_gguf(make_tiny_model({.context = 1 << 18}), tiny); }
  std::vector<std::string> arguments(std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"chat", "--model", tiny, "--threads", "1", "--memory-limit", "512M"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

void say(TerminalProgram& chat, const std::string& line, const std::string& answer) {
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type(line + "\n");
  ASSERT_TRUE(chat.shows(answer)) << line << "\n" << chat.seen();
}

nlohmann::json messages_in(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file)["messages"];
}

TEST_F(ChatTerminal, AnswersAndQuits) {
  TerminalProgram chat(arguments({"--max-tokens", "8"}), environment);
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type("Hello\n");
  ASSERT_TRUE(chat.shows("t/s | answer ")) << chat.seen();
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.type(kCtrlD);
  EXPECT_EQ(chat.wait(), 0);
  EXPECT_THAT(chat.seen(), HasSubstr("/help lists the commands"));
  EXPECT_THAT(chat.seen(), Not(HasSubstr("\x1b[2m")));  // NO_COLOR
}

TEST_F(ChatTerminal, ColoursWhereTheyAreWanted) {
  environment["NO_COLOR"] = "";
  TerminalProgram chat(arguments({"--max-tokens", "2"}), environment);
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type("/exit\n");
  EXPECT_EQ(chat.wait(), 0);
  EXPECT_THAT(chat.seen(), HasSubstr("\x1b[2m"));
}

TEST_F(ChatTerminal, CtrlCStopsTheAnswerAndASecondOneLeaves) {
  endless_model();
  TerminalProgram chat(arguments({"--logit-bias", "2=-1000"}), environment);
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type("Hello\n");
  ASSERT_TRUE(chat.shows("Hello\r\n"));
  ASSERT_TRUE(chat.shows_anything());
  chat.press_ctrl_c();
  ASSERT_TRUE(chat.shows("[stopped]")) << chat.seen();
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.press_ctrl_c();
  EXPECT_EQ(chat.wait(), 130);
}

TEST_F(ChatTerminal, CtrlCAtThePromptClearsTheLineThenWarnsThenLeaves) {
  TerminalProgram chat(arguments({"--max-tokens", "4"}), environment);
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type("half a line");
  ASSERT_TRUE(chat.shows("half a line"));
  chat.press_ctrl_c();
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.press_ctrl_c();
  ASSERT_TRUE(chat.shows("Ctrl-C again"));
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.press_ctrl_c();
  EXPECT_EQ(chat.wait(), 130);
  EXPECT_THAT(chat.seen(), Not(HasSubstr("answer 4 tokens")));
}

// The prompt is the sign that the line editor has the terminal, so keys that come with it are its own at once.
TEST_F(ChatTerminal, KeysRightAfterThePromptAreNotTheTerminalsOwn) {
  TerminalProgram chat(arguments({"--max-tokens", "4"}), environment);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
    chat.type("half");
    ASSERT_TRUE(chat.shows("half")) << chat.seen();
    chat.press_ctrl_c();
  }
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type(kCtrlD);
  EXPECT_EQ(chat.wait(), 0);
  EXPECT_THAT(chat.seen(), Not(HasSubstr("Ctrl-C again"))) << "a line was taken for an empty one";
}

TEST_F(ChatTerminal, GoesOnAfterHavingBeenStopped) {
  TerminalProgram chat(arguments({"--max-tokens", "4"}), environment);
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type("half");
  ASSERT_TRUE(chat.shows("half")) << chat.seen();
  chat.stop_and_make_sane();
  chat.resume();
  ASSERT_TRUE(chat.shows("half")) << "drawn again\n" << chat.seen();
  chat.type(" done\x7f\x7fne\n");  // edited by the line editor
  ASSERT_TRUE(chat.shows("answer 4 tokens")) << chat.seen();
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.type("\x10");  // Ctrl-P
  EXPECT_TRUE(chat.shows("half done")) << chat.seen();
}

TEST_F(ChatTerminal, CtrlCEndsGenerateWith130) {
  endless_model();
  std::vector<std::string> flags = arguments({"-p", "Hello", "--logit-bias", "2=-1000"});
  flags[0] = "generate";
  TerminalProgram generate(flags, environment);
  ASSERT_TRUE(generate.shows("100%")) << generate.seen();  // loaded
  ASSERT_TRUE(generate.shows_anything());
  generate.press_ctrl_c();
  EXPECT_EQ(generate.wait(), 130);
}

TEST_F(ChatTerminal, Commands) {
  const std::string saved = dir.file("chat.json");
  TerminalProgram chat(arguments({"--max-tokens", "4", "--temperature", "1"}), environment);
  say(chat, "/help", "/regen, /retry");
  say(chat, "/nonsense", "no command '/nonsense'");
  say(chat, "/regen", "nothing to answer again");
  say(chat, "/set top_k=7", "top-k = 7");
  say(chat, "/set top_k=lots", "lots");
  say(chat, "/system Be brief.", "system: Be brief.");
  say(chat, "/show", "Be brief.");
  say(chat, "\"\"\"", "... ");
  chat.type("one\ntwo\"\"\"\n");
  ASSERT_TRUE(chat.shows("answer 4 tokens")) << chat.seen();
  say(chat, "/regen", "answer 4 tokens");
  say(chat, "/save " + saved, "2 messages are in");
  say(chat, "/undo", "0 messages are left");
  say(chat, "/undo", "nothing to take back");
  say(chat, "/set top_k=0", "top-k = 0");
  say(chat, "/load " + saved, "2 messages are back");
  say(chat, "/stats", "weights");
  say(chat, "/set", "top-k                7");
  say(chat, "/load " + dir.file("none"), "none");
  say(chat, "/clear", "empty");
  say(chat, "/bye", "");
  EXPECT_EQ(chat.wait(), 0);

  std::ifstream file(saved);
  const nlohmann::json object = nlohmann::json::parse(file);
  EXPECT_EQ(object["system"], "Be brief.");
  EXPECT_EQ(object["messages"][0]["content"], "one\ntwo");
  EXPECT_EQ(object["messages"][1]["role"], "assistant");
  EXPECT_EQ(object["settings"]["top-k"], "7");
}

TEST_F(ChatTerminal, AFileGoesWithTheNextMessage) {
  write_file(dir.file("notes.txt"), "some notes");
  const std::string saved = dir.file("chat.json");
  TerminalProgram chat(arguments({"--max-tokens", "2"}), environment);
  for (const std::string& line : {"/read " + dir.file("notes.txt"), std::string("Sum up."), "/save " + saved}) {
    ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
    chat.type(line + "\n");
  }
  ASSERT_TRUE(chat.shows("messages are in")) << chat.seen();
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.type(kCtrlD);
  EXPECT_EQ(chat.wait(), 0);
  std::ifstream file(saved);
  EXPECT_EQ(nlohmann::json::parse(file)["messages"][0]["content"], "some notes\nSum up.");
}

// A conversation that was left and read again goes on as the one that was not: the same greedy answer, whatever the
// cache's format, and the cache holds it before the next question.
TEST_F(ChatTerminal, ALoadedConversationGoesOnAsIfNeverLeft) {
  const std::string first(150, 'a'), second = "And then?";
  for (const std::string kv : {"f16", "kv8", "kv4"}) {
    const std::vector<std::string> flags = arguments({"--max-tokens", "24", "--logit-bias", "2=-1000", "--kv", kv});
    const std::string left = dir.file(kv + "left.json"), stayed = dir.file(kv + "stayed.json"),
                      loaded = dir.file(kv + "loaded.json");
    {
      TerminalProgram chat(flags, environment);
      say(chat, first, "answer 24 tokens");
      say(chat, "/save " + left, "2 messages are in");
      say(chat, second, "answer 24 tokens");
      say(chat, "/save " + stayed, "4 messages are in");
      // Taken back and asked again, and answered again: the cache is the same as well.
      say(chat, "/undo", "2 messages are left");
      say(chat, second, "answer 24 tokens");
      say(chat, "/regen", "answer 24 tokens");
      say(chat, "/set seed=0", "seed = 0");
      say(chat, "/save " + loaded, "4 messages are in");
      EXPECT_EQ(messages_in(loaded), messages_in(stayed)) << kv;
    }
    TerminalProgram chat(flags, environment);
    say(chat, "/load " + left, "read again: ");
    say(chat, second, " reused)");  // it was read before it was needed
    ASSERT_TRUE(chat.shows("answer 24 tokens")) << chat.seen();
    say(chat, "/save " + loaded, "4 messages are in");
    EXPECT_EQ(messages_in(loaded), messages_in(stayed)) << kv;
    EXPECT_EQ(messages_in(loaded)[3]["role"], "assistant");
  }
}

TEST_F(ChatTerminal, SettingsAreShownCheckedAndSaved) {
  TerminalProgram chat(arguments({"--max-tokens", "4"}), environment);
  const std::vector<std::array<const char*, 3>> settings = {{"temperature", "0.5", "-1"},
                                                            {"top-k", "40", "1.5"},
                                                            {"top-p", "0.9", "0"},
                                                            {"min-p", "0.05", "2"},
                                                            {"repetition-penalty", "1.1", "0"},
                                                            {"presence-penalty", "0.25", "nan"},
                                                            {"frequency-penalty", "-0.5", "inf"},
                                                            {"logit-bias", "42=-100", "42"},
                                                            {"seed", "7", "-7"},
                                                            {"max-tokens", "8", "-2"}};
  for (const auto& [name, good, bad] : settings) {
    say(chat, fmt::format("/set {}={}", name, bad), fmt::format("{}: ", name));  // an error names it
    say(chat, fmt::format("/set {}={}", name, good), fmt::format("{} = {}", name, good));
    say(chat, fmt::format("/set {}", name), fmt::format("{} = {}", name, good));
  }
  say(chat, "/set stop=END\\n", "stop = END\\n");
  say(chat, "/set stop ##", "stop = END\\n, ##");
  say(chat, "/set system=Be brief.", "system: Be brief.");
  const std::string saved = dir.file("chat.json");
  say(chat, "/save " + saved, "0 messages are in");
  for (const char* name : {"temperature", "top-k", "top-p", "min-p", "seed", "max-tokens"})
    say(chat, fmt::format("/set {}=1", name), fmt::format("{} = 1", name));
  say(chat, "/set logit-bias=", "logit-bias = (none)");
  say(chat, "/set stop=", "stop = (none)");
  say(chat, "/set system=none", "no system message");
  say(chat, "/load " + saved, "0 messages are back");
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.type("/set\n");
  for (const auto& [name, good, bad] : settings) EXPECT_TRUE(chat.shows(fmt::format("{:<20} {}", name, good))) << name;
  EXPECT_TRUE(chat.shows(fmt::format("{:<20} {}", "stop", "END\\n, ##"))) << chat.seen();
  EXPECT_TRUE(chat.shows(fmt::format("{:<20} {}", "system", "Be brief."))) << chat.seen();
  std::ifstream file(saved);
  EXPECT_EQ(nlohmann::json::parse(file)["settings"]["stop"], (std::vector<std::string>{"END\\n", "##"}));
}

TEST_F(ChatTerminal, TheHistoryComesBack) {
  {
    TerminalProgram chat(arguments({"--max-tokens", "2"}), environment);
    ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
    chat.type("a line to remember \xC3\xA9\n");
    ASSERT_TRUE(chat.shows("t/s | answer ")) << chat.seen();
    ASSERT_TRUE(chat.shows(kPrompt));
    chat.type(kCtrlD);
    EXPECT_EQ(chat.wait(), 0);
  }
  TerminalProgram chat(arguments({"--max-tokens", "2"}), environment);
  ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
  chat.type("\x10");  // Ctrl-P: the line before
  EXPECT_TRUE(chat.shows("a line to remember \xC3\xA9")) << chat.seen();
  chat.type("\n");
  ASSERT_TRUE(chat.shows("t/s | answer ")) << chat.seen();
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.type("/exit\n");
  EXPECT_EQ(chat.wait(), 0);
}

TEST_F(ChatTerminal, AFullContextDropsTheOldestTurns) {
  TerminalProgram chat(arguments({"--context", "256", "--max-tokens", "4", "--logit-bias", "2=-1000"}), environment);
  for (int turn = 0; turn < 4; ++turn) {
    ASSERT_TRUE(chat.shows(kPrompt)) << chat.seen();
    chat.type(std::string(80, char('a' + turn)) + "\n");
    if (turn == 3) break;
    ASSERT_TRUE(chat.shows("answer 4 tokens")) << chat.seen();
  }
  EXPECT_TRUE(chat.shows("oldest messages are no longer seen")) << chat.seen();
  EXPECT_TRUE(chat.shows("answer 4 tokens")) << chat.seen();
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.type(std::string(300, 'x') + "\n");
  EXPECT_TRUE(chat.shows("the context holds 256")) << chat.seen();  // too long by itself: refused, and the chat goes on
  ASSERT_TRUE(chat.shows(kPrompt));
  chat.type("/exit\n");
  EXPECT_EQ(chat.wait(), 0);
}

}  // namespace
}  // namespace quire
