// `quire bench`: llama-bench's options and rows.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "apps/bench_table.h"
#include "apps/interrupt.h"
#include "apps/numbers.h"
#include "apps/options.h"
#include "apps/verbs.h"
#include "base/bandwidth.h"
#include "base/cuda/build.h"
#include "base/machine.h"
#include "base/parallel.h"
#include "base/printable.h"
#include "kernels/cuda/ceilings.h"
#include "models/dummy.h"

namespace quire {

namespace {

constexpr const char* kTests = "Tests";
constexpr const char* kExamples = R"(Examples:
  quire bench                                       pp512 and tg128, five times each
  quire bench --scheme f16,w8a8,w4a8 -n 0           prompts only, in three schemes
  quire bench --kv f16,kv8,kv4 -d 0,2048 -o jsonl   caches, at the beginning and in the depth of a context
  quire bench -t 1-8*2 -p 512 -n 64 -r 3            1, 2, 4 and 8 threads
  quire bench -p 0 -d 2048 --profile                where the time of a step of generation goes
  quire bench -npl 1,4,16 -p 1024 -n 64             throughput of several sequences at once
  quire bench --dummy llama-3-8b --scheme w4a8kv4   random weights of any size
Lists (a,b) and ranges (a-b, a-b+step, a-b*factor) may be mixed; every combination is run. ppN: N prompt tokens; tgN: N
greedy steps of generation; @ dN: after N tokens of context, which are not timed.)";

using Numbers = std::vector<int64_t>;
using Words = std::vector<std::string>;

struct BenchModel {
  std::string path;    // of a configuration, or its name, if it is a dummy
  bool dummy = false;  // random weights
};

struct BenchOptions {
  std::vector<BenchModel> models;
  Words schemes, caches;
  Numbers prompts, generated, depths, batches, threads, sequences;
  std::vector<std::pair<int64_t, int64_t>> both;  // prompt and answer
  int64_t repetitions = 5, memory_limit = 0;
  std::string device;
  bool deterministic = false, eager = false, no_warmup = false, profile = false, json = false, quiet = false;
  BenchFormat format = BenchFormat::md;
};

// What one engine is opened for.
struct Setup {
  BenchModel model;
  std::string scheme, kv;
  int64_t batch, threads;
};

std::vector<BenchTest> tests_of(const BenchOptions& o) {
  std::vector<BenchTest> tests;
  for (const int64_t depth : o.depths) {
    for (const int64_t n : o.sequences) {
      for (const int64_t p : o.prompts) tests.push_back({p, 0, depth, n});
      for (const int64_t g : o.generated) tests.push_back({0, g, depth, n});
      for (const auto& [p, g] : o.both) tests.push_back({p, g, depth, n});
    }
  }
  std::erase_if(tests, [](const BenchTest& t) { return t.prompt + t.generated == 0; });
  check(!tests.empty(), "bench: -p 0 and -n 0 leave nothing to measure; such as -p 512 -n 128");
  return tests;
}

std::vector<Setup> setups_of(const BenchOptions& o) {
  std::vector<Setup> setups;
  for (const BenchModel& model : o.models) {
    for (const std::string& scheme : o.schemes) {
      for (const std::string& kv : o.caches) {
        for (const int64_t batch : o.batches) {
          for (const int64_t threads : o.threads) setups.push_back({model, scheme, kv, batch, threads});
        }
      }
    }
  }
  return setups;
}

// Before anything is measured: whether the models can hold every test.
void check_tests(const BenchOptions& o, const std::vector<BenchTest>& tests) {
  const int64_t batch = *std::min_element(o.batches.begin(), o.batches.end());
  for (const BenchModel& model : o.models) {
    if (model.dummy) continue;  // its positions are as good as any others
    const int64_t context = Checkpoint::open(model.path).config().context;
    for (const BenchTest& t : tests) {
      const int64_t needed = t.context(batch), most = context - needed + t.depth;
      check(needed <= context, "bench: '{}' needs a context of {} tokens, and '{}' was made for {}; {}", t.name(),
            needed, model.path, context,
            most >= 0 ? fmt::format("the depth (-d) can be at most {} with it", most)
                      : std::string("fewer tokens (-p, -n) are needed"));
    }
  }
}

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

int64_t parameters(const Checkpoint& checkpoint) {
  int64_t values = 0;
  for (const CheckpointTensor& t : checkpoint.list()) values += t.tensor.rows * t.tensor.cols;
  return values;
}

// `before`: the engine of the setup before, or null. Its weights are kept where they are the same.
std::unique_ptr<Engine> open_for(const Setup& setup, const std::vector<BenchTest>& tests, const BenchOptions& options,
                                 ProgressBar& bar, std::unique_ptr<Engine> before) {
  EngineOptions engine;
  engine.model = setup.model.path;
  engine.dummy = setup.model.dummy;
  engine.scheme = setup.scheme;
  engine.kv = setup.kv;
  engine.threads = int(setup.threads);
  engine.chunk = setup.batch;
  engine.memory_limit = options.memory_limit;
  engine.device = options.device;
  engine.deterministic = options.deterministic;
  engine.eager = options.eager;
  engine.max_batch = 1;
  engine.progress = bar.sink();
  engine.log = bar.log();
  for (const BenchTest& t : tests) {
    engine.max_batch = std::max(engine.max_batch, t.sequences);
    for (const int64_t batch : options.batches) engine.context = std::max(engine.context, t.context(batch));
    engine.cache_tokens = std::max(engine.cache_tokens, t.cache_tokens(setup.batch));
  }
  try {
    if (!before) reset_peak_memory();
    const bool weights_are_there = before != nullptr;
    std::unique_ptr<Engine> opened =
        weights_are_there ? Engine::open_after(std::move(before), std::move(engine)) : Engine::open(std::move(engine));
    if (weights_are_there) reset_peak_memory();  // the peak is this engine's alone
    return opened;
  } catch (const Error&) {
    if (interrupted()) throw Interrupted();
    throw;
  }
}

BenchRow row_of(const Setup& setup, const Engine& engine) {
  BenchRow row;
  row.model_filename = setup.model.path;
  row.model = printable(engine.config().name);
  row.device = engine.device();
  row.kv = engine.scheme().kv.name;
  row.scheme = engine.scheme().name;  // "w8a8kv4"; the cache has a column of its own
  const size_t cache = row.scheme.rfind(row.kv);
  if (cache != std::string::npos) row.scheme.resize(cache);
  if (row.scheme.empty()) row.scheme = "own";
  row.memory = engine.memory();
  row.size = row.memory.weights;
  row.params = parameters(engine.checkpoint());
  row.threads = engine.threads();
  row.n_batch = setup.batch;
  return row;
}

// A line below the table for each engine: what was planned, and what it came to.
std::string memory_text(const BenchRow& row) {
  const MemoryPlan& m = row.memory;
  return fmt::format(
      "memory, {} {}: weights {} + cache {} + scratch {} = {}; resident at most {} (before loading {})\n", row.scheme,
      row.kv, bytes_text(m.weights), bytes_text(m.cache), bytes_text(m.scratch), bytes_text(m.total()),
      bytes_text(row.memory_peak), bytes_text(m.before));
}

// As fast as memory as large as what a step reads can be read by as many threads; or what the GPU can do.
Peaks peaks_for(const BenchRow& row) {
  if constexpr (kCuda) {
    if (row.device != "cpu") {
      const int callers = cuda::current_device();
      cuda::use_device(std::atoi(row.device.c_str() + std::strlen("cuda:")));
      const cuda::Ceilings c = cuda::measure_ceilings(nullptr);
      cuda::use_device(callers);
      return {c.read, c.read_bytes, 0, c.f16, c.int8, c.e4m3};
    }
  }
  ThreadPool pool(row.threads);
  const int64_t bytes = std::max<int64_t>(row.memory.weights, 1 << 20);
  return {read_bandwidth(pool, bytes), bytes, row.threads, 0, 0, 0};
}

// One more run, observed; on a GPU, where that is op by op, beside the time of steps that were not.
BenchProfile profile_of(Bench& bench, const BenchRow& row, const Peaks& peaks) {
  Profile profile;
  const BenchSample sample = bench.run(row.test, &profile);
  BenchProfile p{sample.seconds, sample.steps, profile.totals(), profile.steps(), peaks};
  if (row.device != "cpu") {
    double seconds = 0.0, steps = 0.0;
    for (const BenchSample& s : row.samples) seconds += s.seconds, steps += double(s.steps);
    p.seconds = seconds / steps * double(sample.steps);
  }
  return p;
}

int run_bench(const BenchOptions& options) {
  const std::vector<BenchTest> tests = tests_of(options);
  check_tests(options, tests);
  const std::vector<Setup> setups = setups_of(options);
  ProgressBar bar(options.quiet || !stderr_is_terminal());
  const BenchFormat format = options.json ? BenchFormat::json : options.format;
  const bool md = format == BenchFormat::md;
  BenchPrinter printer(format);
  std::string below;  // the table comes row by row; what explains it, after it
  const int64_t total = int64_t(setups.size() * tests.size()) * options.repetitions;
  int64_t done = 0;
  std::unique_ptr<Engine> engine;
  const Setup* last = nullptr;
  for (const Setup& setup : setups) {
    if (last && (setup.model.path != last->model.path || setup.model.dummy != last->model.dummy ||
                 setup.scheme != last->scheme))
      engine.reset();
    engine = open_for(setup, tests, options, bar, std::move(engine));
    last = &setup;
    Bench bench(*engine);
    BenchRow row = row_of(setup, *engine);
    const int64_t loading_peak = process_memory().peak;
    const Peaks peaks = options.profile ? peaks_for(row) : Peaks{};
    reset_peak_memory();  // the buffer that was read is none of the engine's
    for (const BenchTest& test : tests) {
      row.test = test;
      row.test_time = utc_now();
      row.samples.clear();
      const std::string what = fmt::format("{}, cache {}: {}", row.scheme, row.kv, test.name());
      bar.update(what, done, total);
      if (!options.no_warmup) bench.warm_up(test);
      for (int64_t r = 0; r < options.repetitions; ++r) {
        bar.update(what, done++, total);
        row.samples.push_back(bench.run(test));
      }
      row.memory_peak = std::max(loading_peak, process_memory().peak);
      if (options.profile) {
        row.profile = profile_of(bench, row, peaks);
        if (md) below += "\n" + profile_md(*row.profile, fmt::format("{}, {} {}", test.name(), row.scheme, row.kv));
      }
      bar.clear();
      write_out(printer.row(row));
    }
    if (md) below += "\n" + memory_text(row);
  }
  write_out(printer.end() + below);
  return kExitOk;
}

std::pair<int64_t, int64_t> parse_pair(const std::string& text) {
  const std::vector<std::string> parts = split(text, ',');
  check(parts.size() == 2, "pg: '{}' is not PROMPT,GENERATED, such as 512,128", text);
  return {parse_number<int64_t>("pg", parts[0], 1, 1 << 30), parse_number<int64_t>("pg", parts[1], 1, 1 << 30)};
}

template <class T>
void append(std::vector<T>& list, const std::vector<T>& more) {
  list.insert(list.end(), more.begin(), more.end());
}

void add_numbers(CLI::App& app, const std::string& flags, const std::string& help, const char* group, Numbers& target,
                 int64_t least, int64_t most) {
  const std::string name = flags.substr(2, flags.find(',') - 2);
  add_parsed(
      app, flags, "LIST", help, group,
      [name, &target, least, most](const std::string& text) { append(target, parse_numbers(name, text, least, most)); },
      true);
}

void add_lists(CLI::App& app, BenchOptions& o) {
  constexpr int64_t kMost = 1 << 30;
  const char* group = "Model";
  add_parsed(
      app, "--model,-m", "LIST", "model files or directories (default: the fetched model)", group,
      [&o](const std::string& text) {
        for (const std::string& path : std::filesystem::exists(text) ? Words{text} : split(text, ','))
          o.models.push_back({path, false});
      },
      true);
  add_parsed(
      app, "--dummy", "LIST",
      "random weights of a config.json, or of " + known_config_names() + " (default: a real model)", group,
      [&o](const std::string& text) {
        for (const std::string& config : split(text, ',')) o.models.push_back({config, true});
      },
      true);
  add_parsed(
      app, "--scheme", "LIST", "schemes: f16,w8a8,w4a8 ... (default: the model's own formats)", group,
      [&o](const std::string& text) {
        for (const std::string& word : split(text, ',')) parse_scheme(word);
        append(o.schemes, split(text, ','));
      },
      true);
  add_parsed(
      app, "--kv", "LIST", "cache formats: f16,kv8,kv4,kv2 ... (default: the scheme's)", group,
      [&o](const std::string& text) {
        for (const std::string& word : split(text, ',')) parse_kv(word);
        append(o.caches, split(text, ','));
      },
      true);
  add_numbers(app, "--threads,-t", "threads (default: all cores)", group, o.threads, 1, 1024);
  add_parsed(app, "--memory-limit", "SIZE",
             "weights, scratch and cache together: 2G, 500M (default: 90 % of what is free)", group,
             [&o](const std::string& text) { o.memory_limit = parse_bytes("memory-limit", text); });
  app.add_option("--device", o.device, "auto, cpu, cuda or cuda:N (default: auto, a GPU if there is one)")
      ->type_name("NAME")
      ->group(group);
  app.add_flag("--deterministic", o.deterministic,
               "the same answer whatever else runs; slower on a GPU, no change on the CPU")
      ->group(group);
  app.add_flag("--eager", o.eager, "on a GPU: no graphs, no step ahead of its results")->group(group);
  add_numbers(app, "--n-prompt,-p", "prompt tokens; 0: no such test (default 512)", kTests, o.prompts, 0, kMost);
  add_numbers(app, "--n-gen,-n", "generated tokens; 0: no such test (default 128)", kTests, o.generated, 0, kMost);
  add_parsed(
      app, "--pg", "P,N", "a prompt of P tokens and an answer of N, timed together (also -pg)", kTests,
      [&o](const std::string& text) { o.both.push_back(parse_pair(text)); }, true);
  add_numbers(app, "--n-depth,-d", "tokens of context before the test, not timed (default 0)", kTests, o.depths, 0,
              kMost);
  add_numbers(app, "--batch-size,-b", "prompt tokens a step (default 512)", kTests, o.batches, 1, 1 << 16);
  add_numbers(app, "--sequences,--npl", "sequences at once, each as long; t/s is of all (default 1; also -npl)", kTests,
              o.sequences, 1, 4096);
}

void set_defaults(BenchOptions& o) {
  const auto unless_given = [](auto& list, auto value) {
    if (list.empty()) list.push_back(value);
  };
  if (o.models.empty()) o.models.emplace_back();
  for (BenchModel& model : o.models) {
    if (!model.dummy) model.path = model_path(model.path);
  }
  unless_given(o.schemes, std::string());
  unless_given(o.caches, std::string());
  unless_given(o.prompts, 512);
  unless_given(o.generated, 128);
  unless_given(o.depths, 0);
  unless_given(o.batches, 512);
  unless_given(o.threads, hardware_threads());
  unless_given(o.sequences, 1);
}

}  // namespace

