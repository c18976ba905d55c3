// Models split over several GGUF files: read as one, and refused unless every part is what the first announces.
#include "models/gguf_split.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "models/checkpoint.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

constexpr int kParts = 3;

std::string u16(uint16_t value) { return GgufWriter::bytes_of(value); }

class GgufSplit : public testing::Test {
 protected:
  std::string part_name(int i) const { return fmt::format("tiny-{:05}-of-{:05}.gguf", i + 1, kParts); }
  std::string first() const { return dir_.file(part_name(0)); }

  // Tensor i goes to part i % kParts. `number` is what part i says it is.
  GgufWriter part(int i, int number, uint32_t tensors) {
    GgufWriter w;
    if (i == 0) {
      w = tiny_gguf_writer(model_);
      for (const TinyTensor& t : model_.tensors) w.erase_tensor(gguf_name(t.name));
    } else {
      w.text("general.architecture", "llama");
    }
    w.raw("split.no", 2, u16(uint16_t(number)));
    w.raw("split.count", 2, u16(kParts));
    w.u32("split.tensors.count", tensors);
    return w;
  }
  void add_tensors(GgufWriter& w, int i) {
    const GgufFile whole{MappedFile(dir_.write("whole.gguf", tiny_gguf_writer(model_).file()))};
    for (size_t t = size_t(i); t < whole.tensors().size(); t += kParts) {
      const GgufTensor& tensor = whole.tensors()[t];
      w.tensor(tensor.name, std::vector<uint64_t>(tensor.dims.begin(), tensor.dims.end()), tensor.type,
               {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()});
    }
  }
  void write(int i, const GgufWriter& w) { dir_.write(part_name(i), w.file()); }
  void write_all() {
    for (int i = 0; i < kParts; ++i) {
      GgufWriter w = part(i, i, uint32_t(model_.tensors.size()));
      add_tensors(w, i);
      write(i, w);
    }
  }
  void expect_refused(std::initializer_list<std::string> parts) {
    expect_error([&] { Checkpoint::open(first()); }, parts);
  }

  TempDir dir_;
  TinyModel model_ = make_tiny_model({.layers = 1, .hidden = 32, .ffn = 32, .heads = 2, .kv_heads = 1});
};

TEST_F(GgufSplit, PartsAreOneModel) {
  write_all();
  const Checkpoint split = Checkpoint::open(first());
  EXPECT_EQ(split.container(), "GGUF v3, 3 parts");
  ASSERT_EQ(split.tensors().size(), model_.tensors.size());
  for (const TinyTensor& t : model_.tensors) {
    const Tensor &a = split.get(t.name), &b = t.weight.tensor;
    ASSERT_EQ(describe(a), describe(b)) << t.name;
    EXPECT_EQ(bytes_of(a), bytes_of(b)) << t.name;
  }
}

TEST_F(GgufSplit, OnlyTheFirstPartIsOpened) {
  write_all();
  expect_error([&] { Checkpoint::open(dir_.file(part_name(1))); },
               {"is part 2 of 3", "open the first part", "-00001-of-00003.gguf"});
  std::filesystem::rename(first(), dir_.file("renamed.gguf"));
  expect_error([&] { Checkpoint::open(dir_.file("renamed.gguf")); }, {"does not end in '-00001-of-00003.gguf'"});
}

TEST_F(GgufSplit, MissingPartsAreNamed) {
  write_all();
  std::filesystem::remove(dir_.file(part_name(2)));
  expect_refused({"part 3 of 3 is missing", part_name(2)});
}

TEST_F(GgufSplit, PartsSayWhichTheyAre) {
  write_all();
  std::filesystem::copy_file(first(), dir_.file(part_name(1)), std::filesystem::copy_options::overwrite_existing);
  expect_refused({part_name(1), "says it is part 1 of 3, its name part 2 of 3"});  // a cycle
  GgufWriter w;
  w.text("general.architecture", "llama");
  add_tensors(w, 1);
  write(1, w);
  expect_refused({"says it is part ? of ?"});
}

TEST_F(GgufSplit, TensorsAreCountedAndComeOnce) {
  write_all();
  GgufWriter w = part(1, 1, uint32_t(model_.tensors.size()));
  write(1, w);  // without its tensors
  expect_refused({"split.tensors.count is 11, the 3 parts have 7 tensors"});
  add_tensors(w, 0);  // as many, but those of another part
  write(1, w);
  expect_refused({"appears twice"});
}

TEST_F(GgufSplit, OnlyTheFirstPartDescribesTheNetwork) {
  write_all();
  GgufWriter w = part(2, 2, uint32_t(model_.tensors.size()));
  w.f32("llama.rope.freq_base", 5.0f);
  add_tensors(w, 2);
  write(2, w);
  expect_refused({"has the key 'llama.rope.freq_base'"});
}

TEST_F(GgufSplit, CountsWithoutMeasureAreRefused) {
  write_all();
  GgufWriter w = part(0, 0, 11);
  w.erase("split.count");
  w.raw("split.count", 5, GgufWriter::bytes_of(int32_t(-3)));
  write(0, w);
  expect_refused({"split.count is -3"});
  w.erase("split.count");
  w.u32("split.count", 4'000'000'000u);
  write(0, w);
  expect_refused({"split.count is 4000000000"});
}

}  // namespace
}  // namespace quire
