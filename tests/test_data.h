// The real model and text some tests need. They are fetched, never committed: a test that cannot find them is skipped
// loudly.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <string>

namespace quire {

inline std::string test_file(const char* variable, const char* name) {
  if (const char* set = std::getenv(variable); set && *set) return set;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base =
      cache && *cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : "") / ".cache";
  return (base / "quire" / name).string();
}
inline std::string test_model() { return test_file("QUIRE_TEST_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf"); }
inline std::string test_text() { return test_file("QUIRE_TEST_TEXT", "enwiki.txt"); }

// The repository's files and the built program: where the build had them, or where the environment says (a bundle on
// another machine).
inline std::string found_at(const char* variable, const char* built) {
  const char* set = std::getenv(variable);
  return set && *set ? set : built;
}
#ifdef QUIRE_SOURCE_DIR
inline std::string source_file(const char* path) { return found_at("QUIRE_SOURCE_DIR", QUIRE_SOURCE_DIR) + "/" + path; }
#endif

}  // namespace quire

// In a test: QUIRE_NEEDS_FILE(quire::test_model());
#define QUIRE_NEEDS_FILE(path)                                                              \
  if (!std::filesystem::exists(path))                                                       \
  GTEST_SKIP() << "NOT TESTED: '" << (path)                                                 \
               << "' is missing. Run tools/fetch-model.sh and tools/fetch-text.sh, or set " \
               << "QUIRE_TEST_MODEL and QUIRE_TEST_TEXT to the model and the text."