Verb add_bench(CLI::App& program) {
  CLI::App* app = program.add_subcommand("bench", "how fast a model runs");
  const auto options = std::make_shared<BenchOptions>();
  add_lists(*app, *options);
  add_parsed(*app, "--repetitions,-r", "N", "times each test is run (default 5)", kTests,
             [options](const std::string& text) {
               options->repetitions = parse_number<int64_t>("repetitions", text, 1, 1'000'000);
             });
  app->add_flag("--profile", options->profile, "where the time of a step goes, op by op")->group("Output");
  app->add_flag("--no-warmup", options->no_warmup, "time the first run too")->group(kTests);
  add_parsed(*app, "--output,-o", "FORMAT", "md (default), csv, json or jsonl", "Output",
             [options](const std::string& text) { options->format = parse_bench_format(text); });
  app->add_flag("--json", options->json, "the same as -o json")->group("Output");
  app->add_flag("--quiet,-q", options->quiet, "no progress or notes")->group("Output");
  app->set_help_flag("--help,-h", "this text")->group("Output");
  app->footer(kExamples);
  return {app, [options] {
            if (options->profile && !options->json && options->format == BenchFormat::csv)
              throw CLI::ValidationError("--profile", "does not fit a line of csv; -o md, json or jsonl");
            set_defaults(*options);
            return run_bench(*options);
          }};
}

}  // namespace quire
