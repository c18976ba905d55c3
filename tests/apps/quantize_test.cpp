// `quire quantize` as a person runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

Json json_of(const ProgramResult& result) {
  EXPECT_EQ(result.code, 0) << result.err;
  return Json::parse(result.out);
}

struct Quantize : ::testing::Test {
  TempDir dir;
  std::string tiny = write_tiny_gguf(make_tiny_model(), dir.file("tiny.gguf")), out = dir.file("tiny-w4a8");

  ProgramResult quantize(std::vector<std::string> flags) const {
    std::vector<std::string> arguments = {"quantize", "--model", tiny, "--threads", "1"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return run_program(arguments);
  }
  // What a model generates and what it says it ran.
  static Json generated(const std::string& model, std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments = {"generate", "-m", model, "--threads",    "1",  "--memory-limit",
                                          "256M",     "-p", "x",   "--max-tokens", "12", "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return json_of(run_program(arguments));
  }
};

TEST_F(Quantize, MakesAModelThatEveryVerbOpens) {
  const ProgramResult made = quantize({"--scheme", "w4a8", "--kv", "kv8", "-o", out});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr("qoq4/g64"));
  EXPECT_THAT(made.err, HasSubstr("quantizing"));
  const Json stored = generated(out), at_load = generated(tiny, {"--scheme", "w4a8kv8"});
  EXPECT_EQ(stored["tokens"], at_load["tokens"]);
  EXPECT_EQ(stored["scheme"], "w4a8kv8");
  EXPECT_EQ(stored["kv"], "kv8");
  EXPECT_EQ(generated(out, {"--kv", "kv4"})["kv"], "kv4");
  EXPECT_EQ(generated(out, {"--scheme", "f32"})["scheme"], "f32");
  EXPECT_EQ(run_program({"chat", "-m", out, "-p", "hi", "--max-tokens", "2", "--memory-limit", "256M"}).code, 0);
}

TEST_F(Quantize, InspectShowsWhatItIs) {
  ASSERT_EQ(quantize({"--scheme", "w4a8", "-o", out, "-q"}).code, 0);
  const ProgramResult text = run_program({"inspect", "-m", out, "--memory-limit", "256M", "--tensors"});
  EXPECT_EQ(text.code, 0) << text.err;
  for (const char* part : {"Quantized by `quire quantize` (scheme w4a8)", "weights          qoq4/g64",
                           "activations      int8", "scheme w4a8, cache kvf16"})
    EXPECT_THAT(text.out, HasSubstr(part));
  const Json object = json_of(run_program({"inspect", "-m", out, "--memory-limit", "256M", "--json", "-q"}));
  EXPECT_EQ(object["quantized"]["scheme"], "w4a8");
  EXPECT_EQ(object["formats"]["qoq4/g64"]["tensors"], 14);
  EXPECT_LT(object["bits_per_weight"].get<double>(), 8.0);
}

TEST_F(Quantize, SaysWhatIsWrong) {
  EXPECT_EQ(quantize({"--scheme", "w4a8"}).code, 2);
  EXPECT_EQ(quantize({"--output", out}).code, 2);
  EXPECT_EQ(quantize({"--scheme", "w5", "--output", out}).code, 2);
  const ProgramResult own = quantize({"--scheme", "own", "--output", out});
  EXPECT_EQ(own.code, 1);
  EXPECT_THAT(own.err, HasSubstr("w4a8"));
  EXPECT_EQ(quantize({"--scheme", "w8a8", "--output", dir.file("no/where")}).code, 1);
  EXPECT_FALSE(std::filesystem::exists(out));

  const Json made = json_of(quantize({"--scheme", "w8a8", "--output", out, "--json", "-q"}));
  EXPECT_EQ(made["scheme"], "w8a8");
  EXPECT_EQ(made["tensors"], 20);
  const ProgramResult again = quantize({"--scheme", "w2a8", "--output", out});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("--force"));
  EXPECT_EQ(generated(out)["scheme"], "w8a8");
  EXPECT_EQ(quantize({"--scheme", "w2a8", "--output", out, "--force"}).code, 0);
  EXPECT_EQ(generated(out)["scheme"], "w2a8");
}

TEST(QuantizeRealModel, StillKnowsTheCapitalOfFrance) {
  QUIRE_NEEDS_FILE(test_model());
  const TempDir dir;
  const std::string out = dir.file("w8a8");
  ASSERT_EQ(run_program({"quantize", "-m", test_model(), "--scheme", "w8a8kv8", "-o", out, "-q"}).code, 0);
  const std::vector<std::string> question = {"-p", "What is the capital of France?", "--max-tokens", "32", "--json"};
  const auto answer = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), question.begin(), question.end());
    return json_of(run_program(arguments));
  };
  const Json stored = answer({"chat", "-m", out}),
             at_load = answer({"chat", "-m", test_model(), "--scheme", "w8a8kv8"});
  EXPECT_THAT(stored["text"].get<std::string>(), HasSubstr("Paris"));
  EXPECT_EQ(stored["tokens"], at_load["tokens"]);
}

}  // namespace
}  // namespace quire
