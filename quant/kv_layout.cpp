#include "quant/kv_layout.h"

namespace quire {

namespace {

// Lays one side out from `used` on; returns the bytes used so far.
int64_t lay_out(const KvFormat& format, int64_t head_dim, int64_t used, KvPart& part) {
  const CodecInfo& codec = info(format.codec);
  const int64_t groups = format.group > 0 ? (head_dim + format.group - 1) / format.group : 1;
  check(codec.group == 0 && codec.row_bytes(head_dim, groups).aux == 0, "{} is no cache format", codec.name);
  check(format.span >= 1 && kPageTokens % format.span == 0, "a cache page of {} tokens cannot hold spans of {}",
        kPageTokens, format.span);
  check(head_dim > 0 && head_dim % 16 == 0 && (format.group <= 1 || head_dim % format.group == 0),
        "a {} cache needs heads of a multiple of 16{} channels, not {}", to_string(Format{format.codec, format.group}),
        format.group > 1 ? fmt::format(" and of {}", format.group) : "", head_dim);
  const RowBytes bytes = codec.row_bytes(head_dim, groups);
  const auto aligned = [](int64_t n) { return (n + 127) / 128 * 128; };
  used = aligned(used);
  part.codes = used;
  part.code_pitch = bytes.data;
  used += kPageTokens * bytes.data;
  if (bytes.high > 0) {
    part.high = used;
    part.high_pitch = bytes.high;
    used += kPageTokens * bytes.high;
  }
  // f32 scales (fp8) are static in the cache; f16 {scale, min} pairs lie in the page.
  if (bytes.scale > 0 && codec.integer) {
    used = aligned(used);
    part.meta = used;
    part.meta_pitch = bytes.scale;
    used += kPageTokens / format.span * bytes.scale;
  }
  return aligned(used);
}

}  // namespace

KvLayout kv_layout(const KvFormat& k, const KvFormat& v, int64_t head_dim) {
  KvLayout layout;
  layout.k_format = k;
  layout.v_format = v;
  layout.head_dim = head_dim;
  layout.bytes = lay_out(k, head_dim, 0, layout.k);
  layout.bytes = lay_out(v, head_dim, layout.bytes, layout.v);
  return layout;
}

}  // namespace quire
