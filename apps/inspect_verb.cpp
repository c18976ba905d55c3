// `quire inspect`: what is in a model file, and how it would run.
#include <algorithm>
#include <map>

#include "apps/answer.h"
#include "apps/interrupt.h"
#include "apps/machine_report.h"
#include "apps/numbers.h"
#include "apps/verbs.h"
#include "base/machine.h"
#include "models/dummy.h"
#include "models/rope_scaling.h"

namespace quire {

namespace {

constexpr const char* kExamples = R"(Examples:
  quire inspect -m model.gguf
  quire inspect --scheme w8a8kv4 --memory-limit 2G    what runs, and what fits
  quire inspect --tensors --json
  quire inspect --dummy llama-3-8b --scheme w4a8kv4    what a model of that size would take
  quire inspect --machine                             what this machine and this build can do)";

struct InspectOptions {
  CommonOptions common;
  bool tensors = false, machine = false;
};

struct FormatGroup {
  int64_t tensors = 0, values = 0, bytes = 0, outliers = 0;
  std::map<std::string, int64_t> parts = {};  // "down_proj": how many of them
  double bits_per_weight() const { return values > 0 ? 8.0 * double(bytes) / double(values) : 0.0; }
};

struct Contents {
  std::map<std::string, FormatGroup> formats;
  FormatGroup all;
};

// "model.layers.3.mlp.down_proj.weight": "down_proj".
std::string part_name(const std::string& name) {
  const std::string all = name.substr(0, name.rfind('.'));
  return all.substr(all.rfind('.') + 1);
}

int64_t bytes_of(const CheckpointTensor& t) {
  return tensor_bytes(format_of(t.tensor), t.tensor.rows, t.tensor.cols) + sparse_bytes(t.tensor.rows, t.outliers);
}

Contents contents_of(const Checkpoint& checkpoint) {
  Contents contents;
  for (const CheckpointTensor& t : checkpoint.list()) {
    for (FormatGroup* group : {&contents.formats[to_string(format_of(t.tensor))], &contents.all}) {
      group->tensors += 1;
      group->values += t.tensor.rows * t.tensor.cols;
      group->bytes += bytes_of(t);
      group->outliers += t.outliers;
      group->parts[part_name(t.name)] += 1;
    }
  }
  return contents;
}

// context: of this run.
std::string rope_scaling_text(const RopeScaling& s, int64_t context) {
  using Kind = RopeScaling::Kind;
  switch (s.kind) {
    case Kind::none:
      return "none";
    case Kind::linear:
      return fmt::format("linear by {}", s.factor);
    case Kind::llama3:
      return fmt::format("llama3 by {} from {} tokens", s.factor, s.original_context);
    case Kind::yarn:
      return fmt::format("yarn by {} from {} tokens", s.factor, s.original_context);
    case Kind::factors:
      if (s.short_factors == s.long_factors) return "factors";
      return fmt::format("LongRoPE, the {} factors; --context above {} tokens uses the long ones",
                         context > s.original_context ? "long" : "short", s.original_context);
  }
  return "unknown";
}

std::string window_text(const ModelConfig& c) {
  int64_t windowed = 0;
  for (int64_t layer = 0; layer < c.layers; ++layer) windowed += c.window_of(layer) > 0;
  return windowed == 0 ? "none" : fmt::format("{} tokens in {} of {} layers", c.window, windowed, c.layers);
}

std::vector<std::pair<std::string, std::string>> config_rows(const ModelConfig& c, int64_t context) {
  const auto n = [](int64_t value) { return std::to_string(value); };
  return {{"family", c.family},
          {"name", c.name},
          {"layers", n(c.layers)},
          {"hidden", n(c.hidden)},
          {"ffn", n(c.ffn)},
          {"heads", n(c.heads)},
          {"kv_heads", n(c.kv_heads)},
          {"head_dim", n(c.head_dim)},
          {"vocab", n(c.vocab)},
          {"context", n(c.context)},
          {"rope_dim", n(c.rope_dim)},
          {"rope_theta", fmt::format("{}", c.rope_theta)},
          {"rope_scaling", rope_scaling_text(c.rope_scaling, context > 0 ? context : usual_context(c))},
          {"window", window_text(c)},
          {"norm_eps", fmt::format("{}", c.norm_eps)},
          {"tied_embeddings", c.tied_embeddings ? "yes" : "no"}};
}

std::vector<std::pair<std::string, std::string>> stored_rows(const Scheme& s) {
  return {{"weights", to_string(s.weight)},
          {"embedding", to_string(s.embedding)},
          {"activations", to_string(s.activation)},
          {"cache", s.kv.name}};
}

std::string cut(const std::string& text) {
  constexpr size_t kMost = 100;
  std::string line = harmless(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  if (line.size() <= kMost) return line;
  size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80) --end;  // whole characters
  return line.substr(0, end) + "...";
}

// context: that was asked for; 0: the usual one.
void print_file(const Checkpoint& checkpoint, const Contents& contents, bool tensors, int64_t context) {
  std::string out = fmt::format("Model ({})\n", checkpoint.container());
  for (const auto& [key, value] : config_rows(checkpoint.config(), context))
    out += fmt::format("  {:<16} {}\n", key, cut(value));
  if (const std::optional<Scheme>& stored = checkpoint.stored_scheme(); stored && stored->native) {
    out += fmt::format("Made for the cache {} ({} static scales)\n", stored->kv.name, checkpoint.cache_scales().size());
  } else if (stored) {
    out += fmt::format("Quantized by `quire quantize` (scheme {})\n", stored->name);
    for (const auto& [key, value] : stored_rows(*stored)) out += fmt::format("  {:<16} {}\n", key, value);
  }
  out += "Metadata\n";
  for (const auto& [key, value] : checkpoint.metadata()) out += fmt::format("  {:<44} {}\n", cut(key), cut(value));
  out += fmt::format("Tensors: {}, {} values, {}, {:.3f} bits a weight\n", contents.all.tensors, contents.all.values,
                     bytes_text(contents.all.bytes), contents.all.bits_per_weight());
  for (const auto& [format, group] : contents.formats) {
    std::string parts;
    for (const auto& [part, count] : group.parts)
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", harmless(part), count);
    if (group.outliers > 0) {
      parts += fmt::format("; with {} outliers in f16 ({:.2f} %)", group.outliers,
                           100.0 * double(group.outliers) / double(group.values));
    }
    out += fmt::format("  {:<16} {:>5} tensors {:>14} values {:>12} {:>7.3f} bits  {}\n", format, group.tensors,
                       group.values, bytes_text(group.bytes), group.bits_per_weight(), parts);
  }
  if (tensors) {
    for (const CheckpointTensor& t : checkpoint.list())
      out += fmt::format("  {:<52} {:<28} {}\n", t.name, describe(t.tensor), t.source_name);
  }
  write_out(out);
}

void print_run(const Engine& engine) {
  const MemoryPlan m = engine.memory();
  std::string out = fmt::format("As it runs on {} (scheme {}, cache {}, {} threads)\n", engine.device(),
                                engine.scheme().name.empty() ? "own" : engine.scheme().name, engine.scheme().kv.name,
                                engine.threads());
  for (const std::string& line : engine.description()) out += fmt::format("  {}\n", line);
  out +=
      fmt::format("Memory\n  weights {}, scratch {}{}, cache {} of {} a token: {} tokens; together {} of at most {}\n",
                  bytes_text(m.weights), bytes_text(m.scratch), m.graphs > 0 ? ", graphs " + bytes_text(m.graphs) : "",
                  bytes_text(m.cache), bytes_text(m.bytes_per_token), m.cache_tokens, bytes_text(m.total()),
                  m.limit > 0 ? bytes_text(m.limit) : "what is free");
  const ProcessMemory now = process_memory();
  out += fmt::format("  resident {} (before loading: {}), at most {} so far; untouched cache takes none\n",
                     bytes_text(now.resident), bytes_text(m.before), bytes_text(now.peak));
  write_out(out);
}

nlohmann::json inspect_json(const Engine& engine, const Contents& contents, bool tensors) {
  const Checkpoint& checkpoint = engine.checkpoint();
  nlohmann::json object = engine_json(engine);
  object["container"] = checkpoint.container();
  auto& config = object["config"] = nlohmann::json::object();
  for (const auto& [key, value] : config_rows(checkpoint.config(), engine.context())) config[key] = value;
  auto& metadata = object["metadata"] = nlohmann::json::object();
  for (const auto& [key, value] : checkpoint.metadata()) metadata[key] = value;
  if (const std::optional<Scheme>& stored = checkpoint.stored_scheme(); stored && stored->native) {
    object["made_for_cache"] = stored->kv.name;
  } else if (stored) {
    auto& quantized = object["quantized"] = {{"scheme", stored->name}};
    for (const auto& [key, value] : stored_rows(*stored)) quantized[key] = value;
  }
  auto& formats = object["formats"] = nlohmann::json::object();
  for (const auto& [format, group] : contents.formats)
    formats[format] = {{"tensors", group.tensors},
                       {"values", group.values},
                       {"bytes", group.bytes},
                       {"outliers", group.outliers},
                       {"bits_per_weight", group.bits_per_weight()},
                       {"parts", group.parts}};
  object["parameters"] = contents.all.values;
  object["bytes"] = contents.all.bytes;
  object["bits_per_weight"] = contents.all.bits_per_weight();
  object["description"] = engine.description();
  object["context"] = engine.context();
  object["threads"] = engine.threads();
  object["device"] = engine.device();
  const MemoryPlan m = engine.memory();
  const ProcessMemory now = process_memory();
  object["memory"] = {{"weights", m.weights},
                      {"scratch", m.scratch},
                      {"cache", m.cache},
                      {"graphs", m.graphs},
                      {"cache_tokens", m.cache_tokens},
                      {"limit", m.limit},
                      {"bytes_per_token", m.bytes_per_token},
                      {"resident_before", m.before},
                      {"resident", now.resident},
                      {"resident_peak", now.peak}};
  if (!tensors) return object;
  auto& list = object["tensors"] = nlohmann::json::array();
  for (const CheckpointTensor& t : checkpoint.list())
    list.push_back({{"name", t.name},
                    {"source_name", t.source_name},
                    {"format", to_string(format_of(t.tensor))},
                    {"shape", {t.tensor.rows, t.tensor.cols}},
                    {"bytes", bytes_of(t)}});
  return object;
}

int run_machine(const CommonOptions& options) {
  const nlohmann::ordered_json report = machine_json(options.engine.threads);
  write_out(options.json ? report.dump() + "\n" : machine_text(report));
  return kExitOk;
}

int run_inspect(InspectOptions options) {
  if (options.machine) return run_machine(options.common);
  EngineOptions& engine = options.common.engine;
  engine.plan_only = engine.dummy;  // there is nothing to be seen in it
  if (!options.common.json) {
    // The file is shown even if nothing can run it, for want of a tokenizer say.
    const Checkpoint checkpoint =
        engine.dummy ? open_dummy(engine.model, engine.context) : Checkpoint::open(model_path(options.common), false);
    print_file(checkpoint, contents_of(checkpoint), options.tensors, engine.context);
  }
  const OpenEngine opened = open_engine(options.common);
  if (options.common.json) {
    print_json(inspect_json(*opened, contents_of(opened->checkpoint()), options.tensors));
  } else {
    print_run(*opened);
  }
  return kExitOk;
}

}  // namespace

Verb add_inspect(CLI::App& program) {
  CLI::App* app = program.add_subcommand("inspect", "what is in a model, and how it would run");
  const auto options = std::make_shared<InspectOptions>();
  add_common_options(*app, options->common);
  hide_unused(*app);
  app->add_flag("--tensors", options->tensors, "list every tensor")->group("Output");
  app->add_flag("--machine", options->machine, "this machine instead: instruction set, cores, memory bandwidth, GPU")
      ->group("Output");
  app->footer(kExamples);
  return {app, [app, options] {
            note_unused(*app);
            return run_inspect(*options);
          }};
}

}  // namespace quire
