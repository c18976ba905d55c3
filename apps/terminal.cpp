#include "apps/terminal.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "apps/interrupt.h"
#include "base/error.h"

namespace quire {

bool stdin_is_terminal() { return isatty(STDIN_FILENO) != 0; }
bool stdout_is_terminal() { return isatty(STDOUT_FILENO) != 0; }
bool stderr_is_terminal() { return isatty(STDERR_FILENO) != 0; }

std::string painted(Paint paint, std::string_view text, bool to_terminal) {
  static const bool colour = [] {
    const char* no_color = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    return (!no_color || !*no_color) && term && std::strcmp(term, "dumb") != 0;
  }();
  if (!colour || !to_terminal || paint == Paint::plain) return std::string(text);
  const char* code = "0";
  switch (paint) {
    case Paint::plain:
      break;
    case Paint::dim:
      code = "2";
      break;
    case Paint::bold:
      code = "1";
      break;
    case Paint::prompt:
      code = "1;32";
      break;
    case Paint::error:
      code = "31";
      break;
  }
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

namespace {

// write(2) itself, so that nothing waits in a buffer and the reason of a failure is known.
bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    text.remove_prefix(size_t(n));
  }
  return true;
}

}  // namespace

void write_out(std::string_view text) {
  if (write_all(STDOUT_FILENO, text)) return;
  if (errno == EPIPE) throw BrokenPipe();
  fail(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

void write_error(std::string_view text) { write_all(STDERR_FILENO, text); }

void note(std::string_view message) {
  write_error(painted(Paint::dim, "quire: " + harmless(message), stderr_is_terminal()) + "\n");
}

void write_ui(std::string_view text) {
  if (stdout_is_terminal()) {
    write_out(text);
  } else {
    write_error(text);
  }
}

std::string ui_painted(Paint paint, std::string_view text) {
  return painted(paint, text, stdout_is_terminal() || stderr_is_terminal());
}

std::string harmless(std::string_view text) {
  std::string safe;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;  // U+0080..9F
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F || c1) {
      safe += "\xEF\xBF\xBD";  // U+FFFD
      i += c1 ? 1 : 0;
    } else {
      safe += text[i];
    }
  }
  return safe;
}

std::string read_stdin() {
  std::string text;
  std::array<char, 65536> block;
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, block.data(), block.size());
    if (n > 0) {
      text.append(block.data(), size_t(n));
      continue;
    }
    if (n == 0) return text;
    if (errno == EINTR && interrupted()) throw Interrupted();
    check(errno == EINTR, "cannot read standard input: {}", std::strerror(errno));
  }
}

void ProgressBar::update(const std::string& what, int64_t done, int64_t total) {
  if (quiet_) return;
  const bool new_stage = what != stage_;
  stage_ = what;
  if (!stderr_is_terminal()) {
    if (new_stage) note(what);
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (!new_stage && now - last_ < std::chrono::milliseconds(50) && done < total) return;
  last_ = now;
  std::string line = "\r" + what;
  if (total > 0) {
    constexpr int64_t kWidth = 30;
    const int64_t filled = kWidth * done / total;
    line += fmt::format(" [{}{}] {:3}%", std::string(size_t(filled), '#'), std::string(size_t(kWidth - filled), ' '),
                        100 * done / total);
  }
  write_error(line + "\x1b[K");
  drawn_ = true;
}

void ProgressBar::clear() {
  if (drawn_) write_error("\r\x1b[K");
  drawn_ = false;
}

Progress ProgressBar::sink() {
  return [this](const std::string& what, int64_t done, int64_t total) {
    update(what, done, total);
    return !interrupted();
  };
}

Log ProgressBar::log() {
  return [this](const std::string& message) {
    if (quiet_) return;
    clear();
    note(message);
  };
}

}  // namespace quire
