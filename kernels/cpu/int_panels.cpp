#include <cstring>

#include "kernels/cpu/panels.h"

namespace quire::cpu {

namespace {

// What packing knows about a codec: its unsigned field and what lies beside the codes of a group.
template <class C>
struct Field {
  static constexpr int kBits = 0;  // no panels
};

template <int Bits, Zero Z>
struct Field<Affine<Bits, Z>> {
  using C = Affine<Bits, Z>;
  static constexpr int kBits = Bits == 8 ? 8 : 4;
  static constexpr int kBias = Z == Zero::none ? 1 << (Bits - 1) : 0;
  static constexpr Second kSecond = Z == Zero::integer ? Second::zero : Second::bias;
  static constexpr bool kHalf = Z == Zero::offset;
  static int field(const Tensor& t, int64_t r, int64_t c) {
    if constexpr (Bits == 8 && Z == Zero::none) return C::code(t, r, c) + kBias;
    return C::field(t, r, c);
  }
  static void second(const Tensor& t, int64_t r, int64_t g, std::byte* out) {
    if constexpr (Z == Zero::integer) out[0] = t.aux.row<const std::byte>(r)[g];
  }
};

template <int Bits, bool HasMin>
struct Field<GgufBlock<Bits, HasMin>> {
  using C = GgufBlock<Bits, HasMin>;
  static constexpr int kBits = Bits == 4 ? 4 : 8;
  static constexpr int kBias = HasMin ? 0 : 1 << (Bits - 1);
  static constexpr Second kSecond = Second::bias;
  static constexpr bool kHalf = true;
  static int field(const Tensor& t, int64_t r, int64_t c) { return C::code(t, r, c) + kBias; }
  static void second(const Tensor&, int64_t, int64_t, std::byte*) {}
};

template <class B>
struct Field<ReadBlock<B>> {
  static constexpr int kBits = B::kField;
  static constexpr int kBias = B::kBias;
  static constexpr Second kSecond = Second::bias;
  static constexpr int kSuper = B::kSuper;
  static constexpr bool kHalf = [] {
    if constexpr (kSuper == 0) return B::kHalf;
    return true;
  }();
  static int field(const Tensor& t, int64_t r, int64_t c) {
    if constexpr (requires { B::level(0); }) return B::field(ReadBlock<B>::block(t, r, c), int(c % B::kValues));
    return ReadBlock<B>::code(t, r, c) + kBias;
  }
  static int level(int index) requires requires { B::level(0); }
  { return B::level(index) + kBias; }
  static void second(const Tensor&, int64_t, int64_t, std::byte*) {}
};

template <int E, int M, int Bias, uint32_t kMax>
struct Field<ScaledFloat<MiniFloat<E, M, Bias, kMax>>> {
  using C = ScaledFloat<MiniFloat<E, M, Bias, kMax>>;
  static constexpr int kBits = C::kBits;
  static constexpr int kBias = 0;
  static constexpr Second kSecond = Second::bias;
  static constexpr bool kHalf = false;
  static SmallFloat small() { return {kBits, M, f32_from_bits(uint32_t(127 + 127 - Bias) << 23)}; }
  static int field(const Tensor& t, int64_t r, int64_t c) { return int(C::code(t, r, c)); }
  static void second(const Tensor&, int64_t, int64_t, std::byte*) {}
};

template <>
struct Field<Lut4> {
  static constexpr int kBits = 4;
  static constexpr int kBias = 0;
  static constexpr Second kSecond = Second::bias;
  static constexpr bool kHalf = false;
  static int field(const Tensor& t, int64_t r, int64_t c) { return Lut4::field(t, r, c); }
  static void second(const Tensor&, int64_t, int64_t, std::byte*) {}
};

template <>
struct Field<TwoLevel4> {
  static constexpr int kBits = 4;
  static constexpr int kBias = 0;
  static constexpr Second kSecond = Second::steps;
  static constexpr bool kHalf = false;
  static int field(const Tensor& t, int64_t r, int64_t c) { return TwoLevel4::field(t, r, c); }
  static void second(const Tensor& t, int64_t r, int64_t g, std::byte* out) {
    const std::byte* from = t.aux.row<const std::byte>(r) + 2 * g;
    out[0] = from[0];
    out[kPanel] = from[1];
  }
};

int field_bits(Codec codec) {
  return visit(codec, []<class C>(C) { return Field<C>::kBits; });
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

bool supports(const MatmulProblem& p) {
  if (p.k == 0 || p.x.group < 0 || p.w.group < 0) return false;
  if (!integer_rule(p) || p.w.group == 0 || p.x.group == 0) return true;
  return p.w.group % p.x.group == 0 || p.x.group % p.w.group == 0;
}
bool supports_bytes(const MatmulProblem& p) { return field_bits(p.w.codec) == 8 && supports(p); }
bool supports_nibbles(const MatmulProblem& p) { return field_bits(p.w.codec) % 8 > 0 && supports(p); }

int64_t bytes(const MatmulProblem& p) { return (p.n + kPanel - 1) / kPanel * int_panels(p).panel_bytes; }

// Where element (row, k) of a panel lies.
struct Place {
  int64_t at, upper;  // bytes
  int shift, upper_shift;
};
Place place(const IntPanels& s, int64_t lane, int64_t k) {
  const int64_t i = k / s.sub, in = k % s.sub, chunk = i * s.sub_chunks() + in / s.chunk, column = lane * 4 + in % 4;
  const int64_t upper = s.upper_at + (i * s.upper_chunks(s.sub_chunks()) + in / 16) * 64 + column;
  return {chunk * 64 + column, upper, in % s.chunk >= 4 ? 4 : 0, int(in % 16 / 4 * 2)};
}
int field_at(const IntPanels& s, const std::byte* panel, int64_t lane, int64_t k) {
  const Place p = place(s, lane, k);
  if (s.chunk == 4) return int(panel[p.at]);
  const int lower = int(panel[p.at]) >> p.shift & 15;
  if (s.leveled) return int(s.levels[lower]);
  return s.upper_at ? lower | (int(panel[p.upper]) >> p.upper_shift & 3) << 4 : lower;
}

void put_scale(const IntPanels& s, const AffineParams& a, int64_t lane, std::byte* at) {
  if (s.half) {  // the codec's scales are f16: this loses nothing
    const uint16_t scale = f32_to_f16(a.scale), offset = f32_to_f16(a.offset);
    std::memcpy(at + lane * 2, &scale, 2);
    if (s.offset) std::memcpy(at + s.scale_bytes() + lane * 2, &offset, 2);
  } else {
    std::memcpy(at + lane * 4, &a.scale, 4);
  }
}

// Scale and minimum of group g of a two-level block, and what it shares with its neighbours.
template <class B>
void put_levels(const IntPanels& s, const Tensor& src, int64_t r, int64_t g, int64_t lane, std::byte* panel) {
  const uint8_t* block = ReadBlock<B>::block(src, r, g * B::kGroup);
  const int j = int(g % B::kSuper);
  std::byte* meta = panel + s.meta_at + g * s.group_bytes + lane;
  std::byte* above = panel + s.super_at(g) + lane * 2;
  const uint16_t d = B::d(block);
  meta[0] = std::byte(B::scale(block, j));
  std::memcpy(above, &d, 2);
  if constexpr (B::kOffset) {
    const uint16_t less = B::dmin(block) ^ 0x8000;  // offset = -dmin * min
    meta[kPanel] = std::byte(B::min(block, j));
    std::memcpy(above + 2 * kPanel, &less, 2);
  }
}

AffineParams get_levels(const IntPanels& s, int64_t g, int64_t lane, const std::byte* panel) {
  const std::byte* meta = panel + s.meta_at + g * s.group_bytes + lane;
  const std::byte* above = panel + s.super_at(g) + lane * 2;
  uint16_t d, less = 0;
  std::memcpy(&d, above, 2);
  AffineParams a{f16_to_f32(d) * float(int8_t(meta[0])), 0.0f};
  if (s.offset) {
    std::memcpy(&less, above + 2 * kPanel, 2);
    a.offset = f16_to_f32(less) * float(int8_t(meta[kPanel]));
  }
  return a;
}

AffineParams get_scale(const IntPanels& s, int64_t lane, const std::byte* at) {
  AffineParams a{0.0f, 0.0f};
  if (s.half) {
    uint16_t scale, offset = 0;
    std::memcpy(&scale, at + lane * 2, 2);
    if (s.offset) std::memcpy(&offset, at + s.scale_bytes() + lane * 2, 2);
    a = {f16_to_f32(scale), f16_to_f32(offset)};
  } else {
    std::memcpy(&a.scale, at + lane * 4, 4);
  }
  return a;
}

template <class C>
void pack_row(const Tensor src, int64_t r, const IntPanels& s, int64_t lane, std::byte* panel) {
  std::byte* at = panel + lane * 4;
  for (int64_t i = 0; i < s.subs; ++i) {
    const int64_t end = s.sub_end(i);
    for (int64_t k = i * s.sub; k < end; k += s.chunk, at += 64) {
      for (int64_t j = 0; j < s.chunk && k + j < end; ++j) {
        const int field = Field<C>::field(src, r, k + j);
        const int lower = Field<C>::kBits == 8 ? field : field & 15;
        at[j % 4] |= std::byte(j >= 4 ? lower << 4 : lower);
        if (Field<C>::kBits == 6) {
          const Place p = place(s, lane, k + j);
          panel[p.upper] |= std::byte(field >> 4 << p.upper_shift);
        }
      }
    }
  }
  for (int64_t g = 0; g < s.groups(); ++g) {
    if constexpr (requires { Field<C>::kSuper; }) {
      if constexpr (Field<C>::kSuper > 0) {
        put_levels<typename C::Block>(s, src, r, g, lane, panel);
        continue;
      }
    }
    std::byte* meta = panel + s.meta_at + g * s.group_bytes;
    if (!s.row_scale_at) put_scale(s, C::affine(src, r, g), lane, meta);
    Field<C>::second(src, r, g, meta + s.second_at() + lane);
  }
  if (s.row_scale_at) put_scale(s, C::affine(src, r, 0), lane, panel + s.row_scale_at);
  if (s.table_at) std::memcpy(panel + s.table_at, src.table.ptr, size_t(info(src.codec).table_bytes));
}

void pack(const Tensor& src, const MatmulProblem& p, int64_t row0, std::byte* dst) {
  const IntPanels s = int_panels(p);
  visit(src.codec, [&]<class C>(C) {
    if constexpr (Field<C>::kBits > 0) {
      for (int64_t r = 0; r < src.rows; ++r) {
        const int64_t n = row0 + r;
        pack_row<C>(src, r, s, n % kPanel, dst + n / kPanel * s.panel_bytes);
      }
    }
  });
}

float small_float(const SmallFloat& f, uint32_t code) {
  const uint32_t sign = 1u << (f.bits - 1), magnitude = (code & (sign - 1)) << (23 - f.mantissa);
  return f32_from_bits(f32_bits(f32_from_bits(magnitude) * f.power) | (code & sign) << (32 - f.bits));
}

void unpack(const std::byte* src, const MatmulProblem& p, int64_t n, float* out) {
  const IntPanels s = int_panels(p);
  const int64_t lane = n % kPanel;
  const std::byte* panel = src + n / kPanel * s.panel_bytes;
  for (int64_t k = 0; k < p.k; ++k) {
    const int64_t g = k / s.sub / s.subs_per_group;
    const std::byte* meta = panel + s.meta_at + g * s.group_bytes;
    const AffineParams a = s.two_levels() ? get_levels(s, g, lane, panel)
                                          : get_scale(s, lane, s.row_scale_at ? panel + s.row_scale_at : meta);
    const int field = field_at(s, panel, lane, k);
    const std::byte* second = meta + s.second_at() + lane;
    int code = field - s.bias;
    if (s.second == Second::zero) code = field - int(second[0]);
    if (s.second == Second::steps) code = field * int(second[0]) + int(int8_t(second[kPanel]));
    float q = s.small.bits ? small_float(s.small, uint32_t(field)) : float(code);
    if (s.table_at) std::memcpy(&q, panel + s.table_at + field * 4, 4);
    out[k] = s.offset ? a.scale * q + a.offset : a.scale * q;
  }
}

}  // namespace

IntPanels int_panels(const MatmulProblem& p) {
  IntPanels s{};
  s.n = p.n;
  s.k = p.k;
  visit(p.w.codec, [&]<class C>(C) {
    if constexpr (Field<C>::kBits > 0) {
      s.chunk = Field<C>::kBits == 8 ? 4 : 8;
      s.bias = Field<C>::kBias;
      s.second = Field<C>::kSecond;
      s.half = Field<C>::kHalf;
      s.offset = C::kOffset;
      if constexpr (requires { Field<C>::small(); }) s.small = Field<C>::small();
      if constexpr (requires { Field<C>::kSuper; }) s.super = Field<C>::kSuper;
      if constexpr (requires { Field<C>::level(0); }) {
        s.leveled = true;
        for (int i = 0; i < 64; ++i) s.levels[i] = std::byte(Field<C>::level(i % 16));
      }
    }
  });
  const int64_t gw = p.w.group, gx = integer_rule(p) ? p.x.group : 0, scales = scale_group(p.w);
  s.sub = std::min(p.k, gw == 0 ? (gx == 0 ? p.k : gx) : gx == 0 ? gw : std::min(gw, gx));
  s.subs = (p.k + s.sub - 1) / s.sub;
  const int64_t segment = scales == 0 ? gx : gx == 0 ? scales : std::min(scales, gx);
  s.row_rule = segment == 0;
  s.subs_per_segment = segment == 0 ? s.subs : std::max<int64_t>(1, segment / s.sub);
  s.subs_per_group = gw == 0 ? s.subs : std::max<int64_t>(1, gw / s.sub);
  s.subs_per_x = gx == 0 ? 0 : std::max<int64_t>(1, gx / s.sub);
  const bool row_scale = s.second == Second::steps;
  const int64_t second = s.second == Second::bias ? 0 : s.second == Second::zero ? kPanel : 2 * kPanel;
  s.group_bytes = (row_scale ? 0 : s.scale_bytes() * (s.offset ? 2 : 1)) + second;
  if (s.two_levels()) s.group_bytes = s.offset ? 2 * kPanel : kPanel;
  const int64_t codes = s.padded_k() / s.chunk * 64;
  s.upper_at = field_bits(p.w.codec) == 6 ? codes : 0;
  s.meta_at = codes + ((s.subs - 1) * s.upper_chunks(s.sub_chunks()) + s.upper_chunks(s.chunks(s.subs - 1))) * 64;
  const int64_t end =
      s.two_levels() ? s.super_at(round_up(s.groups(), s.super)) : s.meta_at + s.groups() * s.group_bytes;
  s.row_scale_at = row_scale ? end : 0;
  const int64_t table = info(p.w.codec).table_bytes;
  s.table_at = table > 0 ? end : 0;  // one a panel: parts of a fused weight may have tables of their own
  s.panel_bytes = round_up(end + (row_scale ? s.scale_bytes() : table), 64);
  return s;
}

const WeightLayout kBytePanels = {"byte_panels", supports_bytes, bytes, pack, unpack};
const WeightLayout kNibblePanels = {"nibble_panels", supports_nibbles, bytes, pack, unpack};

}  // namespace quire::cpu
