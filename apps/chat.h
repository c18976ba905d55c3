// A chat: the conversation, its settings, and what a person can do with them.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/answer.h"
#include "apps/conversation.h"

namespace quire {

struct Chat {
  OpenEngine engine;
  GenerationSettings settings;
  std::optional<std::string> system;
  std::vector<Message> turns;  // user and assistant in turn
  std::string attached;        // text of /read that goes before the next message
  bool show_stats = false, quiet = false;
  Usage last, total;
  int64_t answers = 0;
};

// Puts the question into the conversation and streams the answer to standard output. If it cannot be answered the
// conversation is as before and the Error goes on. Ctrl-C ends the answer; what was said stays.
Answer ask(Chat& chat, std::string question, bool stream);
// Answers the last question again, with another seed. Error if there is none.
Answer ask_again(Chat& chat, bool stream);
bool undo(Chat& chat);  // forgets the last question and its answer; false if there is none

// Reads the conversation into the cache, so that the next answer begins at once. It was there only as text; computing
// it again gives what a conversation that was never left has, bit for bit.
struct Recalled {
  int64_t tokens = 0;
  bool complete = true;  // not stopped with Ctrl-C
};
Recalled recall(Chat& chat);

nlohmann::json saved_chat(const Chat& chat);
void load_chat(Chat& chat, const nlohmann::json& saved);  // Error, with the chat as before, if it is no saved chat

// One table row a command.
struct Command {
  std::vector<const char*> names;  // the first is the one shown
  const char* arguments;
  const char* help;
  bool (*run)(Chat& chat, const std::string& argument);  // false: leave the chat
};
const std::vector<Command>& chat_commands();
// Runs "/name argument". Error if there is no such command.
bool run_command(Chat& chat, std::string_view line);
std::vector<std::string> command_words();  // for completion

}  // namespace quire
