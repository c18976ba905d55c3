// Fuzz targets: everything that reads bytes which somebody else made, each as one function of those bytes. libFuzzer
// runs them (fuzz_main.cpp, tools/fuzz.sh) and so does a short deterministic test (fuzz_test.cpp).
#pragma once
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "models/checkpoint.h"
#include "models/tokenizer.h"

namespace quire::fuzz {

struct Target {
  const char* name;
  // True: accepted; false: refused with an Error. Whatever else happens (another exception, a crash, a hang, memory
  // without measure) is a finding.
  bool (*run)(std::string_view input);
  std::vector<std::string> (*seeds)();  // inputs that are accepted
  std::vector<std::string> words;       // what mutations put in
  int rounds;                           // mutations of the deterministic test
  size_t heap;                          // bytes a run may allocate, beside kHeapFactor times its input
};
constexpr size_t kHeapFactor = 32;

std::vector<Target> reader_targets();
std::vector<Target> quantized_targets();
std::vector<Target> text_targets();
std::vector<Target> app_targets();
const std::vector<Target>& targets();  // all of them

// A target that finds its own promise broken (pieces that are not the text, say). No quire::Error, so never "refused".
inline void promise(bool ok, const std::string& what) {
  if (!ok) throw std::logic_error("fuzz: broken promise: " + what);
}

template <class Fn>
bool accepted(Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    promise(*e.what() != '\0', "an error says something");
    return false;
  }
  return true;
}

// Files of this process's own directory.
std::string put_file(std::string_view name, std::string_view content);

// Several files as one input: "\n=== NAME\n" and the content, again and again. Only known names are written.
std::string bundle(const std::vector<std::pair<std::string, std::string>>& files);
std::string bundle_directory(const std::string& directory);
std::string put_bundle(std::string_view input);                      // the directory, with these files and no others
std::string bundled(std::string_view input, std::string_view file);  // one file's content, "" if it is not there

bool run_directory(std::string_view input);  // a bundle, as a model
std::vector<std::string> directory_words();

void use(const Tokenizer& tokenizer);    // encodes and decodes
void use(const Checkpoint& checkpoint);  // decodes every row, uses the tokenizer

}  // namespace quire::fuzz
