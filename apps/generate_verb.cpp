// `quire generate`: a prompt in, text or JSON out; or the likelihood of a text that is given.
#include "apps/answer.h"
#include "apps/conversation.h"
#include "apps/interrupt.h"
#include "apps/numbers.h"
#include "apps/score.h"
#include "apps/verbs.h"

namespace quire {

namespace {

constexpr const char* kExamples = R"(Examples:
  quire generate -p "The capital of France is" --max-tokens 16
  quire generate --chat -p "Name three rivers." --json
  quire generate --file prompt.txt --stop "###" --temperature 0.7 --seed 1
  echo "Once upon a time" | quire generate --max-tokens 100
  quire generate -p "The capital of France is" --score " Paris" --json
  quire generate -p "Hello" --max-tokens 3 --logprobs 5 --json)";

struct GenerateOptions {
  CommonOptions common;
  std::optional<std::string> file, score;
  int32_t logprobs = -1;
};

std::string prompt_text(const GenerateOptions& options) {
  if (options.common.prompt) return *options.common.prompt;
  if (!options.file && stdin_is_terminal())
    throw CLI::ValidationError("--prompt", "give a prompt: --prompt TEXT, --file PATH or standard input");
  std::string text = options.file ? read_input_file(*options.file) : read_stdin();
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::vector<int32_t> prompt_tokens(const Engine& engine, const GenerateOptions& options, const std::string& text) {
  if (!options.common.chat) return engine.tokenizer().encode(text);
  std::vector<Message> messages;
  if (options.common.system) messages.push_back({"system", *options.common.system});
  messages.push_back({"user", text});
  return engine.encode_chat(messages);
}

// The continuation's own tokens: plain text, and no beginning of its own.
std::vector<int32_t> continuation_tokens(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids = tokenizer.encode(text, false);
  if (tokenizer.data().add_bos && !ids.empty() && ids[0] == tokenizer.data().bos) ids.erase(ids.begin());
  return ids;
}

int run_score(Engine& engine, const GenerateOptions& options, std::vector<int32_t> prompt) {
  const std::vector<int32_t> continuation = continuation_tokens(engine.tokenizer(), *options.score);
  const int64_t prompt_size = int64_t(prompt.size());
  const Score score = score_continuation(engine, std::move(prompt), continuation);
  if (!options.common.json) {
    write_out(fmt::format("nll {:.6f} nats over {} tokens\n", score.nll, continuation.size()));
    return kExitOk;
  }
  nlohmann::json object = engine_json(engine);
  object["nll"] = score.nll;
  object["tokens"] = continuation.size();
  object["token_ids"] = continuation;
  object["token_logprobs"] = score.logprobs;
  object["prompt_tokens"] = prompt_size;
  print_json(object);
  return kExitOk;
}

void print_logprobs(const Engine& engine, const Answer& answer) {
  const auto text = [&](int32_t id) { return harmless(token_text(engine, id)); };
  for (const GeneratedToken& token : answer.tokens) {
    std::string line = fmt::format("{:9.4f} {:6} {}", token.logprob, token.token, text(token.token));
    for (const TokenLogprob& other : token.top)
      line += fmt::format("  | {:.4f} {} {}", other.logprob, other.token, text(other.token));
    write_out(line + "\n");
  }
}

int run_generate(const GenerateOptions& options) {
  const std::string text = prompt_text(options);
  OpenEngine opened = open_engine(options.common);
  Engine& engine = *opened;
  std::vector<int32_t> prompt = prompt_tokens(engine, options, text);
  if (options.score) return run_score(engine, options, std::move(prompt));

  Request request = make_request(options.common.generation, std::move(prompt));
  request.top_logprobs = options.logprobs;
  const bool terminal = stdout_is_terminal();
  std::function<void(std::string_view)> on_text;
  if (!options.common.json)
    on_text = [terminal](std::string_view t) { write_out(terminal ? harmless(t) : std::string(t)); };
  const Answer answer = run_request(engine, std::move(request), on_text);
  if (options.common.json) {
    print_json(answer_json(engine, answer, options.logprobs >= 0));
  } else {
    if (answer.text.empty() || answer.text.back() != '\n') write_out("\n");
    if (options.logprobs >= 0) print_logprobs(engine, answer);
    if (stderr_is_terminal() && !options.common.quiet)
      write_error(painted(Paint::dim, stats_line(engine, answer.usage), true) + "\n");
  }
  return answer.finish == Finish::cancelled ? exit_code_of_signal() : kExitOk;
}

}  // namespace

Verb add_generate(CLI::App& program) {
  CLI::App* app = program.add_subcommand("generate", "continue a prompt, or score a given continuation");
  const auto options = std::make_shared<GenerateOptions>();
  add_common_options(*app, options->common);
  app->add_option("--file,-f", options->file,
                  "read the prompt from a file (one newline at its end is dropped); - is standard input")
      ->type_name("PATH")
      ->group("Prompt");
  app->add_option("--score", options->score, "do not generate: the negative log-likelihood of TEXT after the prompt")
      ->type_name("TEXT")
      ->group("Output");
  add_parsed(
      *app, "--logprobs", "N", "log-probability of each token and of the N likeliest in its place", "Output",
      [options](const std::string& text) { options->logprobs = parse_number<int32_t>("logprobs", text, 0, 1000); });
  app->footer(kExamples);
  return {app, [options] { return run_generate(*options); }};
}

}  // namespace quire
