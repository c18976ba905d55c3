#include "engine/device.h"

#include <charconv>

#include "kernels/cuda/blas.h"

namespace quire {

namespace {

std::string what_is_here() {
  if constexpr (kCuda) {
    const int count = cuda::device_count();
    if (count == 0) return fmt::format("cpu only ({})", cuda::why_no_device());
    return count == 1 ? "cpu, cuda" : fmt::format("cpu, cuda:0 to cuda:{}", count - 1);
  }
  return "cpu only: this build has no CUDA";
}

// Device code is built for compute capability 8.0 (Ampere) and later.
bool new_enough([[maybe_unused]] int index) {
  if constexpr (kCuda) return cuda::device_info(index).major >= 8;
  return false;
}

// The GPU's number; -1: the CPU.
int find_device(const std::string& name) {
  int count = 0;
  if constexpr (kCuda) count = cuda::device_count();
  if (name.empty() || name == "auto") {
    for (int i = 0; i < count; ++i) {
      if (new_enough(i)) return i;
    }
    return -1;
  }
  if (name == "cpu") return -1;
  int index = 0;
  bool known = name == "cuda";
  if (name.rfind("cuda:", 0) == 0) {
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), index);
    known = error == std::errc() && end == name.data() + name.size() && name.size() > 5 && index >= 0;
  }
  check(known, "device '{}' is not one of auto, cpu, cuda, cuda:N", name);
  check(index < count, "there is no device {}; here are {}", name, what_is_here());
  check(new_enough(index), "{} is older than compute capability 8.0, which this program needs; device cpu works", name);
  return index;
}

}  // namespace

EngineDevice::EngineDevice(const std::string& name) : index_(find_device(name)) {
  if constexpr (kCuda) {
    if (index_ < 0) return;
    cuda::use_device(index_);
    stream_ = std::make_shared<cuda::Stream>();
    uploads_ = std::make_shared<cuda::Uploads>(stream_->get());
  }
}

cuda::StreamHandle EngineDevice::stream() const { return stream_ ? stream_->get() : nullptr; }

std::string EngineDevice::name() const {
  if constexpr (kCuda) {
    if (stream_) return fmt::format("cuda:{} ({})", index_, cuda::device_info(index_).name);
  }
  return "cpu";
}

void EngineDevice::use() const {
  if constexpr (kCuda) {
    if (stream_) cuda::use_device(index_);
  }
}

bool EngineDevice::has_blas() const {
  if constexpr (kCuda) return stream_ && cuda::Blas::is_here();
  return false;
}

const cuda::Blas* EngineDevice::blas() {
  if constexpr (kCuda) {
    if (stream_ && !blas_) blas_ = cuda::Blas::open(stream_->get());
  }
  return blas_.get();
}

void EngineDevice::wait() const {
  if constexpr (kCuda) {
    if (stream_) stream_->synchronize();
  }
}

CallersDevice::CallersDevice(const std::string& asked) {
  if constexpr (kCuda) {
    if (asked == "cpu") return;  // which must not wake the driver: that takes time and 100 MB
    if (cuda::device_count() > 0) index_ = cuda::current_device();
  }
}

CallersDevice::CallersDevice(const EngineDevice& use) {
  if constexpr (kCuda) {
    if (use.kind() == Device::cpu) return;
    index_ = cuda::current_device();
    use.use();
  }
}

CallersDevice::~CallersDevice() {
  if constexpr (kCuda) {
    if (index_ >= 0) cuda::restore_device(index_);
  }
}

}  // namespace quire
