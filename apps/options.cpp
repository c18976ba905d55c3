#include "apps/options.h"

#include <cstdlib>
#include <filesystem>
#include <limits>

#include "apps/interrupt.h"
#include "apps/numbers.h"
#include "base/mapped_file.h"
#include "models/dummy.h"

namespace quire {

namespace {

constexpr const char* kDefaultModel = "SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr const char *kModelGroup = "Model", *kPromptGroup = "Prompt", *kSamplingGroup = "Sampling",
                     *kOutputGroup = "Output";

void add_settings(CLI::App& verb, GenerationSettings& settings) {
  for (const Setting& setting : all_settings()) {
    add_parsed(
        verb, std::string("--") + setting.name, setting.value, setting.help, kSamplingGroup,
        [&settings, &setting](const std::string& text) { setting.set(settings, text); }, setting.repeats);
  }
}

void add_limits(CLI::App& verb, EngineOptions& engine) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  verb.add_option("--device", engine.device, "auto, cpu, cuda or cuda:N (default: auto, a GPU if there is one)")
      ->type_name("NAME")
      ->group(kModelGroup);
  verb.add_flag("--deterministic", engine.deterministic,
                "the same answer whatever else runs; slower on a GPU, no change on the CPU")
      ->group(kModelGroup);
  verb.add_flag("--eager", engine.eager, "on a GPU: no graphs, no step ahead of its results; to find bugs")
      ->group(kModelGroup);
  add_parsed(verb, "--dummy", "CONFIG",
             "random weights of a config.json, or of " + known_config_names() + " (default: a real model)", kModelGroup,
             [&engine](const std::string& text) {
               engine.model = text;
               engine.dummy = true;
             });
  add_parsed(verb, "--context,--max-context,-c", "TOKENS", "most tokens of a conversation (default: the model's)",
             kModelGroup,
             [&engine](const std::string& text) { engine.context = parse_number<int64_t>("context", text, 1, kMost); });
  add_parsed(
      verb, "--max-batch", "N", "sequences at once, which the cache is planned for (default 1)", kModelGroup,
      [&engine](const std::string& text) { engine.max_batch = parse_number<int64_t>("max-batch", text, 1, 4096); });
  add_parsed(verb, "--memory-limit", "SIZE",
             "weights, scratch and cache together: 2G, 500M (default: 90 % of what is free)", kModelGroup,
             [&engine](const std::string& text) {
               engine.memory_limit = parse_bytes("memory-limit", text);
               check(engine.memory_limit > 0, "memory-limit: '{}' is nothing", text);
             });
}

}  // namespace

CLI::Option* add_parsed(CLI::App& verb, const std::string& flag, const char* value, const std::string& help,
                        const char* group, const std::function<void(const std::string&)>& parse, bool repeats) {
  auto run = [flag, parse](const std::vector<std::string>& texts) {
    try {
      for (const std::string& text : texts) parse(text);
    } catch (const Error& error) {
      throw CLI::ValidationError(flag, error.what());
    }
  };
  CLI::Option* option = verb.add_option_function<std::vector<std::string>>(flag, run, help);
  option->type_name(value)->group(group)->allow_extra_args(false);
  return repeats ? option->take_all() : option->take_last();
}

void add_model_options(CLI::App& verb, EngineOptions& engine) {
  verb.add_option("--model,-m", engine.model, "a .gguf file or a model directory (default: the fetched model)")
      ->type_name("PATH")
      ->group(kModelGroup);
  add_parsed(verb, "--scheme", "WORDS", "how to quantize: w8a8kv8, w4a16, f32 ... (default: the model's own formats)",
             kModelGroup, [&engine](const std::string& text) {
               parse_scheme(text);
               engine.scheme = text;
             });
  add_parsed(verb, "--kv", "WORD", "the cache's format alone: kv8, kv4, kv2, f16 ... (default: the scheme's)",
             kModelGroup, [&engine](const std::string& text) {
               parse_kv(text);
               engine.kv = text;
             });
  add_parsed(verb, "--threads,-t", "N", "threads (default: all cores)", kModelGroup,
             [&engine](const std::string& text) { engine.threads = parse_number<int>("threads", text, 1, 1024); });
}

void add_common_options(CLI::App& verb, CommonOptions& options) {
  options.engine.max_batch = 1;  // requests come one after the other: on a GPU room for more would be taken for nothing
  add_model_options(verb, options.engine);
  add_limits(verb, options.engine);
  verb.add_option("--prompt,-p", options.prompt, "the text to answer or to continue")
      ->type_name("TEXT")
      ->group(kPromptGroup);
  verb.add_flag("--chat", options.chat, "put the prompt into the model's chat template (what `chat` always does)")
      ->group(kPromptGroup);
  verb.add_option("--system", options.system, "system message of a chat")->type_name("TEXT")->group(kPromptGroup);
  add_settings(verb, options.generation);
  verb.add_flag("--json", options.json, "print one JSON object, last on standard output")->group(kOutputGroup);
  verb.add_flag("--quiet,-q", options.quiet, "no progress, notes or statistics")->group(kOutputGroup);
  verb.set_help_flag("--help,-h", "this text")->group(kOutputGroup);
}

void hide_unused(CLI::App& verb) {
  for (CLI::Option* option : verb.get_options()) {
    if (option->get_group() == kPromptGroup || option->get_group() == kSamplingGroup) option->group("");
  }
}

void note_unused(const CLI::App& verb) {
  for (const CLI::Option* option : verb.get_options()) {
    if (option->count() > 0 && option->get_group().empty())
      note(fmt::format("{} has no effect on `{}`", option->get_name(), verb.get_name()));
  }
}

std::string user_file(const char* variable, const char* fallback, const char* name) {
  namespace fs = std::filesystem;
  const char* set = std::getenv(variable);
  const char* home = std::getenv("HOME");
  const fs::path base = set && *set ? fs::path(set) : fs::path(home ? home : "") / fallback;
  return (base / "quire" / name).string();
}

std::string model_path(const std::string& given) {
  if (!given.empty()) return given;
  const std::string path = user_file("XDG_CACHE_HOME", ".cache", kDefaultModel);
  check(std::filesystem::exists(path),
        "no --model was given, and the default model is not at '{}'. ./tools/fetch-model.sh fetches it", path);
  return path;
}

OpenEngine open_engine(const CommonOptions& options) {
  OpenEngine opened;
  opened.bar = std::make_unique<ProgressBar>(options.quiet);
  EngineOptions engine = options.engine;
  if (!engine.dummy) engine.model = model_path(options);
  engine.progress = opened.bar->sink();
  engine.log = opened.bar->log();
  try {
    opened.engine = Engine::open(std::move(engine));
  } catch (const Error&) {
    if (interrupted()) throw Interrupted();
    throw;
  }
  opened.bar->clear();
  return opened;
}

std::string read_input_file(const std::string& path) {
  constexpr size_t kMostBytes = size_t{1} << 32;
  return path == "-" ? read_stdin() : read_text_file(path, kMostBytes);
}

}  // namespace quire
