// 16 lanes as plain arrays: what runs where there is no AVX2. Included inside a namespace.
struct Floats {
  float v[16];
};
struct Ints {
  int32_t v[16];
};
constexpr int kTileM = 4;  // rows of x in a tile
constexpr int kAccumulators = 4;

QUIRE_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
template <class To, class Fn>
QUIRE_INLINE To each(Fn fn) {
  To r;
  for (int l = 0; l < 16; ++l) r.v[l] = fn(l);
  return r;
}
QUIRE_INLINE Floats zero_floats() { return Floats{}; }
QUIRE_INLINE Floats load(const float* p) {
  Floats r;
  memcpy(r.v, p, sizeof r.v);
  return r;
}
QUIRE_INLINE void store(float* p, Floats x) { memcpy(p, x.v, sizeof x.v); }
QUIRE_INLINE Floats all(float x) {
  return each<Floats>([&](int) { return x; });
}
QUIRE_INLINE Floats fma(Floats x, Floats y, Floats z) {
  return each<Floats>([&](int l) { return std::fma(x.v[l], y.v[l], z.v[l]); });
}
QUIRE_INLINE Floats load_f16(const void* p) {
  const uint16_t* h = static_cast<const uint16_t*>(p);
  return each<Floats>([&](int l) { return f16_to_f32(h[l]); });
}
QUIRE_INLINE Ints load_u8(const void* p) {
  const uint8_t* b = static_cast<const uint8_t*>(p);
  return each<Ints>([&](int l) { return int32_t(b[l]); });
}
QUIRE_INLINE Ints bits(Ints x, int shift, int mask) {
  return each<Ints>([&](int l) { return int32_t(uint32_t(x.v[l]) >> shift) & mask; });
}
QUIRE_INLINE Floats to_floats(Ints x) {
  return each<Floats>([&](int l) { return float(x.v[l]); });
}
QUIRE_INLINE Floats e4m3_to_floats(Ints x) {
  return each<Floats>([&](int l) { return E4M3Scalar::decode(uint32_t(x.v[l])); });
}
