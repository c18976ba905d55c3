// `quire completion SHELL`: what the shell needs to complete verbs and flags, written from the flags themselves.
#include <algorithm>

#include "apps/interrupt.h"
#include "apps/terminal.h"
#include "apps/verbs.h"
#include "base/error.h"

namespace quire {

namespace {

constexpr const char* kExamples = R"---(Examples:
  eval "$(quire completion bash)"                               for this shell
  quire completion zsh > ~/.zfunc/_quire                        a folder of zsh's fpath
  quire completion fish > ~/.config/fish/completions/quire.fish
An installed quire (cmake --install) has them already.)---";

struct Flag {
  std::vector<std::string> names;  // "--model", "-m"
  std::string help, value;         // value: what to type after it; empty if nothing
  bool file() const { return value == "PATH" || value == "FILE" || value == "DIR" || names[0] == "--model"; }
};

std::vector<Flag> flags_of(const CLI::App& app) {
  std::vector<Flag> flags;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // not in the help either
    Flag flag;
    for (const std::string& name : option->get_lnames()) flag.names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
    if (flag.names.empty()) continue;  // an argument without a flag
    flag.help = option->get_description();
    if (option->get_items_expected_max() > 0) flag.value = option->get_type_name();
    flags.push_back(std::move(flag));
  }
  return flags;
}

bool takes_shell(const CLI::App& verb) { return verb.get_name() == "completion"; }

std::vector<const CLI::App*> verbs_of(const CLI::App& program) { return program.get_subcommands({}); }

template <class Wanted>
std::string names_of(const std::vector<Flag>& flags, Wanted wanted) {
  std::string names;
  for (const Flag& flag : flags) {
    if (!wanted(flag)) continue;
    for (const std::string& name : flag.names) names += (names.empty() ? "" : " ") + name;
  }
  return names;
}

std::string with_backslashes(std::string_view text, std::string_view special) {
  std::string out;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string bash_completion(const CLI::App& program) {
  std::string verbs, cases;
  for (const CLI::App* verb : verbs_of(program)) {
    verbs += verb->get_name() + " ";
    const std::vector<Flag> flags = flags_of(*verb);
    cases +=
        fmt::format("    {})\n      flags=\"{}{}\"\n      values=\" {} \"\n      files=\" {} \" ;;\n", verb->get_name(),
                    takes_shell(*verb) ? "bash zsh fish " : "", names_of(flags, [](const Flag&) { return true; }),
                    names_of(flags, [](const Flag& f) { return !f.value.empty() && !f.file(); }),
                    names_of(flags, [](const Flag& f) { return !f.value.empty() && f.file(); }));
  }
  const std::string own = names_of(flags_of(program), [](const Flag&) { return true; });
  return "# bash completion for quire, written by `quire completion bash`.\n_quire() {\n"
         "  local word=\"${COMP_WORDS[COMP_CWORD]}\" before=\"${COMP_WORDS[COMP_CWORD-1]}\" flags=\"\" values=\"\" "
         "files=\"\"\n"
         "  COMPREPLY=()\n"
         "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
         "    compopt +o default\n"
         "    COMPREPLY=($(compgen -W \"" +
         verbs + own +
         "\" -- \"$word\"))\n    return\n  fi\n"
         "  case \"${COMP_WORDS[1]}\" in\n" +
         cases +
         "  esac\n"
         "  case \"$files\" in *\" $before \"*) return ;; esac  # the shell's own file names\n"
         "  compopt +o default\n"
         "  case \"$values\" in *\" $before \"*) return ;; esac\n"
         "  COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))\n"
         "}\ncomplete -o default -F _quire quire\n";
}

// Between single quotes of zsh: one inside ends them, stands by itself, and begins them again.
std::string zsh_quoted(std::string_view text, std::string_view special) {
  std::string out;
  for (const char c : with_backslashes(text, special)) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out;
}

std::string zsh_completion(const CLI::App& program) {
  std::string verbs, cases;
  for (const CLI::App* verb : verbs_of(program)) {
    verbs += fmt::format("    '{}:{}'\n", verb->get_name(), zsh_quoted(verb->get_description(), ""));
    cases += fmt::format("    {})\n      _arguments", verb->get_name());
    for (const Flag& flag : flags_of(*verb)) {
      const std::string value =
          flag.value.empty() ? "" : ":" + zsh_quoted(flag.value, ":") + ":" + (flag.file() ? "_files" : " ");
      for (const std::string& name : flag.names)
        cases += fmt::format(" \\\n        '*{}[{}]{}'", name, zsh_quoted(flag.help, "[]:\\"), value);
    }
    if (takes_shell(*verb)) cases += " \\\n        '1:SHELL:(bash zsh fish)'";
    cases += " ;;\n";
  }
  return "#compdef quire\n# zsh completion for quire, written by `quire completion zsh`.\n_quire() {\n"
         "  local context state state_descr line\n  typeset -A opt_args\n  local -a verbs\n  verbs=(\n" +
         verbs +
         "  )\n"
         "  _arguments -C '(- *)--help[this text]' '(- *)-h[this text]' '(- *)--version[version]' '1: :->verb' "
         "'*:: :->flags'\n"
         "  case $state in\n    verb) _describe -t verbs verb verbs; return ;;\n    flags) ;;\n    *) return ;;\n  "
         "esac\n"
         "  case $line[1] in\n" +
         cases +
         "  esac\n}\n"
         "if [ \"$funcstack[1]\" = _quire ]; then _quire \"$@\"; else compdef _quire quire; fi\n";
}

std::string fish_completion(const CLI::App& program) {
  const auto quoted = [](const std::string& text) { return "'" + with_backslashes(text, "'\\") + "'"; };
  const auto line = [&](const std::string& when, const Flag& flag) {
    std::string out = "complete -c quire -n '" + when + "'";
    for (const std::string& name : flag.names)
      out += name.compare(0, 2, "--") == 0 ? " -l " + name.substr(2) : " -s " + name.substr(1);
    if (!flag.value.empty()) out += flag.file() ? " -r -F" : " -x";
    return out + " -d " + quoted(flag.help) + "\n";
  };
  std::string text = "# fish completion for quire, written by `quire completion fish`.\ncomplete -c quire -f\n";
  for (const Flag& flag : flags_of(program)) text += line("__fish_use_subcommand", flag);
  for (const CLI::App* verb : verbs_of(program)) {
    text += fmt::format("complete -c quire -n __fish_use_subcommand -a {} -d {}\n", verb->get_name(),
                        quoted(verb->get_description()));
    const std::string when = "__fish_seen_subcommand_from " + verb->get_name();
    if (takes_shell(*verb)) text += "complete -c quire -n '" + when + "' -a 'bash zsh fish'\n";
    for (const Flag& flag : flags_of(*verb)) text += line(when, flag);
  }
  return text;
}

}  // namespace

Verb add_completion(CLI::App& program) {
  CLI::App* app = program.add_subcommand("completion", "what a shell needs to complete this program's flags");
  const auto shell = std::make_shared<std::string>();
  app->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  app->set_help_flag("--help,-h", "this text");
  app->footer(kExamples);
  return {app, [&program, shell] {
            write_out(*shell == "bash"  ? bash_completion(program)
                      : *shell == "zsh" ? zsh_completion(program)
                                        : fish_completion(program));
            return kExitOk;
          }};
}

}  // namespace quire
