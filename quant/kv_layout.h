// Where a key or value lies in the paged cache: the only code that computes cache addresses, shared by host and device.
//
//   block = pool[layer] + (page * kv_heads + head) * layout.bytes          64 tokens a page, position = 64 * page_index
//   + row block = K codes | K high bits | K meta | V codes | V high bits | V meta, K and V parts on 128 bytes
// A part *is* a Tensor of 64 rows x head_dim, so codecs work on it unchanged.
#pragma once
#include "quant/formats.h"

namespace quire {

inline constexpr int64_t kPageTokens = 64;

// How one side (K or V) of the cache lies.
struct KvFormat {
  Codec codec = id<F16>;
  int32_t group = 0;  // channels a scale spans; 0: the head; 1: per channel
  int32_t span = 1;   // tokens a scale spans; > 1 makes a sealed page (the open page is kept in f16)
  Order order = Order::natural;
  QUIRE_HD bool sealed() const { return span > 1; }
  bool operator==(const KvFormat&) const = default;
};

struct KvPart {  // offsets from the start of a block
  int64_t codes = 0, high = 0, meta = 0;
  int64_t code_pitch = 0, high_pitch = 0, meta_pitch = 0;  // meta_pitch 0: no meta in the page, a static scale
};

struct KvLayout {
  KvFormat k_format, v_format;
  KvPart k, v;
  int64_t head_dim = 0, bytes = 0;
  QUIRE_HD bool sealed() const { return k_format.sealed() || v_format.sealed(); }
};

KvLayout kv_layout(const KvFormat& k, const KvFormat& v,
                   int64_t head_dim);  // Error if a format cannot hold head_dim channels

QUIRE_HD inline int64_t kv_block_offset(const KvLayout& layout, int64_t page, int64_t kv_heads, int64_t head) {
  return (page * kv_heads + head) * layout.bytes;
}

// One part of a block as a tensor (64, head_dim). static_scale: the f32 a format without meta multiplies by (fp8).
QUIRE_HD inline Tensor kv_part(std::byte* block, const KvFormat& format, const KvPart& part, int64_t head_dim,
                               const float* static_scale) {
  Tensor t;
  t.codec = format.codec;
  t.order = format.order;
  t.group = format.group;
  t.rows = kPageTokens;
  t.cols = head_dim;
  t.data = {block + part.codes, part.code_pitch, 1};
  if (part.high_pitch > 0) t.high = {block + part.high, part.high_pitch, 1};
  if (part.meta_pitch > 0) {
    t.scale = {block + part.meta, part.meta_pitch, format.span};
  } else {
    t.scale = {reinterpret_cast<std::byte*>(const_cast<float*>(static_scale)), 0, 1};
  }
  return t;
}
QUIRE_HD inline Tensor kv_keys(std::byte* block, const KvLayout& layout, const float* static_scale) {
  return kv_part(block, layout.k_format, layout.k, layout.head_dim, static_scale);
}
QUIRE_HD inline Tensor kv_values(std::byte* block, const KvLayout& layout, const float* static_scale) {
  return kv_part(block, layout.v_format, layout.v, layout.head_dim, static_scale);
}

}  // namespace quire
