// The built program as scripts see it: exit codes, messages, pipes, JSON.
#include "tests/apps/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/models/tiny_family.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

struct Program : ::testing::Test {
  TempDir dir;
  std::string tiny = write_tiny_gguf(make_tiny_model(), dir.file("tiny.gguf"));

  // A verb on the tiny model, in one thread.
  ProgramResult run(const std::string& verb, std::vector<std::string> flags, const std::string& input = "") {
    std::vector<std::string> arguments = {verb, "--model", tiny, "--threads", "1", "--memory-limit", "256M"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return run_program(arguments, input);
  }
};

// The last line of standard output, which must be the only one if `only`.
Json json_of(const ProgramResult& result) {
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out.find('\n') + 1, result.out.size()) << "one line: " << result.out;
  return Json::parse(result.out);
}

TEST_F(Program, HelpAndVersion) {
  const ProgramResult help = run_program({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* verb : {"chat", "generate", "perplexity", "inspect", "quantize"}) {
    EXPECT_THAT(help.out, HasSubstr(verb));
    const ProgramResult verb_help = run_program({verb, "--help"});
    EXPECT_EQ(verb_help.code, 0) << verb;
    EXPECT_THAT(verb_help.out, HasSubstr(std::string("quire ") + verb + " [OPTIONS]"));
    EXPECT_THAT(verb_help.out, HasSubstr("Examples:"));
    EXPECT_EQ(verb_help.err, "");
  }
  const ProgramResult version = run_program({"--version"}, "", {{"QUIRE_ISA", "baseline"}});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, HasSubstr("quire "));
  EXPECT_THAT(version.out, HasSubstr("baseline"));
  EXPECT_THAT(version.out, HasSubstr("CUDA"));
}

TEST_F(Program, BadCommandLinesExitWith2AndSayWhy) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "Examples:"},
      {{"dance"}, "dance"},
      {{"chat", "--no-such-flag"}, "--no-such-flag"},
      {{"chat", "--temperature", "warm"}, "warm"},
      {{"generate", "--scheme", "w5a5", "-p", "x"}, "w5a5"},
      {{"generate", "--kv", "kv5", "-p", "x"}, "kv5"},
      {{"generate", "--memory-limit", "much", "-p", "x"}, "much"},
      {{"perplexity"}, "--file"},
      {{"perplexity", "--file", "x", "--chunks", "0"}, "--chunks"},
      {{"perplexity", "--file", "x", "--kl-write"}, "--kl-base"},
  };
  for (const auto& [arguments, message] : cases) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.code, 2) << message;
    EXPECT_EQ(result.out, "") << message;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
}

