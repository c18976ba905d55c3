// The writer's promises: killed anywhere, nothing half made loads, and the next run gives the same bytes.
#include "models/offline/write.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/normalize.h"
#include "tests/expect_error.h"
#include "tests/models/quantized_model.h"
#include "tests/models/sentencepiece_writer.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

class Write : public testing::Test {
 protected:
  WriteOptions options(bool force = false) const {
    WriteOptions o;
    o.output = out_;
    o.force = force;
    o.shard_bytes = 30000;
    return o;
  }
  std::map<std::string, std::string> reference(const std::string& scheme) {
    WriteOptions o = options();
    o.output = dir_.file("reference-" + scheme);
    quantize(source_, scheme, o);
    return contents_of(o.output);
  }
  // In another process; true if it came to its end, false if it was killed.
  template <class Fn>
  bool in_process(Fn&& fn) const {
    const pid_t child = fork();
    check(child >= 0, "no process");
    if (child == 0) {
      try {
        fn();
        _exit(0);
      } catch (...) {
        _exit(1);
      }
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
    }
    return WIFEXITED(status);
  }
  // Kills itself at the k-th report of progress, of which there is one before every step that the disk sees.
  bool killed_at(int k, const std::string& scheme, bool force = false) const {
    return !in_process([&] {
      WriteOptions o = options(force);
      o.progress = [calls = 0, k](const std::string&, int64_t, int64_t) mutable {
        if (++calls == k) raise(SIGKILL);
        return true;
      };
      quantize(source_, scheme, o);
    });
  }
  static bool opens(const std::string& path) {
    try {
      Checkpoint::open(path);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  TempDir dir_;
  std::string source_ = write_tiny_gguf(make_tiny_model({.matrices = id<Q8_0>}), dir_.file("tiny.gguf"));
  std::string out_ = dir_.file("out"), partial_ = out_ + ".partial";
};

TEST_F(Write, MakesWholeShardsWithAnIndex) {
  std::vector<std::pair<int64_t, int64_t>> seen;
  WriteOptions o = options();
  o.progress = [&](const std::string&, int64_t done, int64_t total) {
    seen.emplace_back(done, total);
    return true;
  };
  const WriteResult result = quantize(source_, "w8a8", o);
  EXPECT_EQ(result.tensors, 20);
  EXPECT_GT(result.files, 2);
  EXPECT_EQ(result.resumed_files, 0);
  EXPECT_EQ(seen.back(), std::make_pair(result.bytes, result.bytes));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_FALSE(fs::exists(partial_));
  const auto files = contents_of(out_);
  EXPECT_EQ(files.size(), size_t(result.files) + 5);  // config, generation config, tokenizer, its config, index
  const Checkpoint c = Checkpoint::open(out_);
  EXPECT_EQ(c.tensors().size(), 20u);
  o = options();
  o.output = dir_.file("whole");
  o.shard_bytes = 1 << 30;
  EXPECT_EQ(quantize(source_, "w8a8", o).files, 1);
  EXPECT_TRUE(compute(*open_small(out_)) == compute(*open_small(dir_.file("whole"))));
}

TEST_F(Write, KilledAnywhereItGoesOnToTheSameBytes) {
  const auto wanted = reference("w4a8");
  int k = 1, resumed = 0;
  for (; killed_at(k, "w4a8"); ++k) {
    SCOPED_TRACE(k);
    ASSERT_LT(k, 200);
    EXPECT_FALSE(opens(partial_));
    // After the last rename the directory is whole, and only its manifest is too much.
    const bool renamed = fs::exists(out_);
    EXPECT_EQ(opens(out_), renamed);
    const WriteResult result = quantize(source_, "w4a8", options());
    resumed += result.resumed_files > 0;
    if (renamed) {
      EXPECT_EQ(result.resumed_files, result.files);
    }
    EXPECT_TRUE(contents_of(out_) == wanted);
    EXPECT_FALSE(fs::exists(partial_));
    fs::remove_all(out_);
  }
  EXPECT_GT(k, 30);  // tensors, files and steps
  EXPECT_GT(resumed, 10);
  EXPECT_TRUE(contents_of(out_) == wanted);
}

TEST_F(Write, KilledAtRandomMomentsAgainAndAgain) {
  const auto wanted = reference("w3a8");
  uint64_t state = 11;
  int killed = 0;
  for (int i = 0; i < 40 && !fs::exists(out_); ++i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      quantize(source_, "w3a8", options());
      _exit(0);
    }
    usleep(useconds_t(state % (5000 * uint64_t(i + 1))));  // sooner or later within the writing
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    killed += WIFSIGNALED(status);
    EXPECT_FALSE(opens(partial_));
    EXPECT_EQ(opens(out_), fs::exists(out_));
  }
  if (!fs::exists(out_) || fs::exists(out_ + "/quire-quantize.json")) quantize(source_, "w3a8", options());
  EXPECT_TRUE(contents_of(out_) == wanted);
  RecordProperty("killed", killed);
}

TEST_F(Write, OtherOptionsOrAnotherSourceBeginAnew) {
  const auto wanted = reference("w8a8");
  ASSERT_TRUE(killed_at(20, "w4a8"));
  ASSERT_TRUE(fs::exists(partial_));
  std::string notes;
  WriteOptions o = options();
  o.log = [&](const std::string& message) { notes += message + "\n"; };
  EXPECT_EQ(quantize(source_, "w8a8", o).resumed_files, 0);
  EXPECT_NE(notes.find("other options"), std::string::npos) << notes;
  EXPECT_TRUE(contents_of(out_) == wanted);
  fs::remove_all(out_);

  ASSERT_TRUE(killed_at(30, "w8a8"));
  write_tiny_gguf(make_tiny_model({.matrices = id<Q8_0>, .seed = 2}), source_);
  notes.clear();
  EXPECT_EQ(quantize(source_, "w8a8", o).resumed_files, 0);
  EXPECT_NE(notes.find("another source"), std::string::npos) << notes;
  EXPECT_FALSE(contents_of(out_) == wanted);
  EXPECT_TRUE(compute(*open_small(out_)) == compute(*open_small(source_, "w8a8")));
}

TEST_F(Write, CancellingKeepsWhatIsDone) {
  WriteOptions o = options();
  o.progress = [](const std::string&, int64_t done, int64_t total) { return done < total / 2; };
  expect_error([&] { quantize(source_, "w8a8", o); }, {"cancelled", "goes on", partial_});
  EXPECT_FALSE(fs::exists(out_));
  o.progress = {};
  EXPECT_GT(quantize(source_, "w8a8", o).resumed_files, 0);
  EXPECT_TRUE(opens(out_));
}

TEST_F(Write, ReplacesOnlyWhatItWroteAndOnlyIfForced) {
  quantize(source_, "w8a8", options());
  const auto old = contents_of(out_);
  expect_error([&] { quantize(source_, "w4a8", options()); }, {out_, "exists", "--force"});
  EXPECT_TRUE(contents_of(out_) == old);
  const auto wanted = reference("w4a8");
  int k = 1;
  for (; killed_at(k, "w4a8", true); ++k) {
    SCOPED_TRACE(k);
    ASSERT_LT(k, 200);
    EXPECT_FALSE(opens(partial_));
    EXPECT_TRUE(opens(out_) || fs::exists(partial_ + "/replaced/config.json"));
    quantize(source_, "w4a8", options(true));
    EXPECT_TRUE(contents_of(out_) == wanted);
    EXPECT_FALSE(fs::exists(partial_));
    fs::remove_all(out_);
    fs::copy(dir_.file("reference-w4a8"), out_);
  }
  EXPECT_GT(k, 30);

  fs::remove_all(out_);
  fs::create_directory(out_);
  write_file(out_ + "/thesis.txt", "three years of work");
  expect_error([&] { quantize(source_, "w4a8", options(true)); }, {"is not a directory that quantize wrote"});
  EXPECT_TRUE(fs::exists(out_ + "/thesis.txt"));
  fs::remove_all(out_);
  fs::create_directory(partial_);
  write_file(partial_ + "/thesis.txt", "three years of work");
  expect_error([&] { quantize(source_, "w4a8", options(true)); }, {partial_, "in the way"});
  EXPECT_TRUE(fs::exists(partial_ + "/thesis.txt"));
}

TEST_F(Write, RefusesWhatMakesNoSense) {
  expect_error([&] { quantize(source_, "own", options()); }, {"keeps the model's own weights"});
  expect_error([&] { quantize(source_, "a8", options()); }, {"keeps the model's own weights"});
  WriteOptions o = options();
  o.output = dir_.file("no/such/place");
  expect_error([&] { quantize(source_, "w8a8", o); }, {"no/such", "does not exist"});
  o.output = dir_.path();
  o.force = true;
  expect_error([&] { quantize(source_, "w8a8", o); }, {"holds the source"});
  EXPECT_FALSE(fs::exists(out_) || fs::exists(partial_));
  // Two at once.
  ASSERT_TRUE(killed_at(10, "w8a8"));
  const int fd = open(partial_.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  const auto open_files = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = open_files();
  expect_error([&] { quantize(source_, "w8a8", options()); }, {"written by another run"});
  expect_error([&] { quantize(source_, "w4a8", options()); }, {"written by another run"});
  EXPECT_EQ(open_files(), before);
  close(fd);
  quantize(source_, "w8a8", options());
}

TEST_F(Write, AFullDiskIsOneErrorAndTheNextRunGoesOn) {
  const auto wanted = reference("w8a8");
  EXPECT_TRUE(in_process([&] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{20000, 20000};  // bytes a file may have: the tokenizer fits, a shard does not
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      quantize(source_, "w8a8", options());
      fail("no error");
    } catch (const Error& e) {
      const std::string text = e.what();
      check(text.find("cannot write '" + partial_) != text.npos && text.find("too large") != text.npos, "{}", text);
    }
  }));
  EXPECT_FALSE(fs::exists(out_));
  for (const auto& [name, bytes] : contents_of(partial_)) EXPECT_EQ(name.find(".tmp"), name.npos) << name;
  quantize(source_, "w8a8", options());
  EXPECT_TRUE(contents_of(out_) == wanted);
}

