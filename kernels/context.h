// Where an op runs: device, threads, instruction set, scratch. Ops take it first and allocate nothing themselves.
#pragma once
#include <string>
#include <vector>

#include "base/cuda/build.h"
#include "base/cuda/runtime.h"
#include "base/parallel.h"
#include "kernels/profile.h"
#include "quant/storage.h"

namespace quire {

enum class Isa : uint8_t { baseline, avx2, avx512 };  // avx2: + fma, f16c; avx512: F, BW, VL, DQ and VNNI

// What this machine can run, or what QUIRE_ISA=baseline|avx2|avx512 forces. Error if it asks for more than the machine
// has.
Isa default_isa();
Isa machine_isa();                                // the widest that this machine has
Isa choose_isa(const char* forced, Isa machine);  // null or "": the machine's
const char* to_string(Isa isa);

// A stack of memory that grows to the largest step it has seen, then never allocates again.
class Scratch {
 public:
  explicit Scratch(Device device = Device::cpu) : device_(device) {}
  template <class T>
  T* take(int64_t count) {
    return reinterpret_cast<T*>(take_bytes(size_t(count) * sizeof(T)));
  }
  std::byte* take_bytes(size_t bytes);  // aligned to 64 bytes (256 on a GPU), not cleared
  void reset();                         // invalidates everything taken
  // Zeros, the same for everybody, for kernels that leave them zero. A larger count invalidates them, reset does not.
  uint32_t* zeros(int64_t count);
  size_t capacity() const;
  int64_t growths() const { return growths_; }  // while it stays the same, equal takes give equal places

  // Gives back at the end of its scope what was taken in it.
  class Scope {
   public:
    explicit Scope(Scratch& scratch) : scratch_(scratch), block_(scratch.block_), used_(scratch.used_) {}
    ~Scope() {
      scratch_.block_ = block_;
      scratch_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Scratch& scratch_;
    size_t block_, used_;
  };

 private:
  Device device_;
  std::vector<Buffer> blocks_;
  Buffer zeros_;
  size_t block_ = 0, used_ = 0;  // the next byte is blocks_[block_] + used_
  int64_t growths_ = 0;
};

namespace cuda {
class Blas;
}

// With device cuda every tensor and array that an op is given lies there (unless its header says otherwise), and the
// op is enqueued on `stream`: it has run when the stream is synchronized.
struct Context {
  Device device = Device::cpu;
  Isa isa = default_isa();
  ThreadPool* pool = nullptr;           // borrowed
  Scratch* scratch = nullptr;           // borrowed; of this device
  Profile* profile = nullptr;           // borrowed; null: nobody observes
  cuda::StreamHandle stream = nullptr;  // borrowed; of the device cuda
  cuda::Uploads* uploads = nullptr;     // borrowed; on that stream; null: `upload` waits
  const cuda::Blas* blas = nullptr;     // borrowed; of the stream. Null: our own kernels alone
  // On a GPU: what a token gets depends on its sequence alone, not on the batch or how prompts were cut. The CPU is
  // always so.
  bool deterministic = false;

  // From host memory, which may go at once, to the device cuda.
  void upload(void* to, const void* from, size_t bytes) const;

  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, Fn&& fn) const {
    pool->parallel_for(n, grain, fn);
  }
};

}  // namespace quire
