// Running the built program as a person or a script would: with pipes, or in a terminal of its own.
#pragma once
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "tests/test_data.h"

namespace quire {

using Environment = std::map<std::string, std::string>;

struct ProgramResult {
  int code = -1;
  std::string out, err;
};

// In the child: becomes the program. `environment` is added to what the tests run in.
[[noreturn]] inline void exec_program(const std::vector<std::string>& arguments, const Environment& environment) {
  // Whoever runs the tests may ignore Ctrl-C (a shell does so for background jobs), and the program would inherit that.
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) signal(number, SIG_DFL);
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  std::string binary = found_at("QUIRE_BINARY", QUIRE_BINARY);
  std::vector<char*> argv = {binary.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(binary.c_str(), argv.data());
  _exit(127);
}

inline int exit_code(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

inline ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& input = "",
                                 const Environment& environment = {}) {
  int in[2], out[2], err[2];
  check(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "no pipes");
  const pid_t child = fork();
  check(child >= 0, "no process");
  if (child == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    exec_program(arguments, environment);
  }
  close(in[0]);
  close(out[1]);
  close(err[1]);
  signal(SIGPIPE, SIG_IGN);  // the program may end before it has read its input
  size_t written = 0;
  ProgramResult result;
  std::array<pollfd, 3> fds = {pollfd{out[0], POLLIN, 0}, pollfd{err[0], POLLIN, 0}, pollfd{in[1], POLLOUT, 0}};
  const auto finish = [](pollfd& fd) {
    if (fd.fd >= 0) close(fd.fd);
    fd.fd = -1;
  };
  if (input.empty()) finish(fds[2]);
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    if (poll(fds.data(), fds.size(), -1) < 0) continue;
    for (int i = 0; i < 2; ++i) {
      if (fds[size_t(i)].fd < 0 || !(fds[size_t(i)].revents & (POLLIN | POLLHUP))) continue;
      std::array<char, 4096> block;
      const ssize_t n = read(fds[size_t(i)].fd, block.data(), block.size());
      if (n > 0) (i == 0 ? result.out : result.err).append(block.data(), size_t(n));
      if (n == 0) finish(fds[size_t(i)]);
    }
    if (fds[2].fd >= 0 && fds[2].revents) {
      const ssize_t n = write(fds[2].fd, input.data() + written, input.size() - written);
      if (n > 0) written += size_t(n);
      if (n < 0 || written == input.size()) finish(fds[2]);
    }
  }
  finish(fds[2]);
  result.code = exit_code(child);
  return result;
}

// The program in a terminal of its own.
class TerminalProgram {
 public:
  TerminalProgram(const std::vector<std::string>& arguments, const Environment& environment) {
    winsize size{24, 100, 0, 0};
    child_ = forkpty(&terminal_, nullptr, nullptr, &size);
    check(child_ >= 0, "no terminal");
    if (child_ == 0) exec_program(arguments, environment);
  }
  ~TerminalProgram() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      exit_code(child_);
    }
    close(terminal_);
  }
  TerminalProgram(const TerminalProgram&) = delete;
  TerminalProgram& operator=(const TerminalProgram&) = delete;

  void type(const std::string& keys) {
    check(write(terminal_, keys.data(), keys.size()) == ssize_t(keys.size()), "cannot type");
  }
  // What the terminal makes of Ctrl-C. A terminal also throws away output that is on its way at that moment, so a test
  // that pressed the key could miss what the program answers.
  void press_ctrl_c() { kill(child_, SIGINT); }
  // What a shell does on Ctrl-Z: the program stops, and the terminal is the shell's.
  void stop_and_make_sane() {
    kill(child_, SIGSTOP);
    int status = 0;
    while (waitpid(child_, &status, WUNTRACED) < 0 && errno == EINTR) {
    }
    termios mode;
    check(tcgetattr(terminal_, &mode) == 0, "no terminal");
    mode.c_lflag |= ICANON | ECHO;
    check(tcsetattr(terminal_, TCSANOW, &mode) == 0, "no terminal");
  }
  void resume() { kill(child_, SIGCONT); }
  // Reads until `text` has been shown since the last call that found something; false if the program ends or two
  // minutes pass.
  bool shows(const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    for (;;) {
      const size_t at = seen_.find(text, from_);
      if (at != std::string::npos) {
        from_ = at + text.size();
        return true;
      }
      if (std::chrono::steady_clock::now() > deadline || !read_some()) return false;
    }
  }
  // Waits for anything new after the last text found.
  bool shows_anything() {
    while (seen_.size() <= from_) {
      if (!read_some()) return false;
    }
    from_ = seen_.size();
    return true;
  }
  const std::string& seen() const { return seen_; }
  // The exit code; a program that does not end is killed.
  int wait() {
    while (read_some()) {
    }
    if (timed_out_) kill(child_, SIGKILL);
    const int code = exit_code(child_);
    child_ = -1;
    return code;
  }

 private:
  bool read_some() {
    pollfd fd{terminal_, POLLIN, 0};
    constexpr int kPatience = 60000;  // milliseconds
    timed_out_ = poll(&fd, 1, kPatience) <= 0;
    if (timed_out_) return false;
    std::array<char, 4096> block;
    const ssize_t n = read(terminal_, block.data(), block.size());  // fails when the program has closed its end
    if (n > 0) seen_.append(block.data(), size_t(n));
    return n > 0;
  }

  bool timed_out_ = false;
  int terminal_ = -1;
  pid_t child_ = -1;
  std::string seen_;
  size_t from_ = 0;
};

}  // namespace quire
