// --help tells everything (there is no man page), and the shells complete every flag.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "apps/verbs.h"
#include "tests/apps/program.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using ::testing::HasSubstr;

struct Help : ::testing::Test {
  CLI::App program{"", "quire"};
  std::vector<Verb> verbs = add_verbs(program);

  template <class Fn>
  void each_option(Fn fn) const {
    for (const Verb& verb : verbs) {
      for (const CLI::Option* option : verb.app->get_options()) {
        if (!option->get_group().empty()) fn(*verb.app, *option);
      }
    }
  }
};

TEST_F(Help, EveryVerbHasADescriptionAndExamples) {
  for (const Verb& verb : verbs) {
    EXPECT_NE(verb.app->get_description(), "") << verb.app->get_name();
    EXPECT_THAT(verb.app->get_footer(), HasSubstr("Examples:\n  ")) << verb.app->get_name();
  }
}

TEST_F(Help, EveryFlagSaysWhatItDoesWhatItTakesAndWhatHoldsWithoutIt) {
  // What is simply absent unless given.
  const std::set<std::string> optional = {"--prompt", "--system",  "--file",       "--score", "--logprobs",
                                          "--stop",   "--kl-base", "--logit-bias", "--pg"};
  each_option([&](const CLI::App& verb, const CLI::Option& option) {
    const std::string name = verb.get_name() + " " + option.get_name();
    const std::string help = option.get_description();
    EXPECT_NE(help, "") << name;
    EXPECT_NE(help.back(), '.') << name << ": one line, no sentence";
    if (option.get_items_expected_max() == 0) return;  // no value
    EXPECT_NE(option.get_type_name(), "") << name << ": what is to be typed?";
    EXPECT_NE(option.get_type_name(), "TEXT:{}") << name;
    const bool says = help.find("default") != std::string::npos || option.get_required();
    const std::string flag = option.get_lnames().empty() ? "" : "--" + option.get_lnames()[0];
    EXPECT_TRUE(says || optional.count(flag) > 0) << name << ": \"" << help << "\" does not tell the default";
  });
}

TEST_F(Help, ListsWhatAVerbUses) {
  for (const char* verb : {"inspect", "perplexity"}) {
    const std::string help = run_program({verb, "--help"}).out;
    EXPECT_THAT(help, testing::Not(HasSubstr("--temperature"))) << verb;
    EXPECT_THAT(help, HasSubstr("--memory-limit")) << verb;
  }
  EXPECT_THAT(run_program({"chat", "--help"}).out, HasSubstr("outgrows the context"));
  EXPECT_THAT(run_program({"--help"}).out, HasSubstr("Exit codes: 0 done"));
}

TEST_F(Help, ShellsCompleteEveryVerbAndFlag) {
  const std::string bash = run_program({"completion", "bash"}).out, zsh = run_program({"completion", "zsh"}).out,
                    fish = run_program({"completion", "fish"}).out;
  each_option([&](const CLI::App& verb, const CLI::Option& option) {
    EXPECT_THAT(fish, HasSubstr(" -a " + verb.get_name() + " -d '"));
    for (const std::string& name : option.get_lnames()) {
      EXPECT_THAT(bash, HasSubstr("--" + name));
      EXPECT_THAT(zsh, HasSubstr("--" + name + "["));
      EXPECT_THAT(fish, HasSubstr(" -l " + name + " "));
    }
  });
  EXPECT_EQ(run_program({"completion", "tcsh"}).code, 2);
  EXPECT_EQ(run_program({"completion"}).code, 2);
}

// What bash offers for a line whose last word is being typed.
std::string offered(const std::string& script, const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += "'" + word + "' ";
  const std::string command = "bash '" + script + ".test'";
  write_file(script + ".test", "compopt() { :; }\n. '" + script + "'\nCOMP_WORDS=(" + line + ")\nCOMP_CWORD=" +
                                   std::to_string(words.size() - 1) + "\n_quire\necho \"${COMPREPLY[*]}\"\n");
  FILE* pipe = popen(command.c_str(), "r");
  check(pipe != nullptr, "no shell");
  std::array<char, 4096> text{};
  const size_t n = fread(text.data(), 1, text.size() - 1, pipe);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return std::string(text.data(), n > 0 ? n - 1 : 0);  // without the newline
}

TEST_F(Help, BashCompletes) {
  const TempDir dir;
  const std::string script = dir.file("quire.bash");
  write_file(script, run_program({"completion", "bash"}).out);
  EXPECT_EQ(offered(script, {"quire", "gen"}), "generate");
  EXPECT_EQ(offered(script, {"quire", "--v"}), "--version");
  EXPECT_EQ(offered(script, {"quire", "chat", "--temp"}), "--temperature");
  EXPECT_EQ(offered(script, {"quire", "chat", "--temperature", "0"}), "") << "a number is no flag";
  EXPECT_EQ(offered(script, {"quire", "chat", "--model", "--t"}), "") << "a file, from bash itself";
  EXPECT_EQ(offered(script, {"quire", "perplexity", "--kl"}), "--kl-base --kl-write");
  EXPECT_EQ(offered(script, {"quire", "completion", "z"}), "zsh");
}

// The other shells read what is written for them, where they are installed.
TEST_F(Help, ZshAndFishReadTheirs) {
  const TempDir dir;
  for (const std::string shell : {"zsh", "fish"}) {
    if (std::system(("command -v " + shell + " >/dev/null").c_str()) != 0) continue;
    const std::string script = dir.file(shell);
    write_file(script, run_program({"completion", shell}).out);
    EXPECT_EQ(std::system((shell + " -n '" + script + "'").c_str()), 0);
  }
}

}  // namespace
}  // namespace quire
