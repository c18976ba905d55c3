// `quire chat`: in a terminal a conversation, else one message in and one answer out.
#include "apps/chat.h"
#include "apps/interrupt.h"
#include "apps/line_reader.h"
#include "apps/verbs.h"

namespace quire {

namespace {

constexpr const char* kExamples = R"(Examples:
  quire chat                                     the default model, in its own formats
  quire chat --scheme w8a8kv8                    8-bit weights, activations and cache
  quire chat -m model.gguf --temperature 0.7 --system "Answer in one sentence."
  quire chat -p "What is the capital of France?" one answer
  quire chat < question.txt > answer.txt         the same, through pipes)";

Chat make_chat(const CommonOptions& options) {
  Chat chat;
  chat.engine = open_engine(options);
  chat.settings = options.generation;
  chat.system = options.system;
  chat.quiet = options.quiet;
  return chat;
}

int one_shot(const CommonOptions& options) {
  std::string question = options.prompt ? *options.prompt : read_stdin();
  if (!options.prompt && !question.empty() && question.back() == '\n') question.pop_back();
  check(!question.empty(), "the message is empty");
  Chat chat = make_chat(options);
  chat.show_stats = stderr_is_terminal() && !options.quiet && !options.json;
  const Answer answer = ask(chat, std::move(question), !options.json);
  if (options.json) print_json(answer_json(*chat.engine, answer, false));
  return answer.finish == Finish::cancelled ? exit_code_of_signal() : kExitOk;
}

// Reads a message: a line, or several. Interrupted twice in a row, or once right after an answer was stopped: leave.
enum class Said { message, end, quit };
Said read_message(LineReader& reader, bool& armed, std::string& message) {
  MessageAssembler assembler;
  const std::string mark = "\1";  // tells libedit which bytes take no room
  const auto prompt = [&](const char* text) {
    const std::string colour = ui_painted(Paint::prompt, "|");
    const size_t bar = colour.find('|');
    if (colour.size() == 1) return std::string(text);
    return mark + colour.substr(0, bar) + mark + text + mark + colour.substr(bar + 1) + mark;
  };
  for (;;) {
    std::string line;
    switch (reader.read(prompt(assembler.open() ? "... " : ">>> "), line)) {
      case LineReader::Result::end:
        write_ui("\n");
        return Said::end;
      case LineReader::Result::interrupted:
        write_ui("\n");
        if (terminated()) return Said::quit;
        if (line.empty() && !assembler.open()) {
          if (armed) return Said::quit;
          armed = true;
          write_ui(ui_painted(Paint::dim, "Ctrl-C again or Ctrl-D leaves") + "\n");
        }
        assembler.reset();
        continue;
      case LineReader::Result::line:
        break;
    }
    armed = false;
    reader.remember(line);
    if (const auto complete = assembler.feed(line)) {
      message = *complete;
      if (message.find_first_not_of(" \t\n") != std::string::npos) return Said::message;
    }
  }
}

void banner(const Chat& chat) {
  const std::string scheme = chat.engine->scheme().name.empty() ? "its own formats" : chat.engine->scheme().name;
  write_ui(fmt::format("{} in {}, cache {}, context {} tokens, {} threads\n",
                       ui_painted(Paint::bold, harmless(chat.engine->config().name)), scheme,
                       chat.engine->scheme().kv.name, token_limit(*chat.engine), chat.engine->threads()));
  write_ui(ui_painted(Paint::dim, "/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves") + "\n\n");
}

int interactive(const CommonOptions& options) {
  Chat chat = make_chat(options);
  chat.show_stats = !options.quiet;
  LineReader reader(user_file("XDG_STATE_HOME", ".local/state", "history"), command_words());
  if (!options.quiet) banner(chat);
  bool armed = false;
  for (;;) {
    std::string message;
    const Said said = read_message(reader, armed, message);
    if (said == Said::end) return kExitOk;
    if (said == Said::quit) return exit_code_of_signal();
    try {
      const int64_t before = chat.answers;
      const bool command = message[0] == '/' && message.find('\n') == std::string::npos;
      if (command && !run_command(chat, message)) return kExitOk;
      if (!command) ask(chat, std::move(message), true);
      if (chat.answers > before) write_ui("\n");
    } catch (const Error& error) {
      write_ui(ui_painted(Paint::error, harmless(error.what())) + "\n");
    }
    if (terminated()) return exit_code_of_signal();
    armed = take_interrupt();  // stopped an answer: the next Ctrl-C leaves
  }
}

}  // namespace

Verb add_chat(CLI::App& program) {
  CLI::App* app = program.add_subcommand("chat", "talk to a model");
  const auto options = std::make_shared<CommonOptions>();
  add_common_options(*app, *options);
  app->footer(std::string(kExamples) + "\n\n" + kContextRule + "\n/help in the chat lists its commands.");
  return {app, [options] {
            if (options->prompt || !stdin_is_terminal()) return one_shot(*options);
            if (options->json) throw CLI::ValidationError("--json", "a chat in a terminal has no JSON; give --prompt");
            return interactive(*options);
          }};
}

}  // namespace quire
