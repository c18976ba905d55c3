// Row loops, plain: compilers vectorize them at the region's width. Included inside a target region and a namespace.

float sum_of_squares(const float* x, int64_t n) {
  float lane[16] = {};
  const int64_t whole = n / 16 * 16;
  for (int64_t i = 0; i < whole; i += 16) {
    for (int l = 0; l < 16; ++l) lane[l] += x[i + l] * x[i + l];
  }
  for (int64_t i = whole; i < n; ++i) lane[i - whole] += x[i] * x[i];
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

void normalize(const float* x, float inv, const float* weight, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * inv * weight[i];
}

void glu(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = silu(gate[i]) * up[i];
}

void rotate(float* a, float* b, const float* cos, const float* sin, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float left = a[i], right = b[i];
    a[i] = left * cos[i] - right * sin[i];
    b[i] = right * cos[i] + left * sin[i];
  }
}

float magnitude(const float* x, int64_t n) {
  int32_t top = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t bits = int32_t(f32_bits(x[i]) & 0x7fffffffu), key = bits > 0x7f800000 ? 0 : bits;
    top = key > top ? key : top;
  }
  const float most = f32_from_bits(uint32_t(top));
  return most > 3.0e38f ? 3.0e38f : most;
}

int32_t int8_codes(const float* x, float inv, int64_t n, int8_t* out) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float y = (x[i] == x[i] ? x[i] : 0.0f) * inv;
    const float q = rne(y > -127.0f ? (y < 127.0f ? y : 127.0f) : -127.0f);
    const int32_t code = int32_t(q);
    sum += code;
    out[i] = int8_t(code);
  }
  return sum;
}

float sparse_dot(const uint32_t* entries, int64_t n, const float* x) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    sum = __builtin_fmaf(x[entries[i] & 0xFFFF], f16_to_f32(uint16_t(entries[i] >> 16)), sum);
  }
  return sum;
}

void sparse_dots(const uint32_t* entries, int64_t n, const float* x, float* out) {
  float sum[kSparseLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float value = f16_to_f32(uint16_t(entries[i] >> 16));
    const float* row = x + int64_t(entries[i] & 0xFFFF) * kSparseLanes;
    for (int64_t l = 0; l < kSparseLanes; ++l) sum[l] = __builtin_fmaf(row[l], value, sum[l]);
  }
  memcpy(out, sum, sizeof sum);
}
