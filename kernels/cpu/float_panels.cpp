#include <cstring>

#include "kernels/cpu/panels.h"

namespace quire::cpu {

namespace {

int64_t element(const MatmulProblem& p) { return info(p.w.codec).bits / 8; }

bool supports(const MatmulProblem& p) { return p.w.codec == id<F32> || p.w.codec == id<F16> || p.w.codec == id<BF16>; }

int64_t bytes(const MatmulProblem& p) { return (p.n + kPanel - 1) / kPanel * kPanel * p.k * element(p); }

template <class T>
void interleave(const Tensor& src, int64_t r, T* out) {
  const T* in = src.data.row<const T>(r);
  for (int64_t k = 0; k < src.cols; ++k) out[k * kPanel] = in[k];
}

void pack(const Tensor& src, const MatmulProblem& p, int64_t row0, std::byte* dst) {
  for (int64_t r = 0; r < src.rows; ++r) {
    const int64_t n = row0 + r, at = n / kPanel * kPanel * p.k + n % kPanel;
    if (element(p) == 4) {
      interleave(src, r, reinterpret_cast<uint32_t*>(dst) + at);
    } else {
      interleave(src, r, reinterpret_cast<uint16_t*>(dst) + at);
    }
  }
}

void unpack(const std::byte* src, const MatmulProblem& p, int64_t n, float* out) {
  Tensor one;  // one value, for the codec to decode
  one.codec = p.w.codec;
  one.rows = one.cols = 1;
  for (int64_t k = 0; k < p.k; ++k) {
    const int64_t at = n / kPanel * kPanel * p.k + k * kPanel + n % kPanel;
    one.data.ptr = const_cast<std::byte*>(src) + at * element(p);
    info(p.w.codec).decode(one, 0, 0, 1, out + k);
  }
}

}  // namespace

const WeightLayout kFloatPanels = {"float_panels", supports, bytes, pack, unpack};

}  // namespace quire::cpu
