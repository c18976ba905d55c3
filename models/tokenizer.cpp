#include "models/tokenizer.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/printable.h"
#include "base/utf8.h"
#include "models/bpe.h"
#include "models/byte_alphabet.h"
#include "models/normalize.h"
#include "models/sentencepiece.h"
#include "models/split_pattern.h"

namespace quire {

namespace {

// Spellings that are found in the text before anything else cuts it. Sorted, so that those which go on as the text does
// are one run, narrowed letter by letter: little grows with their number, and nothing with their length.
class Spellings {
 public:
  // They must outlive this.
  void add(std::string_view spelling, int32_t id, bool control) { list_.push_back({spelling, id, control}); }
  void sort() {
    std::sort(list_.begin(), list_.end(), [](const Entry& a, const Entry& b) { return a.spelling < b.spelling; });
    for (size_t byte = 0; byte < 256; ++byte) {
      const auto before = [&](const Entry& e) { return static_cast<uint8_t>(e.spelling[0]) <= byte; };
      begin_[byte + 1] = std::partition_point(list_.begin(), list_.end(), before) - list_.begin();
    }
  }

  struct Found {
    int32_t id = -1;
    bool control = false;
    size_t length = 0;
  };
  // The longest one that starts at text[at]; id -1 if none does.
  Found longest(std::string_view text, size_t at, bool with_control) const {
    Found best;
    const auto byte = static_cast<uint8_t>(text[at]);
    auto begin = list_.begin() + begin_[byte], end = list_.begin() + begin_[byte + 1];
    for (size_t length = 1; begin != end; ++length) {
      if (begin->spelling.size() == length) {  // the shortest comes first
        if (with_control || !begin->control) best = {begin->id, begin->control, length};
        ++begin;
      }
      if (at + length == text.size()) break;
      const auto next = static_cast<uint8_t>(text[at + length]);
      const auto letter = [&](const Entry& e) { return static_cast<uint8_t>(e.spelling[length]); };
      begin = std::partition_point(begin, end, [&](const Entry& e) { return letter(e) < next; });
      end = std::partition_point(begin, end, [&](const Entry& e) { return letter(e) == next; });
    }
    return best;
  }

 private:
  struct Entry {
    std::string_view spelling;
    int32_t id;
    bool control;
  };
  std::vector<Entry> list_;
  std::array<ptrdiff_t, 257> begin_{};  // by first byte: where those with it begin
};

// "<0x0A>": how vocabularies with byte fallback spell single bytes.
std::string byte_token(const std::string& token, size_t id) {
  const auto digit = [&](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const bool ok = token.size() == 6 && token.compare(0, 3, "<0x") == 0 && token[5] == '>' && digit(token[3]) >= 0 &&
                  digit(token[4]) >= 0;
  check(ok, "tokenizer: token {} '{}' is marked as a byte but is not spelled <0xNN>", id, printable(token));
  return std::string(1, static_cast<char>(digit(token[3]) * 16 + digit(token[4])));
}

}  // namespace

struct Tokenizer::State {
  TokenizerData data;
  TokenIds ids;
  std::vector<std::string> bytes;  // by id
  Spellings spellings;
  std::vector<SplitPattern> patterns;
  std::unordered_map<int32_t, TokenStrip> strips;
  std::unique_ptr<Bpe> bpe;  // or
  std::unique_ptr<SentencePiece> spm;

