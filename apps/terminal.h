// What the program writes and where: answers and results to standard output, everything about them to standard error.
#pragma once
#include <chrono>
#include <string>
#include <string_view>

#include "base/sink.h"

namespace quire {

// The other end of standard output is gone (quire ... | head): leave quietly.
class BrokenPipe {};

enum class Paint { plain, dim, bold, prompt, error };

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();

// `text` in colour if `to_terminal` and the person wants colour (NO_COLOR, TERM=dumb).
std::string painted(Paint paint, std::string_view text, bool to_terminal);

void write_out(std::string_view text);    // standard output, at once; throws BrokenPipe or Error
void write_error(std::string_view text);  // standard error; failures are ignored
void note(std::string_view message);      // one line on standard error, "quire: ..."
void write_ui(
    std::string_view text);  // what belongs to the conversation but is no answer: the terminal if there is one
std::string ui_painted(Paint paint, std::string_view text);

// Text of a model or a file for a terminal: control characters (escape sequences above all) are made visible, so that
// no text can drive the terminal.
std::string harmless(std::string_view text);

std::string read_stdin();  // all of it

// Progress of long work: a bar on a terminal, else one line a stage. Silent if `quiet`. Its sink asks to stop on
// Ctrl-C.
class ProgressBar {
 public:
  explicit ProgressBar(bool quiet) : quiet_(quiet) {}
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void update(const std::string& what, int64_t done, int64_t total);
  void clear();
  Progress sink();
  Log log();  // clears the bar first

 private:
  bool quiet_, drawn_ = false;
  std::string stage_;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace quire
