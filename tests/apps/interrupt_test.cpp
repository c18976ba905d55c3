#include "apps/interrupt.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>

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

}  // namespace
}  // namespace quire