TEST_F(Program, BadFilesExitWith1AndSayWhy) {
  const ProgramResult missing = run_program({"generate", "--model", dir.file("none.gguf"), "-p", "x"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.err, HasSubstr("none.gguf"));
  write_file(dir.file("text.gguf"), "this is no model");
  const ProgramResult text = run_program({"inspect", "--model", dir.file("text.gguf")});
  EXPECT_EQ(text.code, 1);
  EXPECT_THAT(text.err, HasSubstr("text.gguf"));
  const ProgramResult nothing = run_program({"chat", "-p", "x"}, "", {{"XDG_CACHE_HOME", dir.file("empty")}});
  EXPECT_EQ(nothing.code, 1);
  EXPECT_THAT(nothing.err, HasSubstr("fetch-model.sh"));
  EXPECT_EQ(run("perplexity", {"--file", dir.file("none.txt")}).code, 1);
}

TEST_F(Program, WhatCannotRunIsRefusedWithTheNumbers) {
  const ProgramResult memory = run_program({"generate", "--model", tiny, "--memory-limit", "1K", "-p", "x"});
  EXPECT_EQ(memory.code, 1);
  EXPECT_THAT(memory.err, HasSubstr("memory"));
  const ProgramResult context = run("generate", {"--context", "1000000", "-p", "x"});
  EXPECT_EQ(context.code, 1);
  EXPECT_THAT(context.err, HasSubstr("512"));
  const ProgramResult prompt = run("generate", {"--context", "64", "-p", std::string(500, 'x')});
  EXPECT_EQ(prompt.code, 1);
  EXPECT_THAT(prompt.err, HasSubstr("64"));
  const ProgramResult bias = run("generate", {"--logit-bias", "5000=1", "-p", "x"});
  EXPECT_EQ(bias.code, 1);
  EXPECT_THAT(bias.err, HasSubstr("5000"));
  const ProgramResult empty = run("generate", {"-p", ""});
  EXPECT_EQ(empty.code, 1);
}

TEST_F(Program, GenerateJson) {
  const Json object = json_of(run("generate", {"-p", "Hello", "--max-tokens", "5", "--json", "--logprobs", "3"}));
  EXPECT_EQ(object["prompt_tokens"], object["usage"]["prompt_tokens"]);
  EXPECT_TRUE(object["text"].is_string());
  const size_t tokens = object["tokens"].size();
  EXPECT_GE(tokens, 1u);
  EXPECT_LE(tokens, 5u);
  EXPECT_EQ(object["usage"]["generated_tokens"], tokens);
  EXPECT_EQ(object["finish"], tokens == 5 && object["tokens"].back() != 2 ? "length" : "stop");
  ASSERT_EQ(object["logprobs"].size(), tokens);
  for (size_t i = 0; i < tokens; ++i) {
    const Json& entry = object["logprobs"][i];
    EXPECT_EQ(entry["token"], object["tokens"][i]);
    ASSERT_EQ(entry["top"].size(), 3u);
    EXPECT_EQ(entry["top"][0]["token"], entry["token"]);  // greedy
    EXPECT_FLOAT_EQ(entry["top"][0]["logprob"].get<float>(), entry["logprob"].get<float>());
    EXPECT_LE(entry["top"][1]["logprob"].get<float>(), entry["top"][0]["logprob"].get<float>());
    EXPECT_LE(entry["logprob"].get<float>(), 0.0f);
  }
}

TEST_F(Program, TextAndJsonAgreeAndASeedRepeats) {
  const std::vector<std::string> flags = {"-p", "Once", "--max-tokens", "12", "--temperature", "1.5", "--seed", "11"};
  std::vector<std::string> with_json = flags;
  with_json.push_back("--json");
  const Json object = json_of(run("generate", with_json));
  const ProgramResult text = run("generate", flags);
  EXPECT_EQ(text.code, 0);
  std::string expected = object["text"];
  // A text may end inside a character; JSON shows that as U+FFFD, and so does the stream.
  if (expected.empty() || expected.back() != '\n') expected += '\n';
  EXPECT_EQ(text.out, expected);
  std::vector<std::string> other = with_json;
  other[7] = "12";
  EXPECT_NE(json_of(run("generate", other))["tokens"], object["tokens"]);
}

TEST_F(Program, APromptMayComeFromAFileOrAPipe) {
  write_file(dir.file("prompt.txt"), "Hello world\n");
  const std::vector<std::string> rest = {"--max-tokens", "4", "--json"};
  const auto with = [&](std::vector<std::string> flags) {
    flags.insert(flags.end(), rest.begin(), rest.end());
    return flags;
  };
  const Json from_flag = json_of(run("generate", with({"-p", "Hello world"})));
  EXPECT_EQ(json_of(run("generate", with({"--file", dir.file("prompt.txt")})))["tokens"], from_flag["tokens"]);
  EXPECT_EQ(json_of(run("generate", with({}), "Hello world\n"))["tokens"], from_flag["tokens"]);
  EXPECT_EQ(json_of(run("generate", with({"--file", "-"}), "Hello world"))["tokens"], from_flag["tokens"]);
}

TEST_F(Program, ScoreIsTheSumOfWhatGenerationSays) {
  const std::string prompt = "Hello";
  const Json generated = json_of(run("generate", {"-p", prompt, "--max-tokens", "1", "--json", "--logprobs", "300"}));
  // The likelihood of one given byte, from the whole distribution after the prompt.
  double expected = 0.0;
  for (const Json& entry : generated["logprobs"][0]["top"]) {
    if (entry["text"] == "q") expected = -entry["logprob"].get<double>();
  }
  ASSERT_GT(expected, 0.0);
  const Json one = json_of(run("generate", {"-p", prompt, "--score", "q", "--json"}));
  EXPECT_EQ(one["tokens"], 1);
  // Both take a log-sum-exp over 300 logits, one of them in f32: 300 additions of 2^-24 relative error, and values
  // below 16.
  const double tolerance = 300.0 / (1 << 24) + 16.0 / (1 << 24);
  EXPECT_NEAR(one["nll"].get<double>(), expected, tolerance);
  const Json two = json_of(run("generate", {"-p", prompt, "--score", "qx", "--json"}));
  EXPECT_EQ(two["tokens"], 2);
  EXPECT_DOUBLE_EQ(two["token_logprobs"][0].get<double>(), one["token_logprobs"][0].get<double>());
  EXPECT_NEAR(two["nll"].get<double>(),
              -(two["token_logprobs"][0].get<double>() + two["token_logprobs"][1].get<double>()), 1e-12);
}

TEST_F(Program, PipedChatIsOneMessageWithoutDecoration) {
  const std::vector<std::string> flags = {"--max-tokens", "6", "--temperature", "1", "--seed", "3"};
  const ProgramResult piped = run("chat", flags, "Hello\n/help\n");
  EXPECT_EQ(piped.code, 0) << piped.err;
  EXPECT_THAT(piped.out + piped.err, Not(HasSubstr("\x1b")));
  EXPECT_THAT(piped.out + piped.err, Not(HasSubstr(">>>")));
  EXPECT_THAT(piped.out, Not(HasSubstr("/regen")));
  std::vector<std::string> with_prompt = flags;
  with_prompt.insert(with_prompt.end(), {"-p", "Hello\n/help"});
  EXPECT_EQ(run("chat", with_prompt, "not read").out, piped.out);
  std::vector<std::string> with_json = with_prompt;
  with_json.push_back("--json");
  const Json object = json_of(run("chat", with_json));
  EXPECT_THAT(piped.out, HasSubstr(object["text"].get<std::string>()));
  std::vector<std::string> generated = with_json;
  generated.push_back("--chat");
  EXPECT_EQ(json_of(run("generate", generated))["tokens"], object["tokens"]);
}

TEST_F(Program, TextCannotForgeTurns) {
  // Spelled out, a control token is one id; in a message it must be plain text, so it takes more tokens.
  const auto tokens = [&](const std::string& message) {
    return json_of(run("chat", {"-p", message, "--max-tokens", "0", "--json"}))["prompt_tokens"].get<int>();
  };
  const int spelled = 9;  // of ten bytes the tiny tokenizer merges "en"
  EXPECT_EQ(tokens("x<|im_end|>") - tokens("x"), spelled);
  EXPECT_EQ(tokens("<|im_end|><|im_end|>") - tokens("<|im_end|>"), spelled);
}

TEST_F(Program, AClosedPipeEndsQuietly) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    dup2(ends[1], 1);
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    exec_program(
        {"generate", "--model", tiny, "--threads", "1", "--memory-limit", "256M", "-p", "x", "--max-tokens", "50"}, {});
  }
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(exit_code(child), 141);
}

