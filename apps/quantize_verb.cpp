// `quire quantize`: a model in other weight formats, as a directory that every verb opens.
#include "apps/answer.h"
#include "apps/interrupt.h"
#include "apps/numbers.h"
#include "apps/verbs.h"
#include "models/offline/write.h"

namespace quire {

namespace {

constexpr const char* kExamples = R"(Examples:
  quire quantize --scheme w4a8 --output SmolLM2-w4a8
  quire quantize -m model.gguf --scheme w8a8kv8 -o model-w8a8
  quire chat -m model-w8a8                         runs with the scheme and the cache it was made for
An interrupted run leaves OUTPUT.partial; the same command goes on where it stopped.)";

struct QuantizeOptions {
  CommonOptions common;
  std::string output;
  int64_t shard_bytes = WriteOptions().shard_bytes;
  bool force = false;
};

void print_result(const QuantizeOptions& options, const Scheme& scheme, const WriteResult& result) {
  if (options.common.json) {
    return print_json({{"output", options.output},
                       {"scheme", scheme.name},
                       {"weights", to_string(scheme.weight)},
                       {"embedding", to_string(scheme.embedding)},
                       {"tensors", result.tensors},
                       {"files", result.files},
                       {"resumed_files", result.resumed_files},
                       {"bytes", result.bytes}});
  }
  write_out(fmt::format("{}: {} tensors, {}, weights {}, embedding and head {}\n", options.output, result.tensors,
                        bytes_text(result.bytes), to_string(scheme.weight), to_string(scheme.embedding)));
}

int run_quantize(const QuantizeOptions& options) {
  const EngineOptions& engine = options.common.engine;
  ProgressBar bar(options.common.quiet);
  WriteOptions write;
  write.source = model_path(options.common);
  write.output = options.output;
  write.force = options.force;
  write.shard_bytes = options.shard_bytes;
  write.progress = bar.sink();
  write.log = bar.log();
  const Checkpoint checkpoint = Checkpoint::open(write.source);
  const Scheme scheme = parse_scheme(engine.scheme, engine.kv);
  ThreadPool pool(engine.threads > 0 ? engine.threads : hardware_threads());
  Scratch scratch;
  Context ctx;
  ctx.pool = &pool;
  ctx.scratch = &scratch;
  try {
    const WriteResult result = write_quantized(ctx, checkpoint, scheme, write);
    bar.clear();
    print_result(options, scheme, result);
  } catch (const Error& error) {
    if (!interrupted()) throw;
    bar.clear();
    note(error.what());
    throw Interrupted();
  }
  return kExitOk;
}

}  // namespace

Verb add_quantize(CLI::App& program) {
  CLI::App* app = program.add_subcommand("quantize", "write a model in other weight formats");
  const auto options = std::make_shared<QuantizeOptions>();
  add_model_options(*app, options->common.engine);
  app->get_option("--scheme")->required();
  app->get_option("--kv")->description("the cache it will run with unless told otherwise (default: the scheme's)");
  app->add_option("--output,-o", options->output, "the directory to make")
      ->type_name("DIR")
      ->group("Output")
      ->required();
  add_parsed(*app, "--shard-size", "SIZE", "most weights of a file: 500M, 5G ... (default 256M)", "Output",
             [options](const std::string& text) {
               options->shard_bytes = parse_bytes("shard-size", text);
               check(options->shard_bytes > 0, "shard-size: '{}' is nothing", text);
             });
  app->add_flag("--force", options->force, "replace a directory that quantize wrote")->group("Output");
  app->add_flag("--json", options->common.json, "print one JSON object, last on standard output")->group("Output");
  app->add_flag("--quiet,-q", options->common.quiet, "no progress or notes")->group("Output");
  app->set_help_flag("--help,-h", "this text")->group("Output");
  app->footer(kExamples);
  return {app, [options] { return run_quantize(*options); }};
}

}  // namespace quire
