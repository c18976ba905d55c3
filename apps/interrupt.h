// Ctrl-C and the other signals that end a program. The first Ctrl-C asks: whoever is working looks at interrupted() and
// stops cleanly. A second one, before anybody called clear_interrupts(), exits with 130 at once.
#pragma once
#include <exception>

namespace quire {

constexpr int kExitOk = 0, kExitError = 1, kExitUsage = 2, kExitInterrupted = 130, kExitBrokenPipe = 141;

void install_signal_handlers();
bool interrupted();  // Ctrl-C was pressed
bool terminated();   // SIGTERM or SIGHUP: leave soon
int exit_code_of_signal();
void clear_interrupts();
bool take_resized();  // the window changed its size since the last call

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
