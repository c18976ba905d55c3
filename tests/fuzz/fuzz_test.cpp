// A short run of every fuzz target, the same each time: its seeds, files cut short, and random damage.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/fuzz/heap.h"
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/target.h"
#include "tests/temp_dir.h"

namespace quire::fuzz {
namespace {

class Fuzz : public testing::TestWithParam<Target> {
 protected:
  void SetUp() override { seeds_ = GetParam().seeds(); }

  // Whether the input is accepted. What is neither accepted nor refused fails, and says how to see it again.
  bool run(const std::string& input) {
    const Target& t = GetParam();
    bool accepted = false;
    start_heap_count();
    try {
      accepted = t.run(input);
    } catch (const std::exception& e) {
      ADD_FAILURE() << t.name << ": " << e.what() << kept(input);
    }
    const size_t peak = heap_peak(), allowed = t.heap + kHeapFactor * input.size();
    EXPECT_LE(peak, allowed) << t.name << ": bytes on the heap for an input of " << input.size() << kept(input);
    return accepted;
  }

  std::vector<std::string> seeds_;

 private:
  static std::string kept(const std::string& input) {
    static int count = 0;
    const std::string path =
        (std::filesystem::temp_directory_path() / fmt::format("quire-fuzz-{}-{}", GetParam().name, ++count)).string();
    std::ofstream(path, std::ios::binary) << input;
    return fmt::format("; the input is in '{}'", path);
  }
};

TEST_P(Fuzz, SeedsAreAccepted) {
  ASSERT_FALSE(seeds_.empty());
  for (const std::string& seed : seeds_) {
    ASSERT_LT(seed.size(), size_t{64} << 10) << "small files are damaged more thoroughly";
    EXPECT_TRUE(run(seed)) << "seed " << &seed - seeds_.data();
  }
}

TEST_P(Fuzz, CutShort) {
  for (const std::string& seed : seeds_) {
    const size_t step = seed.size() < 2048 ? 1 : 64;
    for (size_t size = 0; size < seed.size() && !HasFailure(); size += step) run(seed.substr(0, size));
  }
}

TEST_P(Fuzz, Damaged) {
  Rng rng(2024);
  int accepted = 0;
  const int rounds = GetParam().rounds;
  for (int i = 0; i < rounds && !HasFailure(); ++i) accepted += run(mutated(rng, seeds_, GetParam().words));
  if (HasFailure()) return;
  EXPECT_LT(accepted, rounds);  // damage is noticed
  EXPECT_GT(accepted, 0);       // and is not so great that nothing but the beginning is read
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz, testing::ValuesIn(targets()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace quire::fuzz
