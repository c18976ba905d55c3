// Model files and directories.
#include "models/gguf.h"
#include "models/gguf_tokenizer.h"
#include "models/hf_tokenizer.h"
#include "models/safetensors.h"
#include "tests/fuzz/target.h"
#include "tests/models/quantized_model.h"
#include "tests/models/sentencepiece_writer.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire::fuzz {

namespace {

// Small enough that mutations reach every part of the file often.
TinyModel smallest_model(Codec matrices = id<F16>) {
  return make_tiny_model({.layers = 1,
                          .hidden = 32,
                          .ffn = 32,
                          .heads = 2,
                          .kv_heads = 1,
                          .context = 64,
                          .embedding = matrices,
                          .matrices = matrices});
}

// Every getter on every key: most ask for the wrong type.
void read_metadata(const GgufFile& file) {
  for (const GgufValue& v : file.metadata()) {
    promise(file.find(v.key) == &v, "find() finds each key");
    printable_value(v);
    accepted([&] { file.integer(v.key); });
    accepted([&] { file.number(v.key); });
    accepted([&] { file.boolean(v.key); });
    accepted([&] { file.text(v.key); });
    accepted([&] { file.integers(v.key); });
    accepted([&] { file.texts(v.key); });
  }
}

bool run_gguf(std::string_view input) {
  const std::string path = put_file("model.gguf", input);
  return accepted([&] {
    read_metadata(GgufFile(MappedFile(path)));
    use(Checkpoint::open(path));
  });
}

std::vector<std::string> gguf_seeds() {
  GgufWriter writer = tiny_gguf_writer(smallest_model(id<F16>));
  writer.version = 2;
  return {tiny_gguf_writer(smallest_model(id<Q8_0>)).file(), tiny_gguf_writer(smallest_model(id<Q4_1>)).file(),
          writer.file()};
}

// Every type of block that has values of 256 in a row, in as few bytes as they come in.
std::vector<std::string> gguf_block_seeds() {
  TinyModelOptions o{.layers = 1, .hidden = 256, .ffn = 32, .heads = 1, .kv_heads = 1, .head_dim = 32, .context = 64};
  o.embedding = id<Q2_K>;
  o.matrices = id<Q4_0>;
  o.mixed = {{"q_proj", id<Q4_K>},
             {"k_proj", id<Q3_K>},
             {"v_proj", id<IQ4_XS>},
             {"gate_proj", id<Q3_K>},
             {"up_proj", id<Q2_K>}};
  const std::string a = tiny_gguf_writer(make_tiny_model(o)).file();
  o.mixed = {
      {"q_proj", id<Q6_K>}, {"k_proj", id<Q5_K>}, {"v_proj", id<Q2_K>}, {"gate_proj", id<Q2_K>}, {"up_proj", id<Q2_K>}};
  const std::string b = tiny_gguf_writer(make_tiny_model(o)).file();
  o = {.layers = 1, .hidden = 32, .ffn = 32, .heads = 2, .kv_heads = 1, .context = 64, .embedding = id<MXFP4>};
  o.matrices = id<Q5_0>;
  o.mixed = {{"q_proj", id<Q5_1>}, {"k_proj", id<IQ4_NL>}, {"v_proj", id<MXFP4>}};
  return {a, b, tiny_gguf_writer(make_tiny_model(o)).file()};
}

// Two files of one model.
bool run_gguf_split(std::string_view input) {
  const std::string directory = put_bundle(input);
  return accepted([&] { use(Checkpoint::open(directory + "/model-00001-of-00002.gguf")); });
}

std::vector<std::string> gguf_split_seeds() {
  const TinyModel model = smallest_model(id<Q8_0>);
  const auto part = [&](GgufWriter w, uint32_t number) {
    w.u32("split.no", number);
    w.u32("split.count", 2);
    w.u32("split.tensors.count", uint32_t(model.tensors.size()));
    return w;
  };
  GgufWriter first = tiny_gguf_writer(model), second;
  const Tensor& norm = model.get("model.norm.weight");
  first.erase_tensor("output_norm.weight");
  second.tensor("output_norm.weight", {uint64_t(norm.cols)}, 0, std::string(bytes_of(norm)));
  return {bundle(
      {{"model-00001-of-00002.gguf", part(first, 0).file()}, {"model-00002-of-00002.gguf", part(second, 1).file()}})};
}

std::vector<std::string> gguf_words() {
  return {"GGUF",
          "general.alignment",
          "general.architecture",
          "llama.block_count",
          "llama.vocab_size",
          "llama.attention.head_count",
          "llama.attention.head_count_kv",
          "llama.attention.key_length",
          "llama.rope.freq_base",
          "llama.rope.scaling.type",
          "tokenizer.ggml.tokens",
          "tokenizer.ggml.pre",
          "tokenizer.ggml.scores",
          "split.count",
          "split.no",
          "split.tensors.count",
          "tokenizer.ggml.eos_token_ids",
          "blk.0.attn_q.weight",
          "rope_freqs.weight",
          "token_embd.weight",
          std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", 8),
          std::string("\0\0\0\0\0\0\0\x80", 8)};
}

bool run_gguf_tokenizer(std::string_view input) {
  const std::string path = put_file("tokenizer.gguf", input);
  return accepted([&] { use(Tokenizer(read_gguf_tokenizer(GgufFile(MappedFile(path))))); });
}

std::vector<std::string> gguf_tokenizer_seeds() {
  TinyModel model;
  model.tokenizer = tiny_tokenizer();
  std::vector<std::string> seeds;
  for (const char* pre : {"smollm", "llama-bpe", "qwen2"}) {
    GgufWriter writer = tiny_gguf_writer(model);
    writer.erase("tokenizer.ggml.pre");
    writer.text("tokenizer.ggml.pre", pre);
    seeds.push_back(writer.file());
  }
  GgufWriter spm;
  spm.text("tokenizer.ggml.model", "llama");
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "\xE2\x96\x81",    "l",
                                     "o",     "ll",  "llo",  "\xE2\x96\x81the", "th"};
  std::vector<int32_t> kinds = {2, 3, 3, 1, 1, 1, 1, 5, 4, 1};
  for (int b = 0; b < 256; ++b) {
    tokens.push_back(fmt::format("<0x{:02X}>", b));
    kinds.push_back(6);
  }
  std::string scores = GgufWriter::bytes_of(uint32_t(6)) + GgufWriter::bytes_of(uint64_t(tokens.size()));
  for (size_t i = 0; i < tokens.size(); ++i) scores += GgufWriter::bytes_of(-float(i));
  spm.texts("tokenizer.ggml.tokens", tokens);
  spm.i32s("tokenizer.ggml.token_type", kinds);
  spm.raw("tokenizer.ggml.scores", 9, scores);
  seeds.push_back(spm.file());
  return seeds;
}

