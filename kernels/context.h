// Where an op runs: device, threads, instruction set, scratch. Ops take it first and allocate nothing themselves.
#pragma once
#include <string>
#include <vector>

#include "base/parallel.h"
#include "quant/storage.h"

namespace quire {

enum class Isa : uint8_t { baseline, avx2, avx512 };  // avx2: + fma, f16c; avx512: F, BW, VL, DQ and VNNI

// What this machine can run, or what QUIRE_ISA=baseline|avx2|avx512 forces. Error if it asks for more than the machine has.
Isa default_isa();
const char* to_string(Isa isa);

// Grows to the largest step it has seen, then never allocates again. Everything taken is given back by reset().
class Scratch {
 public:
  template <class T>
  T* take(int64_t count) {
    return reinterpret_cast<T*>(take_bytes(size_t(count) * sizeof(T)));
  }
  std::byte* take_bytes(size_t bytes);  // 64-byte aligned, not cleared
  void reset();                         // invalidates everything taken
  size_t capacity() const;

 private:
  std::vector<HostBuffer> blocks_;
  size_t used_ = 0, wanted_ = 0;
};

struct Context {
  Device device = Device::cpu;
  Isa isa = default_isa();
  ThreadPool* pool = nullptr;  // borrowed
  Scratch* scratch = nullptr;  // borrowed

  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, Fn&& fn) const {
    pool->parallel_for(n, grain, fn);
  }
};

}  // namespace quire