  explicit State(TokenizerData d);
  void check_id(int32_t id, const char* what) const;
  void add_token(size_t id);
  int32_t byte_id(uint8_t byte) const { return spm ? spm->byte_id(byte) : bpe->byte_id(byte); }
  bool characters() const { return data.model == "char-bpe"; }
  bool escapes() const { return spm || characters(); }  // spaces have a letter of their own
  TokenStrip strip_of(int32_t id) const {
    const auto it = strips.find(id);
    return it == strips.end() ? TokenStrip{id, false, false} : it->second;
  }
  // first: nothing comes before `text`.
  void encode_text(std::string_view text, bool first, std::vector<int32_t>& out) const;
  std::string escaped(std::string_view text, bool first) const;
  void encode_valid(std::string_view text, std::vector<int32_t>& out) const;
  void encode_spm(std::string_view text, std::vector<int32_t>& out) const;
};

Tokenizer::State::State(TokenizerData d) : data(std::move(d)) {
  check(data.model == "bpe" || data.model == "spm" || characters(),
        "tokenizer: model '{}' is not supported; byte-level 'bpe', 'char-bpe' and SentencePiece's 'spm' are",
        printable(data.model));
  check(!data.nfc || kHasNfc,
        "tokenizer: the model needs Unicode normalization; install libutf8proc-dev and build again");
  check(!data.tokens.empty() && data.tokens.size() < INT32_MAX, "tokenizer: a vocabulary of {} tokens",
        data.tokens.size());
  check(data.kinds.size() == data.tokens.size(), "tokenizer: {} tokens but {} kinds", data.tokens.size(),
        data.kinds.size());
  check_id(data.bos, "bos");
  check_id(data.unknown, "unknown");
  check_id(data.pad, "pad");
  for (const int32_t id : data.eos) check(id >= 0, "tokenizer: eos is {}", id);
  check(!data.add_bos || data.bos >= 0, "tokenizer: the model wants bos before every text but names none");
  ids.reserve(data.tokens.size());
  bytes.resize(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) add_token(id);
  spellings.sort();
  if (data.model == "spm") {
    spm = std::make_unique<SentencePiece>(data.sentencepiece, "tokenizer");
  } else {
    bpe = std::make_unique<Bpe>(data.merges, ids, data.unknown,
                                characters() ? Bpe::Symbols::characters : Bpe::Symbols::bytes);
  }
  for (const TokenStrip& strip : data.strips) {
    check_id(strip.id, "a token with white space");
    strips.emplace(strip.id, strip);
  }
  check(data.split_patterns.size() <= 100, "tokenizer: {} split patterns; at most 100 are supported",
        data.split_patterns.size());
  for (const std::string& pattern : data.split_patterns) patterns.emplace_back(pattern);
}

void Tokenizer::State::check_id(int32_t id, const char* what) const {
  check(id >= -1 && id < static_cast<int64_t>(data.tokens.size()), "tokenizer: {} is token {}, but there are {}", what,
        id, data.tokens.size());
}

void Tokenizer::State::add_token(size_t id) {
  const std::string& token = data.tokens[id];
  const auto [it, fresh] = ids.emplace(token, static_cast<int32_t>(id));
  check(fresh, "tokenizer: tokens {} and {} are both '{}'", it->second, id, printable(token));
  const TokenKind kind = data.kinds[id];
  if (kind == TokenKind::control || kind == TokenKind::user_defined) {
    check(!token.empty(), "tokenizer: special token {} is empty", id);
    spellings.add(token, static_cast<int32_t>(id), kind == TokenKind::control);
  }
  if (kind == TokenKind::byte)
    bytes[id] = byte_token(token, id);
  else if (data.model == "spm" || characters())  // of any kind: Gemma lists its runs of spaces as added tokens
    bytes[id] = replaced(token, kSpaceLetter, " ");
  else if (kind == TokenKind::normal)
    // Files mark some added tokens as normal; what is not in the byte alphabet is its own text, as in HuggingFace's
    // decoder.
    bytes[id] = bytes_of_letters(token).value_or(token);
  else
    bytes[id] = token;
}

// Text without special tokens: well-formed runs go through the patterns, every other byte is a token of its own.
void Tokenizer::State::encode_text(std::string_view text, bool first, std::vector<int32_t>& out) const {
  std::string own;
  if (spm) return encode_spm(text, out);
  if (characters()) text = own = escaped(text, first);
  while (!text.empty()) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid) encode_valid(text.substr(0, valid), out);
    if (valid < text.size()) out.push_back(byte_id(static_cast<uint8_t>(text[valid])));
    text.remove_prefix(std::min(text.size(), valid + 1));
  }
}