bool run_safetensors(std::string_view input) {
  const std::string path = put_file("model.safetensors", input);
  return accepted([&] {
    const SafetensorsFile file{MappedFile(path)};
    const std::byte* end = nullptr;
    for (const SafetensorsTensor& t : file.tensors()) {
      promise(t.bytes.data() >= end, "tensors do not overlap");
      promise(t.bytes.size() <= input.size(), "tensors lie in the file");
      end = t.bytes.data() + t.bytes.size();
    }
  });
}

std::vector<std::string> safetensors_seeds() {
  SafetensorsWriter writer;
  writer.header["__metadata__"] = {{"format", "pt"}};
  writer.tensor("a", "F32", {2, 3}, std::string(24, 'a'));
  writer.tensor("b.weight", "BF16", {4}, std::string(8, 'b'));
  writer.tensor("scalar", "I64", {}, std::string(8, 'c'));
  writer.tensor("empty", "U8", {0, 7}, "");
  SafetensorsWriter empty;
  return {writer.file(), empty.file()};
}

std::vector<std::string> json_words() {
  return {"null",
          "true",
          "{}",
          "[]",
          "\"\"",
          "-1",
          "1e999",
          "18446744073709551616",
          "0.5",
          "NaN",
          "[[[[[[[[",
          "{\"a\":",
          "\\u0000",
          "\\ud800",
          "2147483648",
          "9223372036854775807",
          "\"F32\"",
          "\"BF16\"",
          "\"shape\"",
          "\"dtype\"",
          "\"data_offsets\"",
          "../x.safetensors",
          "\"I8\""};
}

std::vector<std::string> hf_directory_seeds() {
  const TempDir dir;
  return {bundle_directory(write_tiny_hf(smallest_model(), dir.file("one"))),
          bundle_directory(write_tiny_hf(smallest_model(id<BF16>), dir.file("two"), 2))};
}

std::vector<std::string> stored_seeds() {
  const TempDir dir;
  const std::string source = write_tiny_gguf(smallest_model(id<F32>), dir.file("tiny.gguf"));
  std::vector<std::string> seeds;
  for (const char* scheme : {"w8a8kv8", "w4a8", "w4a16"}) {
    quantize(source, scheme, dir.file(scheme));
    seeds.push_back(bundle_directory(dir.file(scheme)));
  }
  return seeds;
}

