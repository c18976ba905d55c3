// The libFuzzer program. One binary holds all targets:
//   QUIRE_FUZZ=gguf fuzz [libFuzzer's options] CORPUS     runs one
//   QUIRE_FUZZ_SEEDS=DIRECTORY fuzz                       writes DIRECTORY/NAME/* and DIRECTORY/NAME.dict for each, and
//   ends
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/fuzz/target.h"

namespace {

using quire::fuzz::Target;

const Target* chosen = nullptr;

void write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream out(path, std::ios::binary);
  out << content;
  quire::check(out.good(), "cannot write '{}'", path.string());
}

void write_seeds(const std::filesystem::path& directory) {
  for (const Target& t : quire::fuzz::targets()) {
    std::filesystem::create_directories(directory / t.name);
    const std::vector<std::string> seeds = t.seeds();
    for (size_t i = 0; i < seeds.size(); ++i) write(directory / t.name / fmt::format("seed{:03}", i), seeds[i]);
    std::string dictionary;
    for (const std::string& word : t.words) {
      dictionary += '"';
      for (const char c : word) dictionary += fmt::format("\\x{:02X}", uint8_t(c));
      dictionary += "\"\n";
    }
    write(directory / fmt::format("{}.dict", t.name), dictionary);
    std::puts(t.name);
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (const char* directory = std::getenv("QUIRE_FUZZ_SEEDS")) {
    write_seeds(directory);
    std::exit(0);
  }
  const char* name = std::getenv("QUIRE_FUZZ");
  for (const Target& t : quire::fuzz::targets()) {
    if (name && std::string_view(name) == t.name) chosen = &t;
  }
  if (!chosen) {
    std::fprintf(stderr, "QUIRE_FUZZ must name a target:");
    for (const Target& t : quire::fuzz::targets()) std::fprintf(stderr, " %s", t.name);
    std::fputc('\n', stderr);
    std::exit(2);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  chosen->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
