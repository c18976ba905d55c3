// `quire perplexity`.
#include <filesystem>

#include "apps/answer.h"
#include "apps/interrupt.h"
#include "apps/numbers.h"
#include "apps/perplexity.h"
#include "apps/verbs.h"
#include "base/mapped_file.h"

namespace quire {

namespace {

constexpr const char* kExamples = R"(Examples:
  quire perplexity --file text.txt --scheme w8a8
  quire perplexity --file text.txt --scheme f32 --kl-base f32.kl    writes what f32 says (about 1 GB for 40 chunks)
  quire perplexity --file text.txt --scheme w4a16 --kl-base f32.kl  compares with it
The text is cut into chunks of --context tokens (default 512); the second half of each is scored.)";

struct PerplexityOptions {
  CommonOptions common;
  std::string file;
  int64_t chunks = 40, parallel = 1;
  std::string kl_base;
  bool kl_write = false;
};

nlohmann::json result_json(const Engine& engine, const ChunkedText& text, const PerplexityResult& r) {
  nlohmann::json object = engine_json(engine);
  object["perplexity"] = r.perplexity;
  object["uncertainty"] = r.uncertainty;
  object["nll"] = r.nll;
  object["tokens"] = r.tokens;
  object["chunks"] = text.chunks;
  object["context"] = text.context;
  if (r.compared) {
    object["kl_mean"] = r.kl_mean;
    object["kl_uncertainty"] = r.kl_uncertainty;
    object["kl_median"] = r.kl_median;
    object["kl_p99"] = r.kl_p99;
    object["kl_max"] = r.kl_max;
    object["top1_agreement"] = r.same_top;
    object["base_perplexity"] = r.reference_perplexity;
  }
  return object;
}

std::string result_text(const ChunkedText& text, const PerplexityResult& r) {
  std::string out = fmt::format("perplexity {:.4f} +- {:.4f} ({} tokens of {} chunks of {})\n", r.perplexity,
                                r.uncertainty, r.tokens, text.chunks, text.context);
  if (!r.compared) return out;
  return out + fmt::format(
                   "KL divergence mean {:.6f} +- {:.6f}, median {:.6f}, 99 % {:.6f}, max {:.4f}\n"
                   "same likeliest token {:.2f} %, perplexity of the base {:.4f}\n",
                   r.kl_mean, r.kl_uncertainty, r.kl_median, r.kl_p99, r.kl_max, 100 * r.same_top,
                   r.reference_perplexity);
}

int run_perplexity(PerplexityOptions options) {
  constexpr int64_t kContext = 512;
  EngineOptions& engine_options = options.common.engine;
  if (engine_options.context == 0) engine_options.context = kContext;
  engine_options.max_batch = options.parallel;
  const std::string text = read_input_file(options.file);
  OpenEngine engine = open_engine(options.common);
  const ChunkedText chunked = chunk_text(engine->tokenizer(), text, engine_options.context, options.chunks);
  if (options.chunks > chunked.chunks && !options.common.quiet)
    note(fmt::format("the text has {} chunks, less than the {} asked for", chunked.chunks, options.chunks));

  const KlShape shape{chunked.context, engine->config().vocab, chunked.chunks, chunked.scored()};
  std::optional<KlWriter> writer;
  std::optional<KlReader> reader;
  if (!options.kl_base.empty()) {
    if (options.kl_write || !std::filesystem::exists(options.kl_base)) {
      writer.emplace(options.kl_base, shape, chunked.tokens);
    } else {
      reader.emplace(options.kl_base, shape, chunked.tokens);
    }
  }
  PerplexityJob job;
  job.parallel = options.parallel;
  job.writer = writer ? &*writer : nullptr;
  job.reader = reader ? &*reader : nullptr;
  const bool bar = stderr_is_terminal();
  job.on_chunk = [&](int64_t done, int64_t chunks, double perplexity) {
    engine.bar->update(bar ? fmt::format("perplexity {:8.4f}", perplexity) : "scoring", done, chunks);
  };
  const PerplexityResult result = measure_perplexity(*engine, chunked, job);
  engine.bar->clear();
  if (writer) {
    writer->finish();
    if (!options.common.quiet) note(fmt::format("the reference is in {}", options.kl_base));
  }
  if (options.common.json) {
    print_json(result_json(*engine, chunked, result));
  } else {
    write_out(result_text(chunked, result));
  }
  return kExitOk;
}

void add_count(CLI::App& app, const char* name, const char* help, int64_t& target, int64_t least) {
  add_parsed(app, std::string("--") + name, "N", help, "Perplexity", [name, &target, least](const std::string& text) {
    target = parse_number<int64_t>(name, text, least, 1 << 30);
  });
}

}  // namespace

Verb add_perplexity(CLI::App& program) {
  CLI::App* app = program.add_subcommand("perplexity", "how well a model predicts a text");
  const auto options = std::make_shared<PerplexityOptions>();
  app->add_option("--file,-f", options->file, "the text; - is standard input")
      ->type_name("PATH")
      ->required()
      ->group("Perplexity");
  add_count(*app, "chunks", "at most so many chunks (default 40; -1: all)", options->chunks, -1);
  add_count(*app, "parallel", "chunks evaluated at once (default 1)", options->parallel, 1);
  app->add_option("--kl-base", options->kl_base,
                  "compare with what a reference said; if FILE is not there, this run is the reference and writes it")
      ->type_name("FILE")
      ->group("Perplexity");
  app->add_flag("--kl-write", options->kl_write, "write FILE even if it is there")->group("Perplexity");
  add_common_options(*app, options->common);
  hide_unused(*app);
  app->footer(kExamples);
  return {app, [app, options] {
            if (options->chunks == 0) throw CLI::ValidationError("--chunks", "0 chunks leave nothing to score");
            if (options->kl_write && options->kl_base.empty())
              throw CLI::ValidationError("--kl-write", "needs --kl-base FILE");
            note_unused(*app);
            return run_perplexity(*options);
          }};
}

}  // namespace quire
