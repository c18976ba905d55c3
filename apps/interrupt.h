// Ctrl-C and the other signals that end a program. The first Ctrl-C asks: whoever is working looks at interrupted() and
// stops cleanly. A second one, before anybody called take_interrupt(), exits with 130 at once.
#pragma once
#include <array>
#include <csignal>
#include <exception>

namespace quire {

constexpr int kExitOk = 0, kExitError = 1, kExitUsage = 2, kExitInterrupted = 130, kExitBrokenPipe = 141;

inline constexpr std::array kHandledSignals = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT};

void install_signal_handlers();  // from here on the calling thread takes them, whichever the system gives one to
bool interrupted();              // Ctrl-C was pressed
bool terminated();               // SIGTERM or SIGHUP: leave soon
int exit_code_of_signal();
bool take_interrupt();  // whether Ctrl-C was pressed; from here on it counts as answered
bool take_resized();    // the window changed its size since the last call
bool take_resumed();    // the program was stopped (Ctrl-Z) and goes on: the terminal may be in another mode

// While one lives, Ctrl-C is only noted: a line editor owns the terminal and must restore it first.
class SignalsOnlyNoted {
 public:
  SignalsOnlyNoted();
  ~SignalsOnlyNoted();
};

// Thrown where work was given up because of Ctrl-C.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "interrupted"; }
};

}  // namespace quire
