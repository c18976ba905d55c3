// Float panels to f32 [k][16]. Included inside a target region and a namespace, after lanes_*.inl.

void decode_f16(const uint16_t* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  for (int64_t k = k0; k < k1; ++k, out += kPanel) {
    prefetch(reinterpret_cast<const char*>(panel + k * kPanel) + ahead);
    store(out, load_f16(panel + k * kPanel));
  }
}
void decode_bf16(const uint16_t* panel, int64_t k0, int64_t k1, int64_t ahead, float* out) {
  for (int64_t k = k0; k < k1; ++k, out += kPanel) {
    prefetch(reinterpret_cast<const char*>(panel + k * kPanel) + ahead);
    store(out, top_halves(load_u16(panel + k * kPanel)));
  }
}
