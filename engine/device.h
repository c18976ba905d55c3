// What the engine computes on: the CPU, or one GPU and its stream.
#pragma once
#include <memory>
#include <string>

#include "kernels/context.h"

namespace quire {

class EngineDevice {
 public:
  // "cpu", "cuda", "cuda:N"; "" and "auto" take the GPU if there is one. Error says which devices there are.
  explicit EngineDevice(const std::string& name);

  Device kind() const { return stream_ ? Device::cuda : Device::cpu; }
  cuda::StreamHandle stream() const;
  cuda::Uploads* uploads() const { return uploads_.get(); }  // null on the CPU
  std::string name() const;
  void use() const;       // makes it the calling thread's GPU
  bool has_blas() const;  // whether cuBLAS is installed; false on the CPU
  // cuBLAS on its stream, opened when first asked for; null on the CPU, or where it is not installed.
  const cuda::Blas* blas();
  void wait() const;  // for everything enqueued

 private:
  int index_ = 0;
  std::shared_ptr<cuda::Stream> stream_;  // null on the CPU
  std::shared_ptr<cuda::Uploads> uploads_;
  std::shared_ptr<const cuda::Blas> blas_;
};

// The calling thread's GPU belongs to the caller: at the end of the scope it is what it was.
class CallersDevice {
 public:
  explicit CallersDevice(const std::string& asked);  // an EngineDevice of this name will be opened
  explicit CallersDevice(const EngineDevice& use);   // meanwhile it is this one
  ~CallersDevice();
  CallersDevice(const CallersDevice&) = delete;
  CallersDevice& operator=(const CallersDevice&) = delete;

 private:
  int index_ = -1;  // -1: none, or nothing to do
};

}  // namespace quire
