// The writer's promises: killed anywhere, nothing half made loads, and the next run gives the same bytes.
#include "models/offline/write.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/expect_error.h"
#include "tests/models/quantized_model.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

class Write : public testing::Test {
 protected:
  WriteOptions options(bool force = false) const {
    WriteOptions o;
    o.output = out_;
    o.force = force;
    o.shard_bytes = 30000;
    return o;
  }
  std::map<std::string, std::string> reference(const std::string& scheme) {
    WriteOptions o = options();
    o.output = dir_.file("reference-" + scheme);
    quantize(source_, scheme, o);
    return contents_of(o.output);
  }
  // In another process; true if it came to its end, false if it was killed.
  template <class Fn>
  bool in_process(Fn&& fn) const {
    const pid_t child = fork();
    check(child >= 0, "no process");
    if (child == 0) {
      try {
        fn();
        _exit(0);
      } catch (...) {
        _exit(1);
      }
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
    }
    return WIFEXITED(status);
  }
  // Kills itself at the k-th report of progress, of which there is one before every step that the disk sees.
  bool killed_at(int k, const std::string& scheme, bool force = false) const {
    return !in_process([&] {
      WriteOptions o = options(force);
      o.progress = [calls = 0, k](const std::string&, int64_t, int64_t) mutable {
        if (++calls == k) raise(SIGKILL);
        return true;
      };
      quantize(source_, scheme, o);
    });
  }
  static bool opens(const std::string& path) {
    try {
      Checkpoint::open(path);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  TempDir dir_;
  std::string source_ = write_tiny_gguf(make_tiny_model({.matrices = id<Q8_0>}), dir_.file("tiny.gguf"));
  std::string out_ = dir_.file("out"), partial_ = out_ + ".partial";
};

TEST_F(Write, MakesWholeShardsWithAnIndex) {
  std::vector<std::pair<int64_t, int64_t>> seen;
  WriteOptions o = options();
  o.progress = [&](const std::string&, int64_t done, int64_t total) {
    seen.emplace_back(done, total);
    return true;
  };
  const WriteResult result = quantize(source_, "w8a8", o);
  EXPECT_EQ(result.tensors, 20);
  EXPECT_GT(result.files, 2);
  EXPECT_EQ(result.resumed_files, 0);
  EXPECT_EQ(seen.back(), std::make_pair(result.bytes, result.bytes));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_FALSE(fs::exists(partial_));
  const auto files = contents_of(out_);
  EXPECT_EQ(files.size(), size_t(result.files) + 5);  // config, generation config, tokenizer, its config, index
  const Checkpoint c = Checkpoint::open(out_);
  EXPECT_EQ(c.tensors().size(), 20u);
  o = options();
  o.output = dir_.file("whole");
  o.shard_bytes = 1 << 30;
  EXPECT_EQ(quantize(source_, "w8a8", o).files, 1);
  EXPECT_TRUE(compute(*open_small(out_)) == compute(*open_small(dir_.file("whole"))));
}

TEST_F(Write, KilledAnywhereItGoesOnToTheSameBytes) {
  const auto wanted = reference("w4a8");
  int k = 1, resumed = 0;
  for (; killed_at(k, "w4a8"); ++k) {
    SCOPED_TRACE(k);
    ASSERT_LT(k, 200);
    EXPECT_FALSE(opens(partial_));
    // After the last rename the directory is whole, and only its manifest is too much.
    const bool renamed = fs::exists(out_);
    EXPECT_EQ(opens(out_), renamed);
    const WriteResult result = quantize(source_, "w4a8", options());
    resumed += result.resumed_files > 0;
    if (renamed) {
      EXPECT_EQ(result.resumed_files, result.files);
    }
    EXPECT_TRUE(contents_of(out_) == wanted);
    EXPECT_FALSE(fs::exists(partial_));
    fs::remove_all(out_);
  }
  EXPECT_GT(k, 30);  // tensors, files and steps
  EXPECT_GT(resumed, 10);
  EXPECT_TRUE(contents_of(out_) == wanted);
}

TEST_F(Write, KilledAtRandomMomentsAgainAndAgain) {
  const auto wanted = reference("w3a8");
  uint64_t state = 11;
  int killed = 0;
  for (int i = 0; i < 40 && !fs::exists(out_); ++i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      quantize(source_, "w3a8", options());
      _exit(0);
    }
    usleep(useconds_t(state % (5000 * uint64_t(i + 1))));  // sooner or later within the writing
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    killed += WIFSIGNALED(status);
    EXPECT_FALSE(opens(partial_));
    EXPECT_EQ(opens(out_), fs::exists(out_));
  }
  if (!fs::exists(out_) || fs::exists(out_ + "/quire-quantize.json")) quantize(source_, "w3a8", options());
  EXPECT_TRUE(contents_of(out_) == wanted);
  RecordProperty("killed", killed);
}

TEST_F(Write, OtherOptionsOrAnotherSourceBeginAnew) {
  const auto wanted = reference("w8a8");
  ASSERT_TRUE(killed_at(20, "w4a8"));
  ASSERT_TRUE(fs::exists(partial_));
  std::string notes;
  WriteOptions o = options();
  o.log = [&](const std::string& message) { notes += message + "\n"; };
  EXPECT_EQ(quantize(source_, "w8a8", o).resumed_files, 0);
  EXPECT_NE(notes.find("other options"), std::string::npos) << notes;
  EXPECT_TRUE(contents_of(out_) == wanted);
  fs::remove_all(out_);

  ASSERT_TRUE(killed_at(30, "w8a8"));
  write_tiny_gguf(make_tiny_model({.matrices = id<Q8_0>, .seed = 2}), source_);
  notes.clear();
  EXPECT_EQ(quantize(source_, "w8a8", o).resumed_files, 0);
  EXPECT_NE(notes.find("another source"), std::string::npos) << notes;
  EXPECT_FALSE(contents_of(out_) == wanted);
  EXPECT_TRUE(compute(*open_small(out_)) == compute(*open_small(source_, "w8a8")));
}

TEST_F(Write, CancellingKeepsWhatIsDone) {
  WriteOptions o = options();
  o.progress = [](const std::string&, int64_t done, int64_t total) { return done < total / 2; };
  expect_error([&] { quantize(source_, "w8a8", o); }, {"cancelled", "goes on", partial_});
  EXPECT_FALSE(fs::exists(out_));
  o.progress = {};
  EXPECT_GT(quantize(source_, "w8a8", o).resumed_files, 0);
  EXPECT_TRUE(opens(out_));
}

TEST_F(Write, ReplacesOnlyWhatItWroteAndOnlyIfForced) {
  quantize(source_, "w8a8", options());
  const auto old = contents_of(out_);
  expect_error([&] { quantize(source_, "w4a8", options()); }, {out_, "exists", "--force"});
  EXPECT_TRUE(contents_of(out_) == old);
  const auto wanted = reference("w4a8");
  int k = 1;
  for (; killed_at(k, "w4a8", true); ++k) {
    SCOPED_TRACE(k);
    ASSERT_LT(k, 200);
    EXPECT_FALSE(opens(partial_));
    EXPECT_TRUE(opens(out_) || fs::exists(partial_ + "/replaced/config.json"));
    quantize(source_, "w4a8", options(true));
    EXPECT_TRUE(contents_of(out_) == wanted);
    EXPECT_FALSE(fs::exists(partial_));
    fs::remove_all(out_);
    fs::copy(dir_.file("reference-w4a8"), out_);
  }
  EXPECT_GT(k, 30);

  fs::remove_all(out_);
  fs::create_directory(out_);
  write_file(out_ + "/thesis.txt", "three years of work");
  expect_error([&] { quantize(source_, "w4a8", options(true)); }, {"is not a directory that quantize wrote"});
  EXPECT_TRUE(fs::exists(out_ + "/thesis.txt"));
  fs::remove_all(out_);
  fs::create_directory(partial_);
  write_file(partial_ + "/thesis.txt", "three years of work");
  expect_error([&] { quantize(source_, "w4a8", options(true)); }, {partial_, "in the way"});
  EXPECT_TRUE(fs::exists(partial_ + "/thesis.txt"));
}

TEST_F(Write, RefusesWhatMakesNoSense) {
  expect_error([&] { quantize(source_, "own", options()); }, {"keeps the model's own weights"});
  expect_error([&] { quantize(source_, "a8", options()); }, {"keeps the model's own weights"});
  WriteOptions o = options();
  o.output = dir_.file("no/such/place");
  expect_error([&] { quantize(source_, "w8a8", o); }, {"no/such", "does not exist"});
  o.output = dir_.path();
  o.force = true;
  expect_error([&] { quantize(source_, "w8a8", o); }, {"holds the source"});
  EXPECT_FALSE(fs::exists(out_) || fs::exists(partial_));
  // Two at once.
  ASSERT_TRUE(killed_at(10, "w8a8"));
  const int fd = open(partial_.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  const auto open_files = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = open_files();
  expect_error([&] { quantize(source_, "w8a8", options()); }, {"written by another run"});
  expect_error([&] { quantize(source_, "w4a8", options()); }, {"written by another run"});
  EXPECT_EQ(open_files(), before);
  close(fd);
  quantize(source_, "w8a8", options());
}

TEST_F(Write, AFullDiskIsOneErrorAndTheNextRunGoesOn) {
  const auto wanted = reference("w8a8");
  EXPECT_TRUE(in_process([&] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{20000, 20000};  // bytes a file may have: the tokenizer fits, a shard does not
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      quantize(source_, "w8a8", options());
      fail("no error");
    } catch (const Error& e) {
      const std::string text = e.what();
      check(text.find("cannot write '" + partial_) != text.npos && text.find("too large") != text.npos, "{}", text);
    }
  }));
  EXPECT_FALSE(fs::exists(out_));
  for (const auto& [name, bytes] : contents_of(partial_)) EXPECT_EQ(name.find(".tmp"), name.npos) << name;
  quantize(source_, "w8a8", options());
  EXPECT_TRUE(contents_of(out_) == wanted);
}

}  // namespace
}  // namespace quire
