#include "apps/interrupt.h"

#include <atomic>
#include <csignal>

#include <pthread.h>
#include <unistd.h>

namespace quire {

namespace {

// Taken by exchange, so that no Ctrl-C is lost between looking and clearing.
std::atomic<int> interrupts = 0, ended_by = 0, resized = 0, resumed = 0, only_noted = 0;
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler must not wait for a lock");

pthread_t main_thread;

// The system gives a signal to any thread that does not hold it back. Ours do, those of libraries (a GPU's driver) do
// not: then the thread that waits for it would not wake up.
void on_signal(int signal) {
  if (!pthread_equal(pthread_self(), main_thread)) {
    pthread_kill(main_thread, signal);
    return;
  }
  if (signal == SIGWINCH) {
    resized = 1;
  } else if (signal == SIGCONT) {
    resumed = 1;
  } else if (signal != SIGINT) {
    ended_by = signal;
  } else if (++interrupts >= 2 && only_noted == 0) {
    [[maybe_unused]] const auto written = write(STDERR_FILENO, "\n", 1);
    _exit(kExitInterrupted);
  }
}

}  // namespace

void install_signal_handlers() {
  main_thread = pthread_self();
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  for (const int signal : kHandledSignals) {
    // A blocked read ends for what asks the program to end. The line editor waits in ppoll, which ends for any signal.
    action.sa_flags = signal == SIGWINCH || signal == SIGCONT ? SA_RESTART : 0;
    struct sigaction before {};
    // What the parent chose to ignore (nohup, a background job's Ctrl-C) stays ignored.
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write, handled where it is written
}

bool terminated() { return ended_by != 0; }
bool interrupted() { return interrupts > 0 || terminated(); }
int exit_code_of_signal() { return terminated() ? 128 + ended_by : kExitInterrupted; }
bool take_interrupt() { return interrupts.exchange(0) > 0; }
bool take_resized() { return resized.exchange(0) != 0; }
bool take_resumed() { return resumed.exchange(0) != 0; }

SignalsOnlyNoted::SignalsOnlyNoted() { only_noted = 1; }
SignalsOnlyNoted::~SignalsOnlyNoted() { only_noted = 0; }

}  // namespace quire