// Every kind of token, every id that may be missing, a template, patterns: whatever a GGUF says comes back.
TEST_F(Write, TokenizersComeBackWhole) {
  for (const bool sparse : {false, true}) {
    TinyModel model = make_tiny_model({.layers = 1});
    TokenizerData& t = model.tokenizer;
    t.kinds[280] = TokenKind::user_defined;
    t.kinds[281] = TokenKind::unused;
    t.kinds[0] = TokenKind::unknown;
    t.tokens[282] = "<0x0A>";
    t.kinds[282] = TokenKind::byte;
    t.tokens[283] = "[PAD283]";
    t.kinds[283] = TokenKind::unused;
    t.merges.resize(t.merges.size() - 25);
    t.chat_template = "{{ '\"quoted\" \\ \n\t\xE2\x82\xAC' }}";
    t.add_bos = !sparse;
    GgufWriter w = tiny_gguf_writer(model);
    w.boolean("tokenizer.ggml.add_space_prefix", !sparse);
    w.erase("tokenizer.ggml.pre");
    w.text("tokenizer.ggml.pre", sparse ? "gpt-2" : "llama-bpe");
    w.i32s("tokenizer.ggml.eos_token_ids", {5, 2, 1});
    w.erase("general.name");
    w.text("general.name", "bad \xff name");
    if (sparse) {
      for (const char* key : {"bos_token_id", "unknown_token_id", "padding_token_id", "eos_token_id", "eos_token_ids"})
        w.erase(std::string("tokenizer.ggml.") + key);
      w.erase("tokenizer.chat_template");
    }
    write_file(source_, w.file());
    fs::remove_all(out_);
    quantize(source_, "w8a8", options());
    const Checkpoint source = Checkpoint::open(source_), stored = Checkpoint::open(out_);
    const TokenizerData &a = source.tokenizer(), &b = stored.tokenizer();
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.kinds, b.kinds);
    EXPECT_EQ(a.merges, b.merges);
    EXPECT_EQ(a.split_patterns, b.split_patterns);
    EXPECT_THAT(a.eos, testing::ElementsAreArray(sparse ? std::vector<int32_t>{} : std::vector<int32_t>{2, 5, 1}));
    EXPECT_EQ(a.bos, sparse ? -1 : 1);
    EXPECT_EQ(a.whole_pieces, !sparse);
    EXPECT_TRUE(a == b);
  }
}

