// Protocol buffers' encoding, as far as SentencePiece's models need it: reading the fields of a message, and writing.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace quire {

// The fields of one message, in order. Every length is checked against the bytes that are left; Error (`where`, what)
// otherwise, and if a field is asked for as what it is not. Groups are refused.
class ProtoFields {
 public:
  ProtoFields(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool next();  // false: there are no more
  uint32_t number() const { return number_; }
  std::string_view text() const;  // or a message within this one
  int64_t integer() const;

 private:
  uint64_t varint();
  std::string_view take(uint64_t size);

  std::string_view bytes_;
  const std::string& where_;
  uint32_t number_ = 0, type_ = 0;
  uint64_t value_ = 0;
  std::string_view text_;
};

// One field each.
std::string proto_integer(uint32_t field, int64_t value);
std::string proto_float(uint32_t field, float value);
std::string proto_text(uint32_t field, std::string_view text);

}  // namespace quire
