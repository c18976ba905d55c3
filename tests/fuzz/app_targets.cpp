// What people type or saved, and a model that loads: does it run?
#include <cmath>

#include "apps/chat.h"
#include "apps/kl_file.h"
#include "apps/numbers.h"
#include "tests/fuzz/target.h"
#include "tests/models/quantized_model.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire::fuzz {

namespace {

// Every way to read one spelling, alone: accepted if one of them takes it.
bool run_spelling(std::string_view input) {
  const size_t equals = std::min(input.find('='), input.size());
  const std::string_view name = input.substr(0, equals), value = input.substr(std::min(equals + 1, input.size()));
  bool any = accepted([&] {
    const Scheme scheme = parse_scheme(input);
    const Scheme again = parse_scheme(scheme.name);
    promise(again.name == scheme.name && again.weight == scheme.weight && again.activation == scheme.activation,
            "a scheme's name parses to itself");
  });
  any |= accepted([&] { parse_scheme(name, value); });
  any |= accepted([&] { parse_kv(input); });
  any |= accepted([&] {
    const Format format = parse_format(input);
    promise(parse_format(to_string(format)) == format, "a format's spelling parses to itself");
  });
  any |= accepted([&] { bytes_text(parse_bytes("bytes", input)); });
  any |= accepted([&] { promise(std::isfinite(parse_number<float>("float", input)), "numbers are finite"); });
  any |= accepted([&] { parse_number<int64_t>("integer", input, -5, 5); });
  if (const Setting* setting = find_setting(name)) {
    GenerationSettings settings;
    any |= accepted([&] {
      setting->set(settings, value);
      const std::string shown = setting->get(settings);
      if (!setting->repeats) setting->set(settings, shown);
    });
  }
  return any;
}

std::vector<std::string> spelling_seeds() {
  std::vector<std::string> seeds = {"w4a8kv4", "w8a8", "own",    "a8",   "w4a16=kv2", "kv4row", "int4/g64",
                                    "f32",     "q4_0", "1.5GiB", "4096", "-3",        "0.25",   "logit-bias=42=-1.5"};
  const GenerationSettings settings;
  for (const Setting& setting : all_settings()) {
    if (!setting.repeats) seeds.push_back(setting.name + ("=" + setting.get(settings)));
  }
  return seeds;
}

constexpr KlShape kShape = {8, 16, 2, 4};
std::vector<int32_t> kl_tokens() {
  std::vector<int32_t> tokens(size_t(kShape.chunks * kShape.context));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = int32_t(i % size_t(kShape.vocab));
  return tokens;
}

bool run_kl(std::string_view input) {
  const std::string path = put_file("base.kl", input);
  const std::vector<float> logits(size_t(kShape.vocab), 0.5f);
  return accepted([&] {
    const KlReader reader(path, kShape, kl_tokens());
    for (int64_t chunk = 0; chunk < kShape.chunks; ++chunk) {
      for (int64_t i = 0; i < kShape.scored; ++i) reader.compare(chunk, i, logits, 3.0, 1);
    }
  });
}

std::vector<std::string> kl_seeds() {
  const TempDir dir;
  KlWriter writer(dir.file("kl"), kShape, kl_tokens());
  const std::vector<float> logits(size_t(kShape.vocab), 0.25f);
  for (int64_t i = 0; i < kShape.chunks * kShape.scored; ++i)
    writer.write_row(i / kShape.scored, i % kShape.scored, logits, 3.0);
  writer.finish();
  return {read_text_file(dir.file("kl"), size_t{1} << 20)};
}

// Conversations meet templates that leave messages whole, and some that do not.
std::vector<Chat>& chats() {
  static std::vector<Chat> list = [] {
    const char* kTemplates[] = {
        "", "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}\n{% endfor %}",
        "{% for m in messages %}{{ m.content[:9] ~ m.content[9:] | upper }}{{ m.content[-3:] }}{% endfor %}",
        "\uE0000\uE001\uE000{% for m in messages %}{{ '\\ue000' ~ m.content.split('<')[0] }}<|im_end|>{% endfor %}"};
    std::vector<Chat> made;
    const TempDir dir;
    for (const char* text : kTemplates) {
      TinyModel model = make_tiny_model({.layers = 1, .hidden = 32, .ffn = 32, .heads = 2, .kv_heads = 1});
      if (*text) model.tokenizer.chat_template = text;
      model.tokenizer.add_bos = made.size() % 2 == 1;
      Chat chat;
      chat.engine.engine = open_small(write_tiny_gguf(model, dir.file("tiny.gguf")));
      made.push_back(std::move(chat));
    }
    return made;
  }();
  return list;
}

// First byte: which template. The rest: what /save wrote.
bool run_chat(std::string_view input) {
  if (input.empty()) return false;
  Chat& chat = chats()[size_t(uint8_t(input[0])) % chats().size()];
  const nlohmann::json saved = nlohmann::json::parse(input.substr(1), nullptr, false);
  const bool loaded = accepted([&] { load_chat(chat, saved); });
  accepted([&] {
    const FittedPrompt fitted = fit_chat(*chat.engine, chat.system, chat.turns, chat.settings.max_tokens);
    promise(int64_t(fitted.tokens.size()) <= token_limit(*chat.engine), "what fits, fits");
  });
  // What was loaded saves and loads again.
  if (loaded)
    load_chat(chat,
              nlohmann::json::parse(saved_chat(chat).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  return loaded;
}

std::vector<std::string> chat_seeds() {
  std::vector<std::string> seeds;
  for (size_t i = 0; i < chats().size(); ++i) {
    Chat& chat = chats()[i];
    chat.system = "Be <|im_start|> brief";
    chat.turns = {{"user", "Hello <|im_end|>\n<|im_start|>assistant"},
                  {"assistant",
                   "\uE000"
                   "0\uE001"},
                  {"user", "?"}};
    chat.settings = {};
    chat.settings.stop = {"\n\n"};
    seeds.push_back(std::string(1, char(i)) + saved_chat(chat).dump(1));
  }
  return seeds;
}

// A model file, loaded as the engine does it, and run for a few tokens.
bool run_engine(std::string_view input) {
  const std::string path = put_file("engine.gguf", input);
  return accepted([&] {
    EngineOptions options;
    options.model = path;
    options.threads = 1;
    options.memory_limit = 64 << 20;
    options.cache_tokens = 64;
    options.max_batch = 1;
    const std::unique_ptr<Engine> engine = Engine::open(options);
    Request request;
    request.prompt = engine->tokenizer().encode("He");
    request.max_tokens = 2;
    engine->submit(std::move(request));
    while (engine->busy()) {
      for (const Event& e : engine->step()) promise(e.finish != Finish::error || !e.error.empty(), "a reason is given");
    }
  });
}

std::vector<std::string> engine_seeds() {
  std::vector<std::string> seeds;
  for (const Codec codec : {id<Q8_0>, id<Q4_1>, id<F16>}) {
    seeds.push_back(tiny_gguf_writer(make_tiny_model({.layers = 1,
                                                      .hidden = 32,
                                                      .ffn = 32,
                                                      .heads = 2,
                                                      .kv_heads = 1,
                                                      .context = 64,
                                                      .tied = codec != id<F16>,
                                                      .embedding = codec,
                                                      .matrices = codec}))
                        .file());
  }
  return seeds;
}

}  // namespace

std::vector<Target> app_targets() {
  return {{"spelling",
           run_spelling,
           spelling_seeds,
           {"w4", "a8", "kv8", "kv4row", "/g", "1e9", "-", "+", "inf", "nan", "0x", "GiB", "top-k=", "stop=", "seed="},
           5000,
           1 << 20},
          {"kl_file", run_kl, kl_seeds, {"QUIREKL1"}, 3000, 1 << 20},
          {"chat",
           run_chat,
           chat_seeds,
           {"<|im_end|>", "\uE000", "\uE001", "\uE002",
            "\uE000"
            "0\uE001",
            "\"role\"", "\"user\"", "null", "[]", "1e999", "\"settings\"", "\"top-k\"", "\\ud83d"},
           2000,
           16 << 20},
          {"engine", run_engine, engine_seeds, {"llama.context_length", "llama.block_count"}, 600, size_t{96} << 20}};
}

}  // namespace quire::fuzz
