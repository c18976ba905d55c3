#include "apps/chat.h"

#include "apps/interrupt.h"

namespace quire {

namespace {

void add(Usage& sum, const Usage& usage) {
  sum.prompt_tokens += usage.prompt_tokens;
  sum.cached_tokens += usage.cached_tokens;
  sum.generated_tokens += usage.generated_tokens;
  sum.prompt_seconds += usage.prompt_seconds;
  sum.generation_seconds += usage.generation_seconds;
}

void explain_finish(const Chat& chat, const Answer& answer) {
  if (answer.finish == Finish::cancelled) write_ui(ui_painted(Paint::dim, "[stopped]") + "\n");
  if (answer.finish != Finish::length) return;
  const bool asked = chat.settings.max_tokens >= 0 && int64_t(answer.tokens.size()) >= chat.settings.max_tokens;
  const std::string why = asked ? fmt::format("[ended at max-tokens {}]", chat.settings.max_tokens)
                                : fmt::format("[ended: the context of {} tokens is full]", token_limit(*chat.engine));
  write_ui(ui_painted(Paint::dim, why) + "\n");
}

// The conversation as the model is to see it. What no longer fits is forgotten.
std::vector<int32_t> fitted_prompt(Chat& chat) {
  FittedPrompt fitted = fit_chat(*chat.engine, chat.system, chat.turns, chat.settings.max_tokens);
  if (fitted.dropped > 0) {
    note(fmt::format("the context of {} tokens is full: the {} oldest messages are no longer seen by the model",
                     token_limit(*chat.engine), fitted.dropped));
    chat.turns.erase(chat.turns.begin(), chat.turns.begin() + fitted.dropped);
  }
  return std::move(fitted.tokens);
}

// Answers the last message of the conversation.
Answer answer_last(Chat& chat, bool stream) {
  std::vector<int32_t> prompt = fitted_prompt(chat);
  const bool terminal = stdout_is_terminal();
  const auto on_text = [&](std::string_view text) { write_out(terminal ? harmless(text) : std::string(text)); };
  Answer answer = run_request(*chat.engine, make_request(chat.settings, std::move(prompt)),
                              stream ? std::function<void(std::string_view)>(on_text) : nullptr, chat.engine.bar.get());
  if (stream && (answer.text.empty() || answer.text.back() != '\n')) write_out("\n");
  chat.turns.push_back({"assistant", answer.text});
  chat.last = answer.usage;
  add(chat.total, answer.usage);
  ++chat.answers;
  if (stream && !chat.quiet) explain_finish(chat, answer);
  if (chat.show_stats) {
    const std::string line = stats_line(*chat.engine, answer.usage) + "\n";
    if (stdin_is_terminal()) {
      write_ui(ui_painted(Paint::dim, line));
    } else {
      write_error(line);
    }
  }
  return answer;
}

}  // namespace

Answer ask(Chat& chat, std::string question, bool stream) {
  const std::vector<Message> before = chat.turns;
  if (!chat.attached.empty()) question = chat.attached + "\n" + question;
  chat.turns.push_back({"user", std::move(question)});
  try {
    Answer answer = answer_last(chat, stream);
    chat.attached.clear();
    return answer;
  } catch (const Error&) {
    chat.turns = before;
    throw;
  }
}

Answer ask_again(Chat& chat, bool stream) {
  check(!chat.turns.empty(), "there is nothing to answer again yet");
  const std::vector<Message> before = chat.turns;
  if (chat.turns.back().role == "assistant") chat.turns.pop_back();
  if (chat.settings.sampler.temperature == 0.0f)
    note("temperature is 0, so the answer will be the same; `/set temperature=0.7` gives others");
  ++chat.settings.sampler.seed;
  try {
    return answer_last(chat, stream);
  } catch (const Error&) {
    chat.turns = before;
    throw;
  }
}

bool undo(Chat& chat) {
  if (chat.turns.empty()) return false;
  while (!chat.turns.empty() && chat.turns.back().role != "user") chat.turns.pop_back();
  if (!chat.turns.empty()) chat.turns.pop_back();
  return true;
}

Recalled recall(Chat& chat) {
  if (chat.turns.empty()) return {};
  Request request = make_request(chat.settings, fitted_prompt(chat));
  request.max_tokens = 0;
  const int64_t tokens = int64_t(request.prompt.size());
  const Answer answer = run_request(*chat.engine, std::move(request), nullptr, chat.engine.bar.get());
  return {tokens, answer.finish != Finish::cancelled};
}

nlohmann::json saved_chat(const Chat& chat) {
  nlohmann::json saved = {{"quire_chat", 1}, {"model", chat.engine->config().name}};
  saved["system"] = chat.system ? nlohmann::json(*chat.system) : nlohmann::json(nullptr);
  if (!chat.attached.empty()) saved["attached"] = chat.attached;
  saved["messages"] = nlohmann::json::array();
  for (const Message& message : chat.turns)
    saved["messages"].push_back({{"role", message.role}, {"content", message.content}});
  auto& settings = saved["settings"] = nlohmann::json::object();
  for (const Setting& setting : all_settings()) {
    const std::string value = setting.get(chat.settings);
    if (!setting.repeats) {
      settings[setting.name] = value;
      continue;
    }
    auto& list = settings[setting.name] = nlohmann::json::array();
    for (size_t begin = 0; begin < value.size();) {
      const size_t end = value.find('\n', begin);
      list.push_back(value.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return saved;
}

namespace {

void load_settings(const nlohmann::json& saved, GenerationSettings& settings) {
  for (const auto& [name, value] : saved.items()) {
    const Setting* setting = find_setting(name);
    check(setting != nullptr, "unknown setting '{}'; known are {}", name, setting_names());
    if (setting->repeats) {
      for (const auto& one : value) setting->set(settings, one.get<std::string>());
    } else {
      setting->set(settings, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

}  // namespace

void load_chat(Chat& chat, const nlohmann::json& saved) {
  check(saved.is_object() && saved.contains("quire_chat") && saved.contains("messages"),
        "this is not a chat that /save wrote");
  std::optional<std::string> system;
  std::vector<Message> turns;
  std::string attached;
  GenerationSettings settings;
  try {
    attached = saved.value("attached", "");
    if (saved.contains("system") && !saved["system"].is_null()) system = saved["system"].get<std::string>();
    for (const auto& message : saved["messages"]) {
      turns.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
      const std::string& role = turns.back().role;
      check(role == "user" || role == "assistant", "a message has the role '{}'; user and assistant are known", role);
    }
    if (saved.contains("settings")) load_settings(saved["settings"], settings);
  } catch (const nlohmann::json::exception& error) {
    fail(fmt::format("the saved chat is damaged: {}", error.what()));
  }
  chat.system = std::move(system);
  chat.turns = std::move(turns);
  chat.attached = std::move(attached);
  chat.settings = std::move(settings);
}

}  // namespace quire
