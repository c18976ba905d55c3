#include "models/sentencepiece_file.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/printable.h"

namespace quire {

namespace {

// The fields of one message, in order. Every length is checked against the bytes that are left.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    type_ = key & 7;
    check(field_ > 0, "{}: a field without a number", where_);
    if (type_ == 0) {
      number_ = varint();
    } else {
      check(type_ == 1 || type_ == 2 || type_ == 5, "{}: field {} has the wire type {}", where_, field_, type_);
      text_ = take(type_ == 1 ? 8 : type_ == 5 ? 4 : varint());
    }
    return true;
  }

  uint64_t field() const { return field_; }
  std::string_view text() const {
    check(type_ == 2, "{}: field {} is no text", where_, field_);
    return text_;
  }
  int64_t integer() const {
    check(type_ == 0, "{}: field {} is no integer", where_, field_);
    return static_cast<int64_t>(number_);
  }
  float real() const {
    check(type_ == 5, "{}: field {} is no float", where_, field_);
    float x;
    std::memcpy(&x, text_.data(), sizeof x);
    return x;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    fail(fmt::format("{}: a number of more than 64 bits", where_));
  }
  std::string_view take(uint64_t size) {
    check(size <= bytes_.size(), "{}: the file ends inside a field: {} bytes are announced, {} are left", where_, size,
          bytes_.size());
    const std::string_view taken = bytes_.substr(0, static_cast<size_t>(size));
    bytes_.remove_prefix(static_cast<size_t>(size));
    return taken;
  }

  std::string_view bytes_;
  const std::string& where_;
  uint64_t field_ = 0, type_ = 0, number_ = 0;
  std::string_view text_;
};

class Reader {
 public:
  explicit Reader(const std::string& path) : where_(fmt::format("'{}'", path)) {
    data_.model = "spm";
    data_.unknown = 0, data_.bos = 1;
    data_.add_prefix_space = true;
  }

  TokenizerData read(std::string_view bytes) {
    Message m(bytes, where_);
    while (m.next()) {
      if (m.field() == 1) read_piece(m.text());
      if (m.field() == 2) read_trainer(m.text());
      if (m.field() == 3) read_normalizer(m.text());
    }
    check(!data_.tokens.empty(), "{}: the file has no tokens", where_);
    check(bpe_, "{}: a model of the kind unigram, word or char is not supported; BPE is", where_);
    check(!removes_space_, "{}: removing extra white space is not supported", where_);
    const auto count = static_cast<int64_t>(data_.tokens.size());
    for (const int32_t id : {data_.bos, data_.unknown, data_.pad, eos_}) {
      check(id >= -1 && id < count, "{}: token {} is named, but there are {}", where_, id, count);
    }
    if (eos_ >= 0) data_.eos = {eos_};
    data_.add_bos = data_.bos >= 0;
    return std::move(data_);
  }

 private:
  void read_piece(std::string_view bytes) {
    Message m(bytes, where_);
    std::string text;
    float score = 0;
    int64_t type = 1;
    while (m.next()) {
      if (m.field() == 1) text = m.text();
      if (m.field() == 2) score = m.real();
      if (m.field() == 3) type = m.integer();
    }
    check(!text.empty() && std::isfinite(score) && type >= 1 && type <= 6,
          "{}: token {} '{}' has the score {} and the type {}", where_, data_.tokens.size(), printable(text), score,
          type);
    data_.tokens.push_back(std::move(text));
    data_.scores.push_back(score);
    data_.kinds.push_back(TokenKind(type - 1));
  }

  void read_trainer(std::string_view bytes) {
    Message m(bytes, where_);
    while (m.next()) {
      if (m.field() == 3) bpe_ = m.integer() == 2;
      if (m.field() == 24) check(m.integer() == 0, "{}: white space as a suffix is not supported", where_);
      if (m.field() == 40) data_.unknown = int32_t(m.integer());
      if (m.field() == 41) data_.bos = int32_t(m.integer());
      if (m.field() == 42) eos_ = int32_t(m.integer());
      if (m.field() == 43) data_.pad = int32_t(m.integer());
    }
  }

  void read_normalizer(std::string_view bytes) {
    Message m(bytes, where_);
    while (m.next()) {
      if (m.field() == 2) {
        check(m.text().empty(), "{}: normalizing text by rules of the model's own is not supported; 'identity' is",
              where_);
      }
      if (m.field() == 3) data_.add_prefix_space = m.integer() != 0;
      if (m.field() == 4) removes_space_ = m.integer() != 0;
      if (m.field() == 5) check(m.integer() != 0, "{}: spaces that are not escaped are not supported", where_);
    }
  }

  std::string where_;
  TokenizerData data_;
  int32_t eos_ = 2;
  bool bpe_ = false, removes_space_ = true;  // what the message's defaults are
};

}  // namespace

TokenizerData read_sentencepiece_file(const std::string& path) {
  constexpr size_t kMaxBytes = 100'000'000;
  return Reader(path).read(read_text_file(path, kMaxBytes));
}

}  // namespace quire
