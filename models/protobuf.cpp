#include "models/protobuf.h"

#include <cstring>

#include "base/error.h"

namespace quire {

namespace {

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint_of(uint64_t x) {
  std::string out;
  for (; x >= 128; x >>= 7) out += static_cast<char>(x | 128);
  return out += static_cast<char>(x);
}

std::string key_of(uint32_t field, WireType type) { return varint_of(uint64_t{field} << 3 | type); }

}  // namespace

bool ProtoFields::next() {
  if (bytes_.empty()) return false;
  const uint64_t key = varint();
  check(key >> 3 > 0 && key <= UINT32_MAX, "{}: a field with the number {}", where_, key >> 3);
  number_ = static_cast<uint32_t>(key >> 3);
  type_ = key & 7;
  if (type_ == kVarint) {
    value_ = varint();
  } else {
    check(type_ == kFixed64 || type_ == kBytes || type_ == kFixed32, "{}: field {} has the wire type {}", where_,
          number_, type_);
    text_ = take(type_ == kFixed64 ? 8 : type_ == kFixed32 ? 4 : varint());
  }
  return true;
}

std::string_view ProtoFields::text() const {
  check(type_ == kBytes, "{}: field {} is no text", where_, number_);
  return text_;
}

int64_t ProtoFields::integer() const {
  check(type_ == kVarint, "{}: field {} is no integer", where_, number_);
  return static_cast<int64_t>(value_);
}

uint64_t ProtoFields::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(take(1)[0]);
    value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) return value;
  }
  fail(fmt::format("{}: a number of more than 64 bits", where_));
}

std::string_view ProtoFields::take(uint64_t size) {
  check(size <= bytes_.size(), "{}: the file ends inside a field: {} bytes are announced, {} are left", where_, size,
        bytes_.size());
  const std::string_view taken = bytes_.substr(0, static_cast<size_t>(size));
  bytes_.remove_prefix(static_cast<size_t>(size));
  return taken;
}

std::string proto_integer(uint32_t field, int64_t value) {
  return key_of(field, kVarint) + varint_of(static_cast<uint64_t>(value));
}

std::string proto_float(uint32_t field, float value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return key_of(field, kFixed32) + bytes;
}

std::string proto_text(uint32_t field, std::string_view text) {
  return key_of(field, kBytes) + varint_of(text.size()) + std::string(text);
}

}  // namespace quire
