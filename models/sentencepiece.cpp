#include "models/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <cmath>
#include <cstdlib>
#include <mutex>

#include "base/error.h"
#include "base/printable.h"
#include "models/normalize.h"
#include "models/sentencepiece_model.h"

namespace quire {

namespace {

using sentencepiece::SentencePieceProcessor;

void load(SentencePieceProcessor& processor, std::string_view model, const std::string& where) {
  check(model.size() < INT32_MAX, "{}: {} bytes are too many", where, model.size());
  std::string message;
  try {
    const auto status = processor.LoadFromSerializedProto({model.data(), model.size()});
    if (status.ok()) return;
    message = status.ToString();
  } catch (const std::exception& e) {  // of the tries that it builds
    message = e.what();
  }
  fail(fmt::format("{}: SentencePiece cannot load this model: {}", where, printable(message)));
}

}  // namespace

struct SentencePiece::State {
  std::string_view model;
  std::string where;
  SentencePieceTraits traits;
  int32_t unknown = -1;
  SentencePieceProcessor whole;
  // Without the space in front, which only long texts and those that are no UTF-8 need: loaded when the first comes.
  mutable std::once_flag bare_once;
  mutable SentencePieceProcessor bare;
  std::array<int32_t, 256> bytes;
  // By two bytes: whether a token has them side by side. Where none has, a text can be cut without changing its ids.
  // The library takes two to three times longer for a long text in one piece. Empty: texts are not cut.
  std::vector<bool> joined;

  const SentencePieceProcessor& without_prefix() const {
    if (!traits.prefix) return whole;
    std::call_once(bare_once, [&] { load(bare, std::string(model) += kWithoutPrefix, where); });
    return bare;
  }
  void find_joined() {
    if (!traits.merges) return;
    joined.assign(65536, false);
    for (int id = 0; id < whole.GetPieceSize(); ++id) {
      const std::string& piece = whole.IdToPiece(id);
      for (size_t i = 1; i < piece.size(); ++i) joined[pair(piece[i - 1], piece[i])] = true;
    }
  }
  // Spaces count as their letter: its last byte before, its first after.
  static size_t pair(char before, char after) {
    const char a = before == ' ' ? kSpaceLetter.back() : before, b = after == ' ' ? kSpaceLetter.front() : after;
    return size_t{static_cast<uint8_t>(a)} << 8 | static_cast<uint8_t>(b);
  }
  // Where to cut a text: before a character, some way in.
  size_t cut(std::string_view text) const {
    constexpr size_t kLeast = 2048;
    for (size_t at = kLeast; !joined.empty() && at < text.size(); ++at) {
      if ((text[at] & 0xC0) != 0x80 && !joined[pair(text[at - 1], text[at])]) return at;
    }
    return text.size();
  }
  TokenKind kind(int id) const {
    return whole.IsUnknown(id)   ? TokenKind::unknown
           : whole.IsControl(id) ? TokenKind::control
           : whole.IsUnused(id)  ? TokenKind::unused
           : whole.IsByte(id)    ? TokenKind::byte
                                 : TokenKind::normal;
  }
};

SentencePiece::SentencePiece(std::string_view model, const std::string& where) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.model = model;
  s.where = where;
  s.traits = check_sentencepiece_model(model, where);
  load(s.whole, model, where);
  for (int id = 0; id < s.whole.GetPieceSize(); ++id) {
    check(std::isfinite(s.whole.GetScore(id)), "{}: token {} has the score {}", where, id, s.whole.GetScore(id));
    if (s.whole.IsUnknown(id)) s.unknown = id;  // one is, as the library has seen to; unk_id() goes by its spelling
  }
  s.find_joined();
  s.bytes.fill(s.unknown);
  for (int id = 0; id < s.whole.GetPieceSize(); ++id) {
    if (!s.whole.IsByte(id)) continue;
    s.bytes[std::strtoul(s.whole.IdToPiece(id).c_str() + 3, nullptr, 16) & 255] = id;  // "<0xNN>", as the library saw
  }
}

SentencePiece::~SentencePiece() = default;

TokenizerData SentencePiece::describe() const {
  const SentencePieceProcessor& p = state_->whole;
  TokenizerData data;
  data.model = "spm";
  for (int id = 0; id < p.GetPieceSize(); ++id) {
    data.tokens.push_back(p.IdToPiece(id));
    data.kinds.push_back(state_->kind(id));
  }
  data.unknown = state_->unknown, data.bos = p.bos_id(), data.pad = p.pad_id();
  if (p.eos_id() >= 0) data.eos = {p.eos_id()};
  data.add_bos = data.bos >= 0;
  data.add_prefix_space = state_->traits.prefix;
  return data;
}

void SentencePiece::encode(std::string_view text, bool prefix, std::vector<int32_t>& out) const {
  check(text.size() < INT32_MAX, "tokenizer: a text of {} bytes is too long", text.size());
  std::vector<int> ids;
  for (; !text.empty(); prefix = false) {
    const std::string_view piece = text.substr(0, state_->cut(text));
    const SentencePieceProcessor& processor = prefix ? state_->whole : state_->without_prefix();
    const auto status = processor.Encode({piece.data(), piece.size()}, &ids);
    check(status.ok(), "tokenizer: SentencePiece cannot encode this text: {}", printable(status.ToString()));
    out.insert(out.end(), ids.begin(), ids.end());
    text.remove_prefix(piece.size());
  }
}

int32_t SentencePiece::byte_id(uint8_t byte) const { return state_->bytes[byte]; }

TokenizerData read_sentencepiece(std::string model, const std::string& where) {
  TokenizerData data = SentencePiece(model, where).describe();
  data.sentencepiece = std::move(model);
  return data;
}

}  // namespace quire
