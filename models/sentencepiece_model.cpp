#include "models/sentencepiece_model.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "models/protobuf.h"

namespace quire {

namespace {

// Fields of ModelProto and of the messages in it.
constexpr uint32_t kPiece = 1, kTrainer = 2, kNormalizer = 3, kDenormalizer = 5;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint32_t kModelType = 3, kSpaceIsSuffix = 24, kByteFallback = 35, kUnknownId = 40, kUnknownPiece = 45;
constexpr uint32_t kCharsmap = 2, kPrefix = 3, kRemoveSpaces = 4, kEscapeSpaces = 5;
constexpr int64_t kBpe = 2, kUserDefined = 4;  // of kModelType and of kPieceType

// A unit of a double-array trie as darts-clone lays it out: bit 31 marks a value (the bits below it); else the lowest
// byte is the label that leads here, bit 8 says that a value hangs below, and bits 10 and up, times 256 if bit 9 is
// set, are what is XORed to the unit's own index for the block of its children.
struct Unit {
  uint32_t bits;
  bool is_value() const { return bits >> 31 != 0; }
  uint32_t value() const { return bits & 0x7FFFFFFF; }
  uint32_t label() const { return bits & 0xFF; }
  bool has_value() const { return (bits >> 8 & 1) != 0; }
  uint32_t offset() const { return bits >> 10 << ((bits >> 9 & 1) * 8); }
};

// precompiled_charsmap: bytes of the trie (u32, little endian), the trie, texts that each end in NUL. Wherever a walk
// through the trie can lead must lie in it, and every value must be the place of a text. The library notes at most 32
// values on a walk, but does not stop there: so keys may have 32 bytes (the longest of its own tables has 12), and a
// text 64 (the longest of NFKC has 33): a letter that became a long one would be a way to ask for all memory.
void check_charsmap(std::string_view map, const std::string& where) {
  constexpr size_t kBlock = 256, kMostUnits = 1 << 20, kLongestKey = 32, kLongestText = 64;
  if (map.empty()) return;
  uint32_t size = 0;
  if (map.size() >= sizeof size) std::memcpy(&size, map.data(), sizeof size);
  const size_t count = size / sizeof(Unit);
  check(size > 0 && size < map.size() - sizeof size && size % (kBlock * sizeof(Unit)) == 0 && count <= kMostUnits &&
            map.back() == '\0',
        "{}: the table of normalization is damaged: {} bytes of a trie in {} bytes", where, size, map.size());
  std::vector<Unit> units(count);
  std::memcpy(units.data(), map.data() + sizeof size, size);
  const std::string_view texts = map.substr(sizeof size + size);
  const auto children = [&](size_t i) { return i ^ units[i].offset(); };
  for (size_t i = 0; i < count; ++i) {
    if (i > 0 && units[i].is_value()) continue;  // the walk begins at the first, whatever it says
    const bool inside = (children(i) | (kBlock - 1)) < count;
    check(inside && (!units[i].has_value() || units[children(i)].value() < texts.size()),
          "{}: the table of normalization is damaged: unit {} of {} leads out of it", where, i, count);
  }
  // All keys at once, a byte at a time: the blocks that they can have led to.
  std::vector<bool> here(count), next(count);
  here[children(0)] = true;
  for (size_t length = 1, any = 1; any; ++length) {
    any = 0;
    for (size_t i = 0; i < count; ++i) {
      if (units[i].is_value() || !here[i ^ units[i].label()]) continue;
      next[children(i)] = true;
      any = 1;
    }
    check(!any || length <= kLongestKey, "{}: the table of normalization has keys of more than {} bytes", where,
          kLongestKey);
    here.swap(next);
    std::fill(next.begin(), next.end(), false);
  }
  for (size_t at = 0; at < texts.size();) {
    const size_t end = texts.find('\0', at);
    check(end - at <= kLongestText, "{}: the table of normalization makes texts of {} bytes; at most {} are allowed",
          where, end - at, kLongestText);
    at = end + 1;
  }
}

// The library notes at most 64 user-defined tokens that begin at one place of a text, but does not stop there.
void check_user_defined(std::vector<std::string_view> tokens, const std::string& where) {
  constexpr size_t kMost = 64;
  std::sort(tokens.begin(), tokens.end());
  std::vector<std::string_view> begins;  // each with the next one's beginning, up to the token that is looked at
  for (const std::string_view token : tokens) {
    while (!begins.empty() && !token.starts_with(begins.back())) begins.pop_back();
    begins.push_back(token);
    check(begins.size() <= kMost, "{}: more than {} user-defined tokens begin with one another", where, kMost);
  }
}

}  // namespace

SentencePieceTraits check_sentencepiece_model(std::string_view model, const std::string& where) {
  bool prefix = true, trainer = false, normalizer = false;
  bool bpe = false, bytes = false, maps = false, removes = true;  // the message's defaults
  std::vector<std::string_view> user_defined;
  ProtoFields fields(model, where);
  while (fields.next()) {
    const uint32_t field = fields.number();
    if (field == kPiece) {
      ProtoFields piece(fields.text(), where);
      std::string_view text;
      int64_t type = 0;
      while (piece.next()) {
        if (piece.number() == kPieceText) text = piece.text();
        if (piece.number() == kPieceType) type = piece.integer();
      }
      if (type == kUserDefined) user_defined.push_back(text);
    }
    trainer = trainer || field == kTrainer;
    normalizer = normalizer || field == kNormalizer;
    if (field != kTrainer && field != kNormalizer && field != kDenormalizer) continue;
    ProtoFields m(fields.text(), where);
    while (m.next()) {
      if (field == kTrainer) {
        check(m.number() != kSpaceIsSuffix || m.integer() == 0, "{}: white space as a suffix is not supported", where);
        if (m.number() == kModelType) bpe = m.integer() == kBpe;
        if (m.number() == kByteFallback) bytes = m.integer() != 0;
        continue;
      }
      if (m.number() == kCharsmap) check_charsmap(m.text(), where);
      if (field == kDenormalizer) continue;
      if (m.number() == kCharsmap) maps = !m.text().empty();
      if (m.number() == kPrefix) prefix = m.integer() != 0;
      if (m.number() == kRemoveSpaces) removes = m.integer() != 0;
      check(m.number() != kEscapeSpaces || m.integer() != 0, "{}: spaces that are not escaped are not supported",
            where);
    }
  }
  check_user_defined(std::move(user_defined), where);
  // They are behind the vocabulary, and have defaults: without them a model would become one of another kind.
  check(trainer && normalizer, "{}: the model does not say how it was trained and how it normalizes: it is not whole",
        where);
  return {prefix, bpe && bytes && !maps && !removes};
}

std::string sentencepiece_model(const SentencePieceVocabulary& v) {
  std::vector<TokenKind> kinds = v.kinds;
  // Older files do not mark it.
  const bool marked = std::find(kinds.begin(), kinds.end(), TokenKind::unknown) != kinds.end();
  if (!marked && v.unknown >= 0 && size_t(v.unknown) < kinds.size()) kinds[size_t(v.unknown)] = TokenKind::unknown;
  std::string out;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    out += proto_text(kPiece, proto_text(kPieceText, v.tokens[i]) + proto_float(kPieceScore, v.scores[i]) +
                                  proto_integer(kPieceType, int64_t(kinds[i]) + 1));
  }
  const bool bytes = std::find(kinds.begin(), kinds.end(), TokenKind::byte) != kinds.end();
  std::string trainer = proto_integer(kModelType, kBpe) + proto_integer(kByteFallback, bytes);
  const int32_t ids[] = {v.unknown, v.bos, v.eos, v.pad};
  for (uint32_t i = 0; i < std::size(ids); ++i) {
    trainer += proto_integer(kUnknownId + i, ids[i]);
    if (ids[i] >= 0 && size_t(ids[i]) < v.tokens.size()) {
      trainer += proto_text(kUnknownPiece + i, v.tokens[size_t(ids[i])]);
    }
  }
  const std::string normalizer = proto_text(kCharsmap, v.charsmap) + proto_integer(kPrefix, v.prefix) +
                                 proto_integer(kRemoveSpaces, v.remove_extra_spaces) + proto_integer(kEscapeSpaces, 1);
  return out + proto_text(kTrainer, trainer) + proto_text(kNormalizer, normalizer);
}

}  // namespace quire
