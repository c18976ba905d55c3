// What the house needs of the CUDA runtime, without its headers: devices, memory, copies, streams, errors. Only in
// builds with CUDA (kCuda). Every failure is a quire::Error that names what was tried.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace quire::cuda {

using StreamHandle = CUstream_st*;  // null: the default stream

struct DeviceInfo {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int64_t shared_per_block = 0;  // most shared memory a block can ask for
  int64_t memory = 0, l2 = 0;    // bytes
};

int device_count();                        // 0 also where there is no driver; never an error
std::string why_no_device();               // what the driver says, if device_count() is 0
const DeviceInfo& device_info(int index);  // Error if there is no such device
void use_device(int index);                // of the calling thread
int current_device();
int64_t free_memory();  // of the current device

// Error if status (a cudaError_t) is not success, or if the launch before this call failed.
void check_status(int status, const char* what);
void check_launch(const char* kernel);

std::byte* allocate(size_t bytes);  // device memory, zeroed; Error names the size and what is free
void release(std::byte* p);

// Between host and device or within the device, in stream order. A host side that is not pinned makes the call wait.
void copy_async(void* to, const void* from, size_t bytes, StreamHandle stream);
void clear_async(void* to, int byte, size_t bytes, StreamHandle stream);

class Stream {
 public:
  Stream();  // on the current device, not ordered with the default stream
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  StreamHandle get() const { return stream_; }
  void synchronize() const;

 private:
  StreamHandle stream_ = nullptr;
};
void synchronize(StreamHandle stream);

}  // namespace quire::cuda
