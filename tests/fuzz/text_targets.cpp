// Templates, patterns, text, and SentencePiece's models.
#include <nlohmann/json.hpp>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "engine/jinja/template.h"
#include "models/normalize.h"
#include "models/pre_tokenizers.h"
#include "models/sentencepiece.h"
#include "models/split_pattern.h"
#include "tests/fuzz/target.h"
#include "tests/models/sentencepiece_writer.h"
#include "tests/test_data.h"
#include "tests/tiny_model.h"

namespace quire::fuzz {

namespace {

using jinja::Value;

Value message(const char* role, const char* content) {
  return Value::dict({{Value::text("role"), Value::text(role)}, {Value::text("content"), Value::text(content)}});
}

bool run_template(std::string_view input) {
  // A hundredth of what a chat may use: the same paths in a hundredth of the time.
  constexpr jinja::Budget kBudget{2'000'000};
  const Value chats[] = {
      Value::list({message("system", " Be brief. "), message("user", "Hi <b>&'\"\n"),
                   message("assistant", "<think>x</think> Hello!"), message("user", "\u65e5\u672c \xFF")}),
      Value::list({message("user", "")}), Value::list({})};
  return accepted([&] {
    const jinja::Template parsed(input);
    for (const Value& chat : chats) {
      accepted([&] {
        parsed.render({{"messages", chat},
                       {"bos_token", Value::text("<s>")},
                       {"eos_token", Value::text("</s>")},
                       {"add_generation_prompt", Value::boolean(true)},
                       {"tools", Value::none()},
                       {"documents", Value::none()}},
                      kBudget);
      });
    }
  });
}

std::vector<std::string> template_seeds() {
  const auto json =
      nlohmann::json::parse(read_text_file(source_file("tests/engine/golden_templates.json"), size_t{1} << 24));
  std::vector<std::string> seeds;
  for (const auto& entry : json["cases"]) {
    const std::string source = entry["template"].get<std::string>();
    if (accepted([&] { const jinja::Template parsed(source); })) seeds.push_back(source);
  }
  promise(seeds.size() > 100, "there are templates to start from");
  return seeds;
}

std::vector<std::string> template_words() {
  return {"{{",        "}}",        "{%",       "%}",      "{#",         "#}",        "{%- ",      " -%}",
          "for ",      " in ",      "if ",      "elif ",   "else",       "endif",     "endfor",    "set ",
          "endset",    "macro ",    "endmacro", "call ",   "endcall",    "raw",       "endraw",    "break",
          "continue",  "loop.",     "messages", "range(",  "namespace(", "| join",    "|length",   "|tojson",
          "|replace(", "|map(",     "|select(", "|sort",   "|indent(",   "|default(", ".split(",   ".strip()",
          ".items()",  "**",        "//",       "%",       "~",          "[::-1]",    "[1:]",      "9999999",
          "not ",      " is ",      "defined",  "none",    "1e308",      "-1",        "'\\u0000'", "caller()",
          "recursive", "|groupby(", "|unique",  "|batch(", "|format",    ".replace(", "*9999"};
}

// Characters with byte fallback, as in Llama 2 and Gemma; tokens that take white space with them.
TokenizerData character_tokenizer() {
  TokenizerData t;
  t.model = "char-bpe";
  t.tokens = {"<unk>", "<s>", "</s>"};
  t.kinds.assign(3, TokenKind::control);
  for (int b = 0; b < 256; ++b) t.tokens.push_back(fmt::format("<0x{:02X}>", b));
  t.kinds.resize(t.tokens.size(), TokenKind::byte);
  for (const char* token : {"\u2581", "a", "t", "\u65e5", "\u672c", "\u2581t", "\u65e5\u672c", "\u2581\u2581"})
    t.tokens.emplace_back(token);
  t.merges = {"\u2581 t", "\u65e5 \u672c", "\u2581 \u2581"};
  t.kinds.resize(t.tokens.size(), TokenKind::normal);
  t.unknown = 0, t.bos = 1, t.eos = {2};
  t.strips = {{1, true, true}, {2, false, true}};
  t.add_bos = t.add_prefix_space = t.prefix_first_only = true;
  return t;
}

// First byte: which tokenizer. The rest: text.
const std::vector<Tokenizer>& tokenizers() {
  static const std::vector<Tokenizer> list = [] {
    std::vector<Tokenizer> made;
    for (const char* pre : {"smollm", "gpt-2", "llama3", "qwen2"}) {
      TokenizerData data = tiny_tokenizer();
      data.split_patterns = split_patterns_for(pre);
      data.whole_pieces = whole_pieces_for(pre);
      made.emplace_back(std::move(data));
    }
    TokenizerData data = tiny_tokenizer();
    data.split_patterns = split_patterns_for("gpt-2");
    data.add_bos = data.add_prefix_space = true;
    data.tokens.insert(data.tokens.end(), {"<tool>", "<tool>x", "\xC3\xA9\xC3\xA9"});
    data.kinds.insert(data.kinds.end(), {TokenKind::user_defined, TokenKind::control, TokenKind::user_defined});
    made.emplace_back(std::move(data));
    made.emplace_back(character_tokenizer());
    data = tiny_tokenizer();
    data.split_patterns = split_patterns_for("qwen2");
    data.nfc = kHasNfc;
    data.strips = {{1, true, true}};
    made.emplace_back(std::move(data));
    return made;
  }();
  return list;
}

bool run_tokenizer(std::string_view input) {
  if (input.empty()) return false;
  const Tokenizer& tokenizer = tokenizers()[size_t(uint8_t(input[0])) % tokenizers().size()];
  const std::string_view text = input.substr(1);
  const bool exact = !tokenizer.data().add_prefix_space && tokenizer.data().strips.empty();
  return accepted([&] {
    for (const bool special : {true, false}) {
      const std::vector<int32_t> ids = tokenizer.encode(text, special);
      for (const int32_t id : ids) promise(id >= 0 && id < tokenizer.vocab_size(), "ids are in the vocabulary");
      promise(!exact || tokenizer.decode(ids, true) == text, "decoding gives the text back");
    }
  });
}

std::vector<std::string> tokenizer_seeds() {
  std::vector<std::string> seeds;
  for (char which = 0; which < 7; ++which) {
    seeds.push_back(which + std::string("<|im_start|>user\nWhat's 12345 + 6?<|im_end|>\n\n   \t\r\n"));
    seeds.push_back(
        which + std::string("na\u00efve \u65e5\u672c\u8a9e \U0001F600\u200d \u0301\xFF\xC3(\xF4\x90\x80\x80 <tool>x"));
  }
  return seeds;
}

// tokenizer.model. The library must not be led astray by its text either.
bool run_tokenizer_model(std::string_view input) {
  return accepted([&] {
    const Tokenizer tokenizer(read_sentencepiece(std::string(input), "tokenizer.model"));
    use(tokenizer);
    for (const int32_t id : tokenizer.encode("\u2460\ufb03ce\u3000abcab \u200b e\u0301\xFF  the\xC3", false)) {
      promise(id >= 0 && id < tokenizer.vocab_size(), "ids are in the vocabulary");
    }
  });
}

std::vector<std::string> tokenizer_model_seeds() {
  const auto golden =
      nlohmann::json::parse(read_text_file(source_file("tests/models/golden_sentencepiece.json"), size_t{1} << 24));
  std::vector<std::string> seeds;
  for (const auto& entry : golden) seeds.push_back(SentencePieceWriter::golden(entry).file());
  // Little beside the table of normalization, so that damage meets it.
  SentencePieceWriter w;
  w.piece("<unk>", 0, 2);
  for (const char* token : {"\u2581", "a", "y", "x", "\u2581y"}) w.piece(token, -1, 1);
  w.piece("the", -1, 4);
  w.charsmap = from_base64(golden["rules"]["charsmap"]);
  for (const int64_t type : {1, 2}) w.type = type, seeds.push_back(w.file());
  return seeds;
}

// Pattern, NUL, text.
bool run_pattern(std::string_view input) {
  const size_t nul = std::min(input.find('\0'), input.size());
  std::string_view text = input.substr(std::min(nul + 1, input.size()));
  text = text.substr(0, utf8_valid_prefix(text));
  return accepted([&] {
    const SplitPattern pattern{std::string(input.substr(0, nul))};
    std::vector<std::string_view> pieces;
    pattern.split(std::span(&text, 1), pieces);
    std::string joined;
    for (const std::string_view piece : pieces) {
      promise(!piece.empty() && utf8_valid_prefix(piece) == piece.size(), "pieces are whole characters");
      joined += piece;
    }
    promise(joined == text, "the pieces are the text");
  });
}

std::vector<std::string> pattern_seeds() {
  const std::string text = std::string(1, '\0') + "It's 2024, na\u00efve  \u65e5\u672c \U0001F600aaaaaaaaaaaa\n\n  x";
  std::vector<std::string> seeds;
  for (const char* pre : {"smollm", "gpt-2", "llama3", "qwen2"}) {
    for (const std::string& pattern : split_patterns_for(pre)) seeds.push_back(pattern + text);
  }
  for (const char* pattern :
       {"(a*)*b", "(?<=a)a\\Kb?", "[^]s]|[\\s\\S]", "(?:a|b)+?(?=\\w)", "\\b", "(\\w)\\1", "(?i)\\p{Lu}"})
    seeds.push_back(pattern + text);
  return seeds;
}

std::vector<std::string> pattern_words() {
  return {"\\s",   "\\S",    "\\p{L}", "\\K",    "(?=",       "(?!",     "(?<=", "(?>",   "(?i:", "(?R)", "(*ACCEPT)",
          "{1,3}", "{0,99}", "[^\\s",  "(a|a)*", "(*UTF)",    "\\C",     "\\R",  "\\X",   "++",   "*?",   "\\x{10FFFF}",
          "[]]",   "\\Q",    "\\E",    "(?C1)",  "(*COMMIT)", "(*SKIP)", "(?|",  "(?(1)", "\\b",  "$",    "^"};
}

}  // namespace

std::vector<Target> text_targets() {
  // A template may make a text of 16 MiB, and lists of as many values as its budget pays for.
  return {
      {"template", run_template, template_seeds, template_words(), 4000, size_t{256} << 20},
      {"tokenizer",
       run_tokenizer,
       tokenizer_seeds,
       {"<|im_end|>", "<tool>", "\xC3\xA9", " \n", "'ll", "\u0130", "\u00A0"},
       3000,
       1 << 20},
      {"tokenizer_model",
       run_tokenizer_model,
       tokenizer_model_seeds,
       {"\x1a\x02\x20\x01", std::string("\x1a\x02\x18\0", 4), "\x12\x02\x18\x01", "\x12\x02\x18\x02", "<s>", "\u2581"},
       1500,
       16 << 20},
      {"pattern", run_pattern, pattern_seeds, pattern_words(), 3000, 1 << 20}};
}

}  // namespace quire::fuzz
