#include "apps/options.h"

#include <gtest/gtest.h>

#include "apps/verbs.h"

namespace quire {
namespace {

CommonOptions parsed(std::vector<std::string> arguments) {
  CLI::App app;
  CommonOptions options;
  add_common_options(app, options);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  app.parse(arguments);
  return options;
}

TEST(Options, EveryFlagArrives) {
  const CommonOptions o = parsed({"--model",  "a.gguf",
                                  "--prompt", "hi",
                                  "--chat",   "--system",
                                  "be brief", "--stop",
                                  "###",      "--stop",
                                  "END",      "--temperature",
                                  "0.5",      "--top-k",
                                  "40",       "--top-p",
                                  "0.9",      "--min-p",
                                  "0.1",      "--repetition-penalty",
                                  "1.1",      "--presence-penalty",
                                  "-0.5",     "--frequency-penalty",
                                  "0.25",     "--logit-bias",
                                  "3=-100",   "--logit-bias",
                                  "4=2.5",    "--seed",
                                  "7",        "--max-tokens",
                                  "9",        "--scheme",
                                  "w8a8",     "--kv",
                                  "kv4",      "--threads",
                                  "3",        "--context",
                                  "128",      "--memory-limit",
                                  "2G",       "--json"});
  EXPECT_EQ(o.engine.model, "a.gguf");
  EXPECT_EQ(o.prompt, "hi");
  EXPECT_TRUE(o.chat);
  EXPECT_EQ(o.system, "be brief");
  EXPECT_EQ(o.generation.stop, (std::vector<std::string>{"###", "END"}));
  const SamplerOptions& s = o.generation.sampler;
  EXPECT_FLOAT_EQ(s.temperature, 0.5f);
  EXPECT_EQ(s.top_k, 40);
  EXPECT_FLOAT_EQ(s.top_p, 0.9f);
  EXPECT_FLOAT_EQ(s.min_p, 0.1f);
  EXPECT_FLOAT_EQ(s.repetition_penalty, 1.1f);
  EXPECT_FLOAT_EQ(s.presence_penalty, -0.5f);
  EXPECT_FLOAT_EQ(s.frequency_penalty, 0.25f);
  EXPECT_EQ(s.logit_bias, (std::vector<std::pair<int32_t, float>>{{3, -100.0f}, {4, 2.5f}}));
  EXPECT_EQ(s.seed, 7u);
  EXPECT_EQ(o.generation.max_tokens, 9);
  EXPECT_EQ(o.engine.scheme, "w8a8");
  EXPECT_EQ(o.engine.kv, "kv4");
  EXPECT_EQ(o.engine.threads, 3);
  EXPECT_EQ(o.engine.context, 128);
  EXPECT_EQ(o.engine.memory_limit, int64_t{2} << 30);
  EXPECT_TRUE(o.json);
}

TEST(Options, TextsAreTakenAsTheyAre) {
  EXPECT_EQ(parsed({"-p", "-1 is [a] number, \"yes\""}).prompt, "-1 is [a] number, \"yes\"");
  EXPECT_EQ(parsed({"--stop", "[x]"}).generation.stop, std::vector<std::string>{"[x]"});
  EXPECT_EQ(parsed({"--prompt", ""}).prompt, "");
}

TEST(Options, BadValuesAreUsageErrors) {
  const std::vector<std::vector<std::string>> bad = {
      {"--temperature", "-1"},
      {"--temperature", "warm"},
      {"--top-k", "-1"},
      {"--top-k", "1.5"},
      {"--top-p", "1.5"},
      {"--min-p", "-0.1"},
      {"--repetition-penalty", "0"},
      {"--seed", "-1"},
      {"--max-tokens", "-2"},
      {"--logit-bias", "3"},
      {"--logit-bias", "x=1"},
      {"--threads", "0"},
      {"--context", "0"},
      {"--memory-limit", "0"},
      {"--memory-limit", "2Q"},
      {"--scheme", "w5"},
      {"--scheme", "w6a8"},
      {"--kv", "kv5"},
      {"--no-such-flag"},
      {"--temperature"},
  };
  for (const auto& arguments : bad) EXPECT_THROW(parsed(arguments), CLI::ParseError) << arguments[0];
}

TEST(Options, SettingsSayWhatTheyTake) {
  for (const Setting& setting : all_settings()) {
    GenerationSettings settings;
    const std::string value = setting.get(settings);
    if (setting.repeats) continue;
    setting.set(settings, value);  // what get() gives, set() takes
    EXPECT_EQ(setting.get(settings), value) << setting.name;
    EXPECT_EQ(find_setting(setting.name), &setting);
  }
  EXPECT_EQ(find_setting("top_k"), find_setting("top-k"));
  EXPECT_EQ(find_setting("nonsense"), nullptr);
}

TEST(Options, EveryVerbHasTheCommonFlagsAndExamples) {
  CLI::App program;
  for (const Verb& verb : {add_chat(program), add_generate(program), add_perplexity(program), add_inspect(program)}) {
    for (const char* flag : {"--model", "--prompt", "--chat", "--system", "--stop", "--temperature", "--seed",
                             "--max-tokens", "--scheme", "--kv", "--threads", "--context", "--memory-limit", "--json"})
      EXPECT_NE(verb.app->get_option_no_throw(flag), nullptr) << verb.app->get_name() << " " << flag;
    EXPECT_NE(verb.app->help().find("Examples:"), std::string::npos) << verb.app->get_name();
  }
}

}  // namespace
}  // namespace quire