// A SentencePiece vocabulary becomes tokenizer.model, with its normalization, its special tokens and their white space.
TEST_F(Write, SentencePieceOfAGgufFileIsWritten) {
  const TinyModel model = make_tiny_model();
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "<|end|>", "<tool>", "\u2581", "a", "b", "ab", "\u2581ab"};
  std::vector<int32_t> types = {2, 3, 3, 3, 4, 1, 1, 1, 1, 5};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(fmt::format("<0x{:02X}>", byte)), types.push_back(6);
  ASSERT_GE(model.tokenizer.tokens.size(), tokens.size());
  while (tokens.size() < model.tokenizer.tokens.size()) tokens.push_back(fmt::format("w{}", tokens.size()));
  types.resize(tokens.size(), 1);
  const auto golden = nlohmann::json::parse(std::ifstream(source_file("tests/models/golden_sentencepiece.json")));
  const std::string map = from_base64(golden["rules"]["charsmap"]);
  GgufWriter w = tiny_gguf_writer(model);
  for (const char* key :
       {"model", "pre", "tokens", "token_type", "merges", "eos_token_id", "unknown_token_id", "padding_token_id"})
    w.erase(std::string("tokenizer.ggml.") + key);
  w.text("tokenizer.ggml.model", "llama");
  w.texts("tokenizer.ggml.tokens", tokens);
  w.i32s("tokenizer.ggml.token_type", types);
  std::string scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores += GgufWriter::bytes_of(-float(i));
  w.raw("tokenizer.ggml.scores", 9, GgufWriter::bytes_of(uint32_t(6)) + GgufWriter::bytes_of(tokens.size()) + scores);
  w.u32("tokenizer.ggml.eos_token_id", 2);
  w.u32("tokenizer.ggml.eot_token_id", 3);
  w.boolean("tokenizer.ggml.remove_extra_whitespaces", true);
  w.raw("tokenizer.ggml.precompiled_charsmap", 9,
        GgufWriter::bytes_of(uint32_t(GgufType::i8)) + GgufWriter::bytes_of(map.size()) + map);
  write_file(source_, w.file());
  quantize(source_, "w8a8", options());
  EXPECT_FALSE(fs::exists(out_ + "/tokenizer.json"));
  TokenizerData a = Checkpoint::open(source_).tokenizer(), b = Checkpoint::open(out_).tokenizer();
  EXPECT_TRUE(a == b);
  EXPECT_THAT(b.eos, testing::ElementsAre(2, 3));
  EXPECT_EQ(b.chat_template, model.tokenizer.chat_template);
  const Tokenizer source(a), stored(b);
  for (const char* text : {"ab  b ab<|end|> a<tool>b\n", " \u2460\u00e9 ab", "\xFF ab"}) {
    EXPECT_EQ(source.encode(text), stored.encode(text)) << text;
  }
  // The rules make "ab" an "x", which is no token but a byte.
  EXPECT_THAT(stored.encode("ab<|end|>a"), testing::ElementsAre(5, 10 + 'x', 3, 5, 6));
  // What only tokenizer_config.json can say.
  const std::string path = out_ + "/tokenizer_config.json";
  auto config = nlohmann::json::parse(std::ifstream(path));
  config["added_tokens_decoder"]["3"]["rstrip"] = true;
  write_file(path, config.dump());
  EXPECT_EQ(Tokenizer(Checkpoint::open(out_).tokenizer()).encode("<|end|> a"), stored.encode("<|end|>a"));
  config["added_tokens_decoder"]["3"]["content"] = "<|End|>";
  write_file(path, config.dump());
  expect_error([&] { Checkpoint::open(out_); }, {"tokenizer_config.json", "added token 3", "<|end|>"});
}

