// The table of what can be typed in a chat after a slash.
#include "apps/chat.h"
#include "apps/numbers.h"
#include "base/mapped_file.h"
#include "base/output_file.h"

namespace quire {

namespace {

std::string trimmed(std::string_view text) {
  constexpr const char* kBlank = " \t";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kBlank) - begin + 1));
}

void say(const std::string& text) { write_ui(ui_painted(Paint::dim, text) + "\n"); }

bool help(Chat&, const std::string&) {
  std::string text;
  for (const Command& command : chat_commands()) {
    std::string names;
    for (const char* name : command.names) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    if (*command.arguments) names += fmt::format(" {}", command.arguments);
    text += fmt::format("  {:<32} {}\n", names, command.help);
  }
  text += "  \"\"\" begins a message of several lines and ends it; \\ at the end of a line continues it\n";
  text += "  Ctrl-C stops an answer (again: quits), Ctrl-D quits, Tab completes a command\n";
  text += fmt::format("\n{}\n", kContextRule);
  write_ui(text);
  return true;
}

bool leave(Chat&, const std::string&) { return false; }

bool clear(Chat& chat, const std::string&) {
  chat.turns.clear();
  chat.attached.clear();
  say("the conversation is empty");
  return true;
}

bool regenerate(Chat& chat, const std::string&) {
  ask_again(chat, true);
  return true;
}

bool undo_last(Chat& chat, const std::string&) {
  check(undo(chat), "there is nothing to take back");
  say(fmt::format("taken back; {} messages are left", chat.turns.size()));
  return true;
}

bool set_system(Chat& chat, const std::string& argument) {
  if (argument == "none") chat.system.reset();
  if (!argument.empty() && argument != "none") chat.system = argument;
  say(chat.system ? "system: " + *chat.system : "no system message (the template may have its own)");
  return true;
}

std::string value_text(const Setting& setting, const GenerationSettings& settings) {
  std::string value = setting.get(settings);
  while (!value.empty() && value.back() == '\n') value.pop_back();
  for (size_t i = value.find('\n'); i != std::string::npos; i = value.find('\n', i)) value.replace(i, 1, ", ");
  return value.empty() ? "(none)" : value;
}

std::string settings_text(const Chat& chat) {
  std::string text;
  for (const Setting& setting : all_settings())
    text += fmt::format("  {:<20} {}\n", setting.name, value_text(setting, chat.settings));
  return text + fmt::format("  {:<20} {}\n", "system", chat.system.value_or("(the template's own)"));
}

bool set(Chat& chat, const std::string& argument) {
  if (argument.empty()) {
    write_ui(settings_text(chat));
    return true;
  }
  const size_t split = argument.find_first_of("= ");
  const std::string name = argument.substr(0, split);
  const std::string value = split == std::string::npos ? "" : trimmed(std::string_view(argument).substr(split + 1));
  if (name == "system") return set_system(chat, value);
  const Setting* setting = find_setting(name);
  check(setting != nullptr, "there is no setting '{}'; known are {} system", name, setting_names());
  if (split != std::string::npos) {
    GenerationSettings changed = chat.settings;
    setting->set(changed, value);
    chat.settings = std::move(changed);
  }
  say(fmt::format("{} = {}", setting->name, value_text(*setting, chat.settings)));
  if (split == std::string::npos) say(setting->help);
  return true;
}

bool show(Chat& chat, const std::string&) {
  const Engine& engine = *chat.engine;
  const std::string scheme = engine.scheme().name.empty() ? "own formats" : engine.scheme().name;
  std::string text = fmt::format("  {:<20} {}\n  {:<20} {}\n  {:<20} {}\n  {:<20} {} tokens\n  {:<20} {}\n", "model",
                                 harmless(engine.config().name), "scheme", scheme, "cache", engine.scheme().kv.name,
                                 "context", token_limit(engine), "threads", engine.threads());
  text += fmt::format("  {:<20} {}\n", "messages", chat.turns.size());
  write_ui(text + settings_text(chat));
  return true;
}