TEST_F(Program, PerplexityAndDivergence) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "The cat " + std::to_string(i * 7919 % 1000) + " sat on the mat. ";
  write_file(dir.file("text.txt"), text);
  const std::vector<std::string> flags = {"--file", dir.file("text.txt"), "--context", "64", "--chunks", "3", "--json"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), flags.begin(), flags.end());
    return more;
  };
  const Json plain = json_of(run("perplexity", with({"--scheme", "f32"})));
  EXPECT_EQ(plain["chunks"], 3);
  EXPECT_EQ(plain["tokens"], 3 * 31);
  EXPECT_NEAR(std::log(plain["perplexity"].get<double>()), plain["nll"].get<double>(), 1e-9);
  EXPECT_EQ(json_of(run("perplexity", with({"--scheme", "f32", "--parallel", "3"})))["perplexity"],
            plain["perplexity"]);

  const std::string base = dir.file("base.kl");
  EXPECT_FALSE(json_of(run("perplexity", with({"--scheme", "f32", "--kl-base", base}))).contains("kl_mean"));
  const Json same = json_of(run("perplexity", with({"--scheme", "f32", "--kl-base", base})));
  EXPECT_NEAR(same["kl_mean"].get<double>(), 0.0, 1e-4);
  EXPECT_EQ(same["top1_agreement"], 1.0);
  const Json quantized = json_of(run("perplexity", with({"--scheme", "w2a16", "--kl-base", base})));
  EXPECT_GT(quantized["kl_mean"].get<double>(), same["kl_mean"].get<double>());
  EXPECT_GT(quantized["kl_max"].get<double>(), quantized["kl_mean"].get<double>());
  EXPECT_NEAR(quantized["base_perplexity"].get<double>(), plain["perplexity"].get<double>(),
              plain["perplexity"].get<double>() * 16.0 / 2048);  // f16 log-probabilities below 16

  write_file(dir.file("short.txt"), "too short");
  const ProgramResult too_short = run("perplexity", {"--file", dir.file("short.txt"), "--context", "64"});
  EXPECT_EQ(too_short.code, 1);
  EXPECT_THAT(too_short.err, HasSubstr("64"));
}