// The same, with the model's own space in front of each text.
void Tokenizer::State::encode_spm(std::string_view text, std::vector<int32_t>& out) const {
  for (bool front = true; !text.empty(); front = false) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid) {
      spm->encode(text.substr(0, valid), front, out);
    } else if (front && data.add_prefix_space) {
      spm->encode(" ", false, out);
    }
    if (valid < text.size()) out.push_back(spm->byte_id(static_cast<uint8_t>(text[valid])));
    text.remove_prefix(std::min(text.size(), valid + 1));
  }
}

// Spaces as their letter, with the one that models of this kind put in front.
std::string Tokenizer::State::escaped(std::string_view text, bool first) const {
  std::string out = replaced(text, " ", kSpaceLetter);
  const bool there = data.prefix_unless_there && out.starts_with(kSpaceLetter);
  if (data.add_prefix_space && !out.empty() && !there && (first || !data.prefix_first_only))
    out.insert(0, kSpaceLetter);
  return out;
}

void Tokenizer::State::encode_valid(std::string_view text, std::vector<int32_t>& out) const {
  std::string normal, prefixed;
  if (data.nfc) text = normal = nfc(text);
  if (!characters() && data.add_prefix_space && text[0] != ' ') text = prefixed = " " + std::string(text);
  std::vector<std::string_view> pieces{text}, next;
  for (const SplitPattern& pattern : patterns) {
    next.clear();
    pattern.split(pieces, next);
    pieces.swap(next);
  }
  for (const std::string_view piece : pieces) {
    if (data.whole_pieces) {
      std::string letters;
      for (const char c : piece) letters += byte_letter(static_cast<uint8_t>(c));
      const auto it = ids.find(characters() ? piece : letters);
      if (it != ids.end()) {
        out.push_back(it->second);
        continue;
      }
    }
    bpe->encode(piece, out);
  }
}

Tokenizer::Tokenizer(TokenizerData data) : state_(std::make_unique<State>(std::move(data))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  const TextRange all{0, text.size()};
  return encode(text, std::span(&all, parse_special ? 0 : 1));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, std::span<const TextRange> plain) const {
  const State& s = *state_;
  std::vector<int32_t> out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    while (!plain.empty() && plain[0].end <= at) plain = plain.subspan(1);
    auto found = s.spellings.longest(text, at, plain.empty() || at < plain[0].begin);
    if (found.control && !plain.empty() && at + found.length > plain[0].begin) {  // reaches into plain text
      found = s.spellings.longest(text, at, false);
    }
    if (found.id < 0) {
      ++at;
      continue;
    }
    const TokenStrip strip = s.strip_of(found.id);
    const std::string_view before = text.substr(done, at - done);
    s.encode_text(before.substr(0, before.size() - (strip.left ? trailing_space(before) : 0)), done == 0, out);
    out.push_back(found.id);
    at += found.length;
    if (strip.right) at += leading_space(text.substr(at));
    done = at;
  }
  s.encode_text(text.substr(done), done == 0, out);
  if (s.data.add_bos && (out.empty() || out[0] != s.data.bos)) out.insert(out.begin(), s.data.bos);
  return out;
}

std::string_view Tokenizer::bytes(int32_t id, bool special) const {
  check(id >= 0 && id < vocab_size(), "tokenizer: token {} of a vocabulary of {}", id, vocab_size());
  const TokenKind kind = state_->data.kinds[static_cast<size_t>(id)];
  const bool text = kind == TokenKind::normal || kind == TokenKind::user_defined || kind == TokenKind::byte;
  return text || special ? std::string_view(state_->bytes[static_cast<size_t>(id)]) : std::string_view();
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool special) const {
  std::string out;
  for (const int32_t id : ids) out += bytes(id, special);
  // The space that encode put before the text.
  if (state_->escapes() && state_->data.add_prefix_space && out.starts_with(' ')) out.erase(0, 1);
  return out;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->data.tokens.size()); }

bool Tokenizer::is_eos(int32_t id) const {
  const std::vector<int32_t>& eos = state_->data.eos;
  return std::find(eos.begin(), eos.end(), id) != eos.end();
}

const TokenizerData& Tokenizer::data() const { return state_->data; }

int32_t Tokenizer::find(std::string_view token) const {
  const auto it = state_->ids.find(token);
  return it == state_->ids.end() ? -1 : it->second;
}

}  // namespace quire
