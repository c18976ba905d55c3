// quire: one binary with verbs. Parsing and printing only; the work is the engine's.
#include <algorithm>
#include <new>

#include "apps/interrupt.h"
#include "apps/machine_report.h"
#include "apps/options.h"
#include "apps/verbs.h"

namespace quire {

namespace {

constexpr const char* kFooter = R"(Examples:
  quire chat
  quire generate -p "The capital of France is" --max-tokens 16 --json
  quire perplexity --file text.txt --scheme w8a8kv8
  quire inspect -m model.gguf
  quire quantize --scheme w4a8 --output model-w4a8
  quire bench --scheme w8a8,w4a8 --kv f16,kv4 -d 0,2048
`quire VERB --help` tells more.
Exit codes: 0 done, 1 failed (standard error says why), 2 bad command line, 130 interrupted (Ctrl-C),
141 the reader of the output is gone, 143 and 129 ended by SIGTERM and SIGHUP.)";

void print_error(std::string_view message) {
  write_error(painted(Paint::error, "quire: error:", stderr_is_terminal()) + fmt::format(" {}\n", harmless(message)));
}

int usage_error(const CLI::App& app, const std::string& message) {
  print_error(message);
  write_error(fmt::format("`{} --help` lists the flags\n", app.get_parent() ? "quire " + app.get_name() : "quire"));
  return kExitUsage;
}

// In the order that CLI11 takes them, last first. llama-bench spells some of its flags with one dash, as CLI11 cannot.
std::vector<std::string> arguments_of(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + std::max(argc, 1));
  if (!arguments.empty() && arguments[0] == "bench") {
    for (std::string& argument : arguments) {
      if (argument == "-pg" || argument == "-npl") argument.insert(0, 1, '-');
    }
  }
  std::reverse(arguments.begin(), arguments.end());
  return arguments;
}

int run(int argc, char** argv) {
  CLI::App program("Quantized LLM inference", "quire");
  program.set_help_flag("--help,-h", "this text");
  program.set_version_flag("--version", version_text);
  program.footer(std::string(kFooter) + "\n\n" + scheme_help());
  program.require_subcommand(0, 1);
  const std::vector<Verb> verbs = add_verbs(program);
  const auto parsed = [&] {
    return std::find_if(verbs.begin(), verbs.end(), [](const Verb& verb) { return verb.app->parsed(); });
  };
  try {
    program.parse(arguments_of(argc, argv));
    const auto verb = parsed();
    if (verb != verbs.end()) return verb->run();
    write_error(program.help());
    return kExitUsage;
  } catch (const CLI::CallForVersion& version) {
    write_out(std::string(version.what()) + "\n");
    return kExitOk;
  } catch (const CLI::CallForHelp&) {
    const auto verb = parsed();
    write_out(verb != verbs.end() ? verb->app->help(program.get_name()) : program.help());
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    const auto verb = parsed();
    return usage_error(verb != verbs.end() ? *verb->app : program, error.what());
  }
}

int guarded(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Interrupted&) {
    return exit_code_of_signal();
  } catch (const BrokenPipe&) {
    return kExitBrokenPipe;
  } catch (const std::bad_alloc&) {
    print_error("out of memory; a smaller --context or --memory-limit needs less");
  } catch (const std::exception& error) {
    print_error(error.what());
  }
  return interrupted() ? exit_code_of_signal() : kExitError;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  quire::install_signal_handlers();
  return quire::guarded(argc, argv);
}