bool save(Chat& chat, const std::string& path) {
  check(!path.empty(), "/save needs a file name");
  write_text_file(path, saved_chat(chat).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  say(fmt::format("{} messages are in {}", chat.turns.size(), path));
  return true;
}

bool load(Chat& chat, const std::string& path) {
  check(!path.empty(), "/load needs a file name");
  const std::string text = read_text_file(path, size_t{1} << 28);
  load_chat(chat, nlohmann::json::parse(text, nullptr, false));
  say(fmt::format("{} messages are back", chat.turns.size()));
  const Recalled recalled = recall(chat);
  if (recalled.complete) {
    if (recalled.tokens > 0) say(fmt::format("read again: {} tokens", recalled.tokens));
  } else {
    say("[stopped] the rest is read with your next message");
  }
  return true;
}

bool read(Chat& chat, const std::string& path) {
  check(!path.empty(), "/read needs a file name");
  const std::string text = read_text_file(path, size_t{1} << 28);
  chat.attached += text;
  say(fmt::format("{} ({}) goes with your next message", path, bytes_text(int64_t(text.size()))));
  return true;
}

bool stats(Chat& chat, const std::string& argument) {
  check(argument.empty() || argument == "on" || argument == "off", "/stats takes on or off, or nothing, not '{}'",
        argument);
  if (!argument.empty()) {
    chat.show_stats = argument == "on";
    return true;
  }
  const MemoryPlan memory = chat.engine->memory();
  write_ui(fmt::format(
      "  last    {}\n  all     {}, {} answers\n  memory  weights {}, scratch {}, cache {} ({} a token, {} tokens)\n",
      stats_line(*chat.engine, chat.last), stats_line(*chat.engine, chat.total), chat.answers,
      bytes_text(memory.weights), bytes_text(memory.scratch), bytes_text(memory.cache),
      bytes_text(memory.bytes_per_token), memory.cache_tokens));
  return true;
}

}  // namespace

const std::vector<Command>& chat_commands() {
  static const std::vector<Command> commands = {
      {{"/help", "/?"}, "", "this list", help},
      {{"/exit", "/bye", "/quit"}, "", "leaves (as does Ctrl-D)", leave},
      {{"/clear", "/reset"}, "", "begins a new conversation", clear},
      {{"/regen", "/retry"}, "", "answers the last message again, with another seed", regenerate},
      {{"/undo"}, "", "takes the last message and its answer back", undo_last},
      {{"/system"}, "[TEXT|none]", "shows or sets the system message", set_system},
      {{"/set"}, "[NAME[=VALUE]]", "shows the settings, tells about one or changes it", set},
      {{"/show", "/status"}, "", "model, scheme, cache and settings", show},
      {{"/save"}, "FILE", "writes the conversation and the settings (text, not the cache)", save},
      {{"/load"}, "FILE", "goes on with them: the model reads the conversation again", load},
      {{"/read"}, "FILE", "puts a file before your next message", read},
      {{"/stats"}, "[on|off]", "speed and memory; a line after each answer or not", stats},
  };
  return commands;
}

bool run_command(Chat& chat, std::string_view line) {
  const size_t end = line.find_first_of(" \t");
  const std::string_view name = line.substr(0, end);
  const std::string argument = end == std::string_view::npos ? "" : trimmed(line.substr(end));
  for (const Command& command : chat_commands()) {
    for (const char* known : command.names) {
      if (name == known) return command.run(chat, argument);
    }
  }
  fail(fmt::format("there is no command '{}'; /help lists them", name));
}

std::vector<std::string> command_words() {
  std::vector<std::string> words;
  for (const Command& command : chat_commands()) words.insert(words.end(), command.names.begin(), command.names.end());
  return words;
}

}  // namespace quire
