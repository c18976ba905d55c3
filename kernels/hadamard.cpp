#include "kernels/hadamard.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/cuda/encode.h"
#include "kernels/cuda/ops.h"

namespace quire {

namespace {

constexpr int64_t kMaxBase = 512;  // the K x K part costs K operations a value

bool is_prime(int64_t n) {
  if (n < 2) return false;
  for (int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

bool paley_one(int64_t k) { return (k - 1) % 4 == 3 && is_prime(k - 1); }
bool paley_two(int64_t k) { return k % 2 == 0 && (k / 2 - 1) % 4 == 1 && is_prime(k / 2 - 1); }

// Williamson's matrices: the first halves of the first rows of the blocks A, B, C, D of
//   A  B  C  D
//  -B  A -D  C
//  -C  D  A -B
//  -D -C  B  A
// bit i set where entry i (and K / 4 - i) is 1.
struct Williamson {
  int64_t k;
  std::array<uint32_t, 4> rows;
};
constexpr Williamson kWilliamson[] = {
    {52, {0x65, 0x71, 0x4b, 0x21}},
    {156, {0x320a7, 0x50c8f, 0x25167, 0xb82b1}},
    {172, {0x1baf31, 0x2ca1fb, 0xbd4d7, 0x325e3}},
};
const Williamson* williamson(int64_t k) {
  for (const Williamson& w : kWilliamson) {
    if (w.k == k) return &w;
  }
  return nullptr;
}

// The smallest K with order = K * 2^r; 0 if there is none.
int64_t base_of(int64_t order) {
  int64_t k = order;
  while (k > 0 && k % 2 == 0) k /= 2;
  if (k == 1) return 1;
  for (; k > 0 && k <= std::min(order, kMaxBase); k *= 2) {
    if (order % k == 0 && (paley_one(k) || paley_two(k) || williamson(k))) return k;
  }
  return 0;
}

// Quadratic character of every residue: 0, 1 for squares, -1.
std::vector<int8_t> characters(int64_t q) {
  std::vector<int8_t> chi(size_t(q), -1);
  for (int64_t i = 1; i < q; ++i) chi[size_t(i * i % q)] = 1;
  chi[0] = 0;
  return chi;
}

// Paley's conference matrix of order q + 1 at (i, j): zeros on the diagonal, skew for q = 3 mod 4, symmetric for q = 1.
int conference(const std::vector<int8_t>& chi, int64_t i, int64_t j) {
  const int64_t q = int64_t(chi.size());
  if (i == 0 && j == 0) return 0;
  if (i == 0) return q % 4 == 3 ? -1 : 1;
  if (j == 0) return 1;
  return chi[size_t((i - j + q) % q)];
}

// Entry (i, j) of the K x K matrix.
int paley_one_at(const std::vector<int8_t>& chi, int64_t i, int64_t j) { return conference(chi, i, j) + (i == j); }

int paley_two_at(const std::vector<int8_t>& chi, int64_t i, int64_t j) {  // [S + I, S - I; S - I, -S - I]
  const int64_t half = int64_t(chi.size()) + 1;
  const bool low = i >= half, right = j >= half;
  const int s = conference(chi, i % half, j % half), one = i % half == j % half;
  return (low && right ? -s : s) + (low || right ? -one : one);
}

int williamson_at(const Williamson& w, int64_t i, int64_t j) {
  constexpr int kBlocks[4][4] = {{1, 2, 3, 4}, {-2, 1, -4, 3}, {-3, 4, 1, -2}, {-4, -3, 2, 1}};
  const int64_t m = w.k / 4, d = (j % m - i % m + m) % m;
  const int block = kBlocks[i / m][j / m];
  const bool plus = w.rows[size_t(std::abs(block) - 1)] >> std::min(d, m - d) & 1;
  return plus == (block > 0) ? 1 : -1;
}

std::vector<int8_t> base_matrix(int64_t k) {
  std::vector<int8_t> h(size_t(k * k), 1);
  if (k == 1) return h;
  const Williamson* w = williamson(k);
  const bool one = paley_one(k);
  const std::vector<int8_t> chi = w ? std::vector<int8_t>() : characters(one ? k - 1 : k / 2 - 1);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      h[size_t(i * k + j)] = int8_t(w     ? williamson_at(*w, i, j)
                                    : one ? paley_one_at(chi, i, j)
                                          : paley_two_at(chi, i, j));
    }
  }
  return h;
}

void walsh(float* v, int64_t n) {
  for (int64_t distance = 1; distance < n; distance *= 2) {
    for (int64_t i = 0; i < n; i += 2 * distance) {
      for (int64_t j = i; j < i + distance; ++j) {
        const float a = v[j], b = v[j + distance];
        v[j] = a + b;
        v[j + distance] = a - b;
      }
    }
  }
}

}  // namespace

bool Hadamard::exists(int64_t order) { return base_of(order) > 0; }

Hadamard::Hadamard(int64_t order) : k_(base_of(order)) {
  if (k_ == 0) {
    int64_t below = order - 1, above = std::max<int64_t>(order, 0) + 1;
    while (below > 0 && !exists(below)) --below;
    while (!exists(above)) ++above;
    fail(fmt::format("hadamard: no matrix of order {} is known here; the nearest are {}{}", order,
                     below > 0 ? fmt::format("{} and ", below) : "", above));
  }
  while (this->order() < order) ++log2_;
  base_ = base_matrix(k_);
}

Hadamard::Hadamard(int64_t order, std::vector<int8_t> base) : base_(std::move(base)) {
  while (k_ * k_ < int64_t(base_.size())) ++k_;
  while (this->order() < order) ++log2_;
  check(k_ * k_ == int64_t(base_.size()) && this->order() == order,
        "hadamard: {} signs are no factor of a transform of {}", base_.size(), order);
  for (int64_t a = 0; a < k_; ++a) {
    for (int64_t b = 0; b <= a; ++b) {
      int64_t sum = 0;
      bool signs = true;
      for (int64_t i = 0; i < k_; ++i) {
        signs = signs && (sign(a, i) == 1 || sign(a, i) == -1);
        sum += sign(a, i) * sign(b, i);
      }
      check(signs && sum == (a == b ? k_ : 0), "hadamard: rows {} and {} of the given matrix are not orthogonal signs",
            a, b);
    }
  }
}

void Hadamard::apply(float* in, float* out, bool transpose) const {
  const int64_t n = power();
  const float scale = 1.0f / std::sqrt(float(order()));
  for (int64_t k = 0; k < k_; ++k) walsh(in + k * n, n);
  for (int64_t row = 0; row < k_; ++row) {
    float* to = out + row * n;
    for (int64_t k = 0; k < k_; ++k) {
      const float* from = in + k * n;
      const bool plus = (transpose ? sign(k, row) : sign(row, k)) > 0;
      if (k == 0) {
        for (int64_t t = 0; t < n; ++t) to[t] = plus ? from[t] : -from[t];
      } else if (plus) {
        for (int64_t t = 0; t < n; ++t) to[t] += from[t];
      } else {
        for (int64_t t = 0; t < n; ++t) to[t] -= from[t];
      }
    }
    for (int64_t t = 0; t < n; ++t) to[t] *= scale;
  }
}

void Hadamard::upload(cuda::StreamHandle stream) {
  device_ = Buffer(base_.size(), Device::cuda);
  if constexpr (kCuda) cuda::copy_async(device_.data(), base_.data(), base_.size(), stream);
}

namespace {

void hadamard_on_device(const Context& ctx, const Tensor& x, const Hadamard& h, bool transpose, const Tensor& y,
                        const float* diagonal) {
  check(h.on_device() != nullptr, "hadamard: the matrix was not uploaded");
  const cuda::HadamardShape shape{h.on_device(), h.k(),   h.power(), 1.0f / std::sqrt(float(h.order())),
                                  transpose,     diagonal};
  if (y.codec == id<F32>) return cuda::hadamard(ctx, x, shape, y.data.row<float>(0), y.data.pitch / 4);
  const Scratch::Scope scope(*ctx.scratch);
  cuda::EncodePlan plan;
  float* values = ctx.scratch->take<float>(x.rows * x.cols);
  cuda::hadamard(ctx, x, shape, values, x.cols);
  plan.to = y;
  plan.x = values;
  plan.ld = x.cols;
  cuda::encode_rows(ctx, plan, y.rows);
}

}  // namespace

void hadamard(const Context& ctx, const Tensor& x, const Hadamard& h, bool transpose, const Tensor& y,
              const float* diagonal) {
  check(x.codec == id<F32> && y.rows == x.rows && y.cols == x.cols && x.cols % h.order() == 0,
        "hadamard: x {} (f32) and y {} do not fit each other and blocks of {} columns", describe(x), describe(y),
        h.order());
  check(y.scale.rows == 1, "hadamard: rows of y {} share scales", describe(y));
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return hadamard_on_device(ctx, x, h, transpose, y, diagonal);
  }
  const CodecInfo& to = info(y.codec);
  ctx.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> work;
    work.resize(size_t(x.cols + h.order()));
    float *out = work.data(), *in = out + x.cols;
    for (int64_t t = begin; t < end; ++t) {
      const float* row = x.data.row<const float>(t);
      for (int64_t c = 0; c < x.cols; c += h.order()) {
        std::copy_n(row + c, h.order(), in);
        for (int64_t i = 0; diagonal && i < h.order(); ++i) in[i] *= diagonal[c + i];
        h.apply(in, out + c, transpose);
      }
      to.encode(y, t, 1, out, x.cols, scale_source(y));
    }
  });
}

}  // namespace quire
