#include "apps/line_reader.h"

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include "apps/interrupt.h"
#include "apps/terminal.h"
#include "base/error.h"

namespace quire {

struct LineReader::State {
  EditLine* line = nullptr;
  History* history = nullptr;
  std::string history_path, prompt;
  std::vector<std::string> words;
  bool interrupted = false;
};

namespace {

constexpr int kHistoryLines = 1000;

// el_get(EL_CLIENTDATA) gives what the constructor stored.
LineReader::State* state_of(EditLine* line) {
  void* data = nullptr;
  el_get(line, EL_CLIENTDATA, &data);
  return static_cast<LineReader::State*>(data);
}

// Raw while a line is edited, as it was before otherwise.
void own_terminal(EditLine* line, bool own) { el_set(line, EL_PREP_TERM, own ? 1 : 0); }

// Waits for a byte, or for a signal that comes at any time: between looking and waiting signals are held back. 1: a
// byte, 0: the end, -1: give up the line (Ctrl-C, or no terminal any more).
int read_byte(EditLine* line, unsigned char& byte) {
  sigset_t ours, before;
  sigemptyset(&ours);
  for (const int signal : kHandledSignals) sigaddset(&ours, signal);
  sigprocmask(SIG_BLOCK, &ours, &before);
  int result = -2;
  while (result == -2) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (interrupted()) {
      state_of(line)->interrupted = true;
      result = -1;
    } else if (take_resized()) {
      el_resize(line);
    } else if (take_resumed()) {
      own_terminal(line, false);  // libedit believes that the terminal is as it left it
      own_terminal(line, true);
      el_set(line, EL_REFRESH);
    } else if (ppoll(&input, 1, nullptr, &before) > 0) {
      result = int(read(STDIN_FILENO, &byte, 1));
    } else if (errno != EINTR) {
      result = -1;
    }
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return result;
}

// One character of UTF-8 from the terminal. libedit's own reader would go on after Ctrl-C; this one gives up the line.
int read_character(EditLine* line, wchar_t* out) {
  unsigned char byte = 0;
  const int n = read_byte(line, byte);
  if (n <= 0) return n;
  if (byte == 0) {
    // Ctrl-D pressed while the terminal was not ours (during an answer) is kept by it as a zero.
    const LineInfo* info = el_line(line);
    if (info->lastchar == info->buffer) return 0;
  }
  const int more = byte < 0xC0 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
  uint32_t code = more == 0 ? byte : byte & (0x3Fu >> more);
  for (int i = 0; i < more; ++i) {
    if (read_byte(line, byte) != 1 || (byte & 0xC0) != 0x80) {
      code = 0xFFFD;
      break;
    }
    code = code << 6 | (byte & 0x3Fu);
  }
  *out = more == 0 && byte >= 0x80 ? wchar_t(0xFFFD) : wchar_t(code);
  return 1;
}

char* prompt_of(EditLine* line) { return state_of(line)->prompt.data(); }

unsigned char complete(EditLine* line, int) {
  const LineInfo* info = el_line(line);
  const std::string_view typed(info->buffer, size_t(info->cursor - info->buffer));
  if (typed.empty()) return CC_ERROR;
  std::string common;
  int matches = 0;
  for (const std::string& word : state_of(line)->words) {
    if (word.compare(0, typed.size(), typed) != 0) continue;
    if (matches++ == 0) common = word;
    size_t same = 0;
    while (same < common.size() && same < word.size() && common[same] == word[same]) ++same;
    common.resize(same);
  }
  if (matches == 0) return CC_ERROR;
  std::string insert = common.substr(typed.size());
  if (matches == 1) insert += ' ';
  if (insert.empty() || el_insertstr(line, insert.c_str()) == -1) return CC_ERROR;
  return CC_REFRESH;
}

// libedit measures and edits wide characters, so it needs a UTF-8 locale whatever the environment says.
void use_utf8_locale() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

LineReader::LineReader(std::string history, std::vector<std::string> words) : state_(std::make_unique<State>()) {
  use_utf8_locale();
  State& s = *state_;
  s.words = std::move(words);
  s.history_path = std::move(history);
  s.line = el_init("quire", stdin, stdout_is_terminal() ? stdout : stderr, stderr);
  s.history = history_init();
  check(s.line && s.history, "cannot set up the line editor");
  el_set(s.line, EL_CLIENTDATA, &s);
  el_set(s.line, EL_EDITOR, "emacs");
  el_set(s.line, EL_SIGNAL, 0);
  el_set(s.line, EL_PROMPT_ESC, prompt_of, '\1');
  el_wset(s.line, EL_GETCFN, read_character);
  el_set(s.line, EL_ADDFN, "quire-complete", "complete a command", complete);
  el_set(s.line, EL_BIND, "^I", "quire-complete", nullptr);
  el_set(s.line, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  HistEvent event;
  ::history(s.history, &event, H_SETSIZE, kHistoryLines);
  ::history(s.history, &event, H_SETUNIQUE, 1);
  el_set(s.line, EL_HIST, ::history, s.history);
  std::error_code ignored;  // without a history file the chat works all the same
  std::filesystem::create_directories(std::filesystem::path(s.history_path).parent_path(), ignored);
  ::history(s.history, &event, H_LOAD, s.history_path.c_str());
}

LineReader::~LineReader() {
  if (state_->history) history_end(state_->history);
  if (state_->line) el_end(state_->line);
}

LineReader::Result LineReader::read(const std::string& prompt, std::string& line) {
  State& s = *state_;
  s.prompt = prompt;
  s.interrupted = false;
  // From before the prompt is seen until a Ctrl-C is answered and the terminal is as it was: no signal ends the program
  // in between.
  SignalsOnlyNoted only_noted;
  // libedit would show the prompt first: what is typed at once would be echoed and edited by the terminal, and a Ctrl-C
  // would find an empty line.
  own_terminal(s.line, true);
  int count = 0;
  const char* text = el_gets(s.line, &count);
  if (s.interrupted) {
    const LineInfo* info = el_line(s.line);
    line.assign(info->buffer, size_t(info->lastchar - info->buffer));
    el_reset(s.line);
    take_interrupt();
    return Result::interrupted;
  }
  if (!text || count <= 0) return Result::end;
  line.assign(text, size_t(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return Result::line;
}

void LineReader::remember(const std::string& line) {
  if (line.empty()) return;
  HistEvent event;
  history(state_->history, &event, H_ENTER, line.c_str());
  history(state_->history, &event, H_SAVE, state_->history_path.c_str());
}

std::optional<std::string> MessageAssembler::feed(std::string_view line) {
  constexpr std::string_view kQuotes = "\"\"\"";
  if (!open() && line.substr(0, 3) == kQuotes) {
    in_block_ = true;
    line.remove_prefix(3);
    if (line.empty()) return std::nullopt;  // the block's text begins on the next line
  }
  bool done = true;
  if (in_block_) {
    done = line.size() >= 3 && line.substr(line.size() - 3) == kQuotes;
    if (done) line.remove_suffix(3);
    text_ += line;
    if (!done) text_ += '\n';
  } else {
    done = line.empty() || line.back() != '\\';
    if (!done) line.remove_suffix(1);
    continued_ = !done;
    text_ += line;
    if (!done) text_ += '\n';
  }
  if (!done) return std::nullopt;
  std::string message = std::move(text_);
  if (in_block_ && !message.empty() && message.back() == '\n') message.pop_back();
  reset();
  return message;
}

}  // namespace quire
