#include "apps/interrupt.h"

#include <csignal>
#include <initializer_list>

#include <unistd.h>

namespace quire {

namespace {

volatile std::sig_atomic_t interrupts = 0, last_signal = 0, resized = 0, only_noted = 0;

void on_signal(int signal) {
  if (signal == SIGWINCH) {
    resized = 1;
    return;
  }
  last_signal = signal;
  if (signal == SIGINT) interrupts = interrupts + 1;
  if (signal == SIGINT && interrupts >= 2 && !only_noted) {
    [[maybe_unused]] const auto written = write(STDERR_FILENO, "\n", 1);
    _exit(kExitInterrupted);
  }
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;  // without SA_RESTART: a blocked read returns, so the line editor notices
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) {
    struct sigaction before {};
    // What the parent chose to ignore (nohup, a background job's Ctrl-C) stays ignored.
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write, handled where it is written
}

bool terminated() { return last_signal == SIGTERM || last_signal == SIGHUP; }
bool interrupted() { return interrupts > 0 || terminated(); }
int exit_code_of_signal() { return terminated() ? 128 + int(last_signal) : kExitInterrupted; }
void clear_interrupts() { interrupts = 0; }

bool take_resized() {
  const bool was = resized != 0;
  resized = 0;
  return was;
}

SignalsOnlyNoted::SignalsOnlyNoted() { only_noted = 1; }
SignalsOnlyNoted::~SignalsOnlyNoted() { only_noted = 0; }

}  // namespace quire
