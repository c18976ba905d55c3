// The flags every verb shares, in one place, and the sampling settings that are flags, `/set` words and saved JSON
// alike.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "apps/terminal.h"
#include "engine/engine.h"

namespace quire {

struct GenerationSettings {
  SamplerOptions sampler;
  int64_t max_tokens = -1;  // -1: until the context is full
  std::vector<std::string> stop;
};

struct Setting {
  const char* name;   // "top-k": the flag is --top-k, /set takes top-k and top_k
  const char* value;  // what to type for it, for the help
  const char* help;
  bool repeats;                                                       // each time it is given adds one
  void (*set)(GenerationSettings& settings, std::string_view value);  // Error if the value is bad
  std::string (*get)(const GenerationSettings& settings);             // as set() takes it; repeated ones one a line
};
std::span<const Setting> all_settings();
const Setting* find_setting(std::string_view name);  // null if unknown
std::string setting_names();

struct CommonOptions {
  EngineOptions engine;
  GenerationSettings generation;
  std::optional<std::string> prompt;
  std::optional<std::string> system;
  bool chat = false;
  bool json = false;
  bool quiet = false;
};

// A flag whose value our own parsers read; their errors become usage errors that name the flag. `repeats`: each time it
// is given adds to it, else the last one counts.
CLI::Option* add_parsed(CLI::App& verb, const std::string& flag, const char* value, const std::string& help,
                        const char* group, const std::function<void(const std::string&)>& parse, bool repeats = false);

void add_model_options(CLI::App& verb, EngineOptions& engine);  // --model --scheme --kv --threads
void add_common_options(CLI::App& verb, CommonOptions& options);
// A verb that neither reads a prompt nor samples takes these flags all the same, so that a command line may change its
// verb, but its help does not list them...
void hide_unused(CLI::App& verb);
// ... and standard error tells which were given in vain.
void note_unused(const CLI::App& verb);

// An engine and the progress bar its callbacks write to.
struct OpenEngine {
  std::unique_ptr<ProgressBar> bar;
  std::unique_ptr<Engine> engine;
  Engine* operator->() const { return engine.get(); }
  Engine& operator*() const { return *engine; }
};
OpenEngine open_engine(const CommonOptions& options);

// --model, or the default model if it is there; Error says how to get it.
std::string model_path(const std::string& given);
inline std::string model_path(const CommonOptions& options) { return model_path(options.engine.model); }

// $variable, else ~/fallback; then /quire/name.
std::string user_file(const char* variable, const char* fallback, const char* name);
std::string read_input_file(const std::string& path);  // "-": standard input

}  // namespace quire