bool run_hf_tokenizer(std::string_view input) {
  const std::string directory = put_bundle(input);
  return accepted([&] {
    const Json config = parse_json(bundled(input, "config.json"), "config.json");
    use(Tokenizer(read_hf_tokenizer(directory, JsonObject(config, "config.json"), 320)));
  });
}

std::vector<std::string> hf_tokenizer_seeds() {
  const TinyModel model = smallest_model();
  nlohmann::ordered_json tokenizer = tiny_hf_tokenizer(model);
  const std::string plain = tokenizer.dump(), config = R"({"bos_token_id": 1, "eos_token_id": [2, 0]})";
  tokenizer["pre_tokenizer"]["pretokenizers"] = {
      {{"type", "Split"},
       {"pattern", {{"Regex", R"(\s+(?!\S)|\s+|\w+)"}}},
       {"behavior", "Isolated"},
       {"invert", false}},
      {{"type", "Split"}, {"pattern", {{"String", "a+b"}}}, {"behavior", "Isolated"}},
      {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", false}}};
  tokenizer["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}}}}}}};
  tokenizer["model"]["ignore_merges"] = true;
  const std::string tokenizer_config = tiny_hf_tokenizer_config(model).dump();
  SentencePieceWriter pieces;
  int64_t kind = 2;
  for (const char* token : {"<unk>", "<s>", "</s>"}) pieces.piece(token, 0, std::exchange(kind, 3));
  for (const char* token : {"\u2581", "l", "o", "lo", "the"}) pieces.piece(token, -1, 1);
  const std::string added = R"({"bos_token": "<s>", "unk_token": {"content": "<unk>"}, "added_tokens_decoder": {
      "2": {"content": "</s>", "special": true, "rstrip": true}, "10": {"content": "<|im_end|>", "lstrip": true}}})";
  return {bundle({{"config.json", config}, {"tokenizer.json", plain}, {"tokenizer_config.json", tokenizer_config}}),
          bundle({{"config.json", "{}"}, {"tokenizer.model", pieces.file()}, {"tokenizer_config.json", added}}),
          bundle({{"config.json", "{}"},
                  {"tokenizer.json", tokenizer.dump()},
                  {"generation_config.json", R"({"eos_token_id": 2})"},
                  {"chat_template.jinja", "{{ messages[0].content }}"}})};
}

}  // namespace

std::vector<std::string> directory_words() {
  std::vector<std::string> words = json_words();
  for (const char* word : {"\n=== config.json\n",
                           "\n=== tokenizer.json\n",
                           "\n=== model.safetensors\n",
                           "\n=== tokenizer_config.json\n",
                           "\n=== chat_template.jinja\n",
                           "\n=== generation_config.json\n",
                           "\n=== model.safetensors.index.json\n",
                           "\"num_attention_heads\"",
                           "\"num_key_value_heads\"",
                           "\"head_dim\"",
                           "\"vocab_size\"",
                           "\"quantization_config\"",
                           "\"rope_scaling\"",
                           "\"int8\"",
                           "\"int4/g32\"",
                           "\"Split\"",
                           "\"Regex\"",
                           "\"Sequence\"",
                           "\"pretokenizers\"",
                           "\"TemplateProcessing\"",
                           "\"added_tokens\"",
                           "\"special\"",
                           "\"eos_token_id\"",
                           "\"ignore_merges\""})
    words.emplace_back(word);
  return words;
}

bool run_directory(std::string_view input) {
  const std::string directory = put_bundle(input);
  return accepted([&] { use(Checkpoint::open(directory)); });
}

std::vector<Target> reader_targets() {
  constexpr size_t kHeap = 16 << 20;
  return {{"gguf", run_gguf, gguf_seeds, gguf_words(), 1500, kHeap},
          {"gguf_blocks", run_gguf, gguf_block_seeds, gguf_words(), 1500, kHeap},
          {"gguf_split", run_gguf_split, gguf_split_seeds, gguf_words(), 1500, kHeap},
          {"gguf_tokenizer", run_gguf_tokenizer, gguf_tokenizer_seeds, gguf_words(), 1500, kHeap},
          {"safetensors", run_safetensors, safetensors_seeds, json_words(), 4000, kHeap},
          {"hf_directory", run_directory, hf_directory_seeds, directory_words(), 1500, kHeap},
          {"hf_tokenizer", run_hf_tokenizer, hf_tokenizer_seeds, directory_words(), 1500, kHeap},
          {"stored", run_directory, stored_seeds, directory_words(), 1500, kHeap}};
}

}  // namespace quire::fuzz
