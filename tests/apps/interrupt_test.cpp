#include "apps/interrupt.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <thread>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mapped_file.h"

namespace quire {
namespace {

// A prompt that another program writes slowly (--file <(...)), while the window is resized.
TEST(Interrupt, AResizedWindowDoesNotEndAReadOfAPipe) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    close(ends[1]);
    install_signal_handlers();
    int code = 3;
    try {
      code = read_text_file("/dev/fd/" + std::to_string(ends[0]), 100) == "whole text" ? 0 : 2;
    } catch (const std::exception& error) {
      fprintf(stderr, "%s\n", error.what());
    }
    _exit(code);
  }
  close(ends[0]);
  std::signal(SIGPIPE, SIG_IGN);  // if it has given up
  for (int i = 0; i < 20; ++i) {  // one of them while it reads
    usleep(2000);
    for (const int signal : {SIGWINCH, SIGCONT}) kill(child, signal);
  }
  ASSERT_EQ(write(ends[1], "whole text", 10), 10);
  close(ends[1]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// A library's thread takes a signal that the main one holds back until it waits: it still ends the wait.
TEST(Interrupt, ASignalTakenByAnotherThreadEndsTheWait) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);  // without the signal it would wait for ever
    install_signal_handlers();
    std::thread([] {
      for (;;) pause();
    }).detach();
    sigset_t ours, before;
    sigemptyset(&ours);
    for (const int signal : kHandledSignals) sigaddset(&ours, signal);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    kill(getpid(), SIGCONT);
    const bool woken = ppoll(nullptr, 0, nullptr, &before) < 0 && errno == EINTR;
    _exit(woken && take_resumed() ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace quire
