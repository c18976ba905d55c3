#include "kernels/context.h"

#include <cpuid.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace quire {

namespace {

bool has_f16c() {  // clang 14's __builtin_cpu_supports does not know it; that the system saves the registers, AVX2 says
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

Isa machine_isa() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
}

const char* to_string(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

Isa choose_isa(const char* forced, Isa machine) {
  if (!forced || !*forced) return machine;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (std::string_view(forced) == to_string(isa)) {
      check(isa <= machine, "QUIRE_ISA={}, but this machine has {}", forced, to_string(machine));
      return isa;
    }
  }
  fail(fmt::format("QUIRE_ISA={} is not one of baseline, avx2, avx512", forced));
}

Isa default_isa() {
  static const Isa chosen = choose_isa(std::getenv("QUIRE_ISA"), machine_isa());
  return chosen;
}

std::byte* Scratch::take_bytes(size_t bytes) {
  const size_t align = device_ == Device::cuda ? 256 : 64;
  bytes = (bytes + align - 1) / align * align;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    blocks_.emplace_back(std::max<size_t>(bytes, 1 << 20), device_);
    ++growths_;
  }
  std::byte* p = blocks_[block_].data() + used_;
  used_ += bytes;
  return p;
}

uint32_t* Scratch::zeros(int64_t count) {
  if (zeros_.size() < size_t(count) * sizeof(uint32_t)) {
    zeros_ = Buffer(size_t(count) * sizeof(uint32_t), device_);
    ++growths_;
  }
  return reinterpret_cast<uint32_t*>(zeros_.data());
}

void Scratch::reset() {
  block_ = 0;
  used_ = 0;
  if (blocks_.size() > 1) {  // one block for all of it next time
    const size_t total = capacity();
    blocks_.clear();
    blocks_.emplace_back(total, device_);
    ++growths_;
  }
}

void Context::upload([[maybe_unused]] void* to, [[maybe_unused]] const void* from,
                     [[maybe_unused]] size_t bytes) const {
  if constexpr (kCuda) {
    if (uploads) return uploads->copy(to, from, bytes);
    cuda::copy_async(to, from, bytes, stream);
    cuda::synchronize(stream);
  }
}

size_t Scratch::capacity() const {
  size_t total = 0;
  for (const Buffer& b : blocks_) total += b.size();
  return total;
}

}  // namespace quire