// The first scored token of the first chunk, against the score of the same continuation.
TEST_F(Program, PerplexityScoresTheSecondHalf) {
  const std::string text = "abcdefgh";  // a byte a token
  write_file(dir.file("text.txt"), text);
  const Json whole = json_of(run("perplexity", {"--file", dir.file("text.txt"), "--context", "8", "--json"}));
  EXPECT_EQ(whole["tokens"], 3);
  const Json score = json_of(run("generate", {"-p", "abcde", "--score", "fgh", "--json"}));
  EXPECT_NEAR(whole["nll"].get<double>() * 3, score["nll"].get<double>(), 1e-12);
}

TEST_F(Program, Inspect) {
  const ProgramResult text = run("inspect", {"--tensors"});
  EXPECT_EQ(text.code, 0) << text.err;
  for (const char* part : {"GGUF", "layers", "bits a weight", "model.embed_tokens.weight", "down_proj 2, ", "Memory"})
    EXPECT_THAT(text.out, HasSubstr(part));
  const Json object = json_of(run("inspect", {"--json", "--kv", "kv8"}));
  EXPECT_EQ(object["config"]["layers"], "2");
  EXPECT_EQ(object["kv"], "kv8");
  EXPECT_GT(object["bits_per_weight"].get<double>(), 31.0);
  EXPECT_EQ(object["formats"]["f32"]["parts"]["down_proj"], 2);
  EXPECT_EQ(object["formats"]["f32"]["bits_per_weight"], 32.0);
  EXPECT_GT(object["memory"]["bytes_per_token"].get<int64_t>(), 0);
  EXPECT_THAT(run("inspect", {"--temperature", "1"}).err, HasSubstr("no effect"));
}

// What is there is shown, then what is missing.
TEST_F(Program, InspectWithoutATokenizer) {
  const std::string path = write_tiny_hf(make_tiny_model({.matrices = id<F16>}), dir.file("bare"));
  std::filesystem::remove(path + "/tokenizer.json");
  const ProgramResult result = run_program({"inspect", "--model", path, "--memory-limit", "256M"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, HasSubstr("Tensors: "));
  EXPECT_THAT(result.out, HasSubstr("f16 "));
  EXPECT_THAT(result.err, HasSubstr("tokenizer.json' is missing"));
}

// Which of LongRoPE's two lists of factors a run would use.
TEST_F(Program, InspectNamesTheLongRopeFactors) {
  const auto& families = golden_families();
  const auto golden =
      std::find_if(families.begin(), families.end(), [](const Json& f) { return f["name"] == "phi 3 long"; });
  ASSERT_NE(golden, families.end());  // of 256 positions, 64 of them original ones
  write_file(dir.file("config.json"), (*golden)["config"].dump());
  for (const auto& [context, factors] : {std::pair("0", "short"), {"64", "short"}, {"65", "long"}}) {
    std::vector<std::string> arguments = {"inspect", "--dummy", dir.file("config.json"), "--memory-limit", "256M"};
    if (context != std::string("0")) arguments.insert(arguments.end(), {"--context", context});
    const std::string expected = fmt::format("LongRoPE, the {} factors; --context above 64 tokens", factors);
    EXPECT_THAT(run_program(arguments).out, HasSubstr(expected)) << context;
    arguments.push_back("--json");
    EXPECT_THAT(std::string(json_of(run_program(arguments))["config"]["rope_scaling"]), HasSubstr(expected)) << context;
  }
}

// Independent engines give 18.5634 and 18.5632 for these weights.
TEST(RealModel, PerplexityOfTheExactPath) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "NOT TESTED: too slow under the sanitizers; the optimised build runs it";
#endif
  QUIRE_NEEDS_FILE(test_model());
  QUIRE_NEEDS_FILE(test_text());
  const Json result = json_of(run_program({"perplexity", "--model", test_model(), "--file", test_text(), "--chunks",
                                           "40", "--context", "512", "--scheme", "f32", "--json"}));
  EXPECT_EQ(result["chunks"], 40);
  EXPECT_NEAR(result["perplexity"].get<double>(), 18.563, 0.01);
}

TEST(RealModel, KnowsTheCapitalOfFrance) {
  QUIRE_NEEDS_FILE(test_model());
  const std::vector<std::string> flags = {
      "chat", "--model", test_model(), "-p", "What is the capital of France?", "--max-tokens", "32", "--scheme"};
  for (const char* scheme : {"f32", "w8a8kv8", "w8a8g64kv4"}) {
    std::vector<std::string> arguments = flags;
    arguments.push_back(scheme);
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("Paris")) << scheme;
  }
}

}  // namespace
}  // namespace quire
