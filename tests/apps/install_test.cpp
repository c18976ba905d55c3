// What is installed is enough: the examples, which the README quotes, are built against it and run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/apps/program.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string content(const fs::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Output {
  int code = -1;
  std::string text;
};

Output shell(const std::string& command) {
  FILE* pipe = popen(("( " + command + " ) 2>&1").c_str(), "r");
  check(pipe != nullptr, "no shell");
  Output output;
  std::array<char, 4096> block;
  for (size_t n; (n = fread(block.data(), 1, block.size(), pipe)) > 0;) output.text.append(block.data(), n);
  output.code = pclose(pipe);
  return output;
}

TEST(Install, TheExamplesBuildAndRunAgainstIt) {
  const TempDir dir;
  const std::string prefix = dir.file("prefix"), build = dir.file("build"), cmake = QUIRE_CMAKE;
  const Output installed = shell("'" + cmake + "' --install '" QUIRE_BUILD_DIR "' --prefix '" + prefix + "'");
  ASSERT_EQ(installed.code, 0) << installed.text;
  const Output configured = shell("'" + cmake + "' -S '" QUIRE_SOURCE_DIR "/examples' -B '" + build +
                                  "' -DCMAKE_PREFIX_PATH='" + prefix + "' " QUIRE_EXAMPLE_FLAGS);
  ASSERT_EQ(configured.code, 0) << configured.text;
  const Output built = shell("'" + cmake + "' --build '" + build + "'");
  ASSERT_EQ(built.code, 0) << built.text;

  const std::string model = write_tiny_gguf(make_tiny_model({.context = 2048}), dir.file("tiny.gguf"));
  const ProgramResult expected = run_program(
      {"chat", "--model", model, "--scheme", "w8a8kv8", "--max-tokens", "64", "-p", "Hello!", "--json", "--quiet"});
  ASSERT_EQ(expected.code, 0) << expected.err;
  const std::string text = nlohmann::json::parse(expected.out)["text"];
  for (const char* program : {"embed_cpp", "embed_c"}) {
    const Output answer = shell("'" + build + "/" + program + "' '" + model + "' 'Hello!'");
    EXPECT_EQ(answer.code, 0) << answer.text;
    EXPECT_EQ(answer.text, text) << program;
    const Output wrong = shell("'" + build + "/" + program + "' /no/such/model.gguf 'Hello!'");
    EXPECT_NE(wrong.code, 0);
    EXPECT_THAT(wrong.text, HasSubstr("/no/such/model.gguf")) << program;
  }
  const Output version = shell("'" + prefix + "/bin/quire' --version");
  EXPECT_EQ(version.code, 0) << version.text;
  for (const char* file : {"share/bash-completion/completions/quire", "share/zsh/site-functions/_quire",
                           "share/fish/vendor_completions.d/quire.fish", "include/quire/engine/quire.h"})
    EXPECT_GT(content(fs::path(prefix) / file).size(), 1000u) << file;
  EXPECT_FALSE(fs::exists(prefix + "/include/quire/engine/scheduler.h")) << "an inner header";
}

TEST(Install, TheLibraryForCShowsItsFunctionsOnly) {
  const Output symbols = shell("nm -D --defined-only '" QUIRE_BUILD_DIR "/libquire.so'");
  ASSERT_EQ(symbols.code, 0) << symbols.text;
  std::istringstream lines(symbols.text);
  int functions = 0;
  for (std::string address, kind, name; lines >> address >> kind >> name;) {
    EXPECT_EQ(name.compare(0, 6, "quire_"), 0) << name;
    ++functions;
  }
  EXPECT_GE(functions, 9);
}

TEST(Install, TheReadmeQuotesTheExamples) {
  const std::string readme = content(fs::path(QUIRE_SOURCE_DIR) / "README.md");
  for (const auto& [language, file] : {std::pair{"cpp", "embed.cpp"}, std::pair{"c", "embed.c"}}) {
    const std::string example = content(fs::path(QUIRE_SOURCE_DIR) / "examples" / file);
    EXPECT_THAT(readme, HasSubstr(std::string("```") + language + "\n" + example + "```\n")) << file;
  }
}

}  // namespace
}  // namespace quire