// Tokenizers of directories, of every kind, are copied: a vocabulary of the tiny model's size in each golden form.
TEST_F(Write, TokenizersOfDirectoriesAreCopied) {
  const std::string dir = dir_.file("hf");
  write_tiny_hf(make_tiny_model(), dir);
  const auto expect_same = [&](const std::string& kind, std::initializer_list<const char*> files) {
    SCOPED_TRACE(kind);
    fs::remove_all(out_);
    quantize(dir, "w8a8", options());
    const TokenizerData source = Checkpoint::open(dir).tokenizer();
    EXPECT_EQ(source.model, kind);
    EXPECT_TRUE(source == Checkpoint::open(out_).tokenizer());
    for (const char* name : files) {
      EXPECT_EQ(read_text_file(dir + "/" + name, 1 << 20), read_text_file(out_ + "/" + name, 1 << 20)) << name;
    }
  };
  expect_same("bpe", {"tokenizer.json", "tokenizer_config.json"});
  write_file(dir + "/chat_template.jinja", "{{ messages[0].content }}");
  write_file(dir + "/special_tokens_map.json", R"({"bos_token": "<s>"})");
  const auto golden = nlohmann::json::parse(std::ifstream(source_file("tests/models/golden_tokenizers.json")));
  fs::remove(dir + "/tokenizer_config.json");
  size_t forms = 0;
  for (const auto& entry : golden) {
    nlohmann::json model = entry["model"];
    model["vocab"] = nlohmann::json::object();
    for (const auto& [token, id] : entry["model"]["vocab"].items()) {
      if (id < 290) model["vocab"][token] = id;
    }
    model["merges"] = nlohmann::json::array();
    for (const auto& variant : entry["variants"]) {
      if (variant["name"] == "qwen 2" && !kHasNfc) continue;
      SCOPED_TRACE(variant["name"].get<std::string>());
      nlohmann::json tokenizer = {{"version", "1.0"}, {"model", model}};
      for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"}) {
        tokenizer[key] = variant[key];
      }
      int next = 290;
      for (auto& token : tokenizer["added_tokens"]) {
        if (token["id"] > 2) token["id"] = next++;
      }
      write_file(dir + "/tokenizer.json", tokenizer.dump());
      expect_same(model.value("byte_fallback", false) ? "char-bpe" : "bpe",
                  {"tokenizer.json", "chat_template.jinja", "special_tokens_map.json"});
      ++forms;
    }
  }
  EXPECT_GE(forms, 6u);
  fs::remove(dir + "/tokenizer.json");
  SentencePieceWriter w;
  w.piece("<unk>", 0, 2);
  w.piece("<s>", 0, 3);
  w.piece("</s>", 0, 3);
  for (const char* token : {"\u2581", "a", "b", "ab", "\u2581ab"}) w.piece(token, -1, 1);
  write_file(dir + "/tokenizer.model", w.file());
  expect_same("spm", {"tokenizer.model"});
}

}  // namespace
}  // namespace quire
