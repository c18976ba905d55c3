// What the house needs of the CUDA runtime, without its headers: devices, memory, copies, streams, errors. Only in
// builds with CUDA (kCuda). Every failure is a quire::Error that names what was tried.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct CUstream_st;     // cudaStream_t is a pointer to it
struct CUevent_st;      // cudaEvent_t
struct CUgraphExec_st;  // cudaGraphExec_t

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
void restore_device(int index) noexcept;  // what current_device said; for destructors
int64_t free_memory();                    // of the current device

// Error if status (a cudaError_t) is not success, or if the launch before this call failed.
void check_status(int status, const char* what);
void check_launch(const char* kernel);

std::byte* allocate(size_t bytes);  // device memory, zeroed; Error names the size and what is free
void release(std::byte* p);
// Bytes that allocate() has given and release() has not had back, on all devices; the most since the reset.
int64_t allocated();
int64_t allocated_peak();
void reset_allocated_peak();

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

// A place in a stream's work.
class Event {
 public:
  explicit Event(bool timed = false);  // on the current device
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(StreamHandle stream);
  void synchronize() const;                          // at once if it was never recorded
  void hold(StreamHandle stream) const;              // what that stream gets from here on waits for it
  double seconds_since(const Event& earlier) const;  // both timed, and reached

 private:
  CUevent_st* event_ = nullptr;
};

// Host memory that copies need not stage and kernels can read and write where it lies. Zeroed.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(size_t bytes);  // Error names the size
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// What goes up every step: pinned memory in turns, used again once the stream has passed what read it. It waits only
// where the stream is some hundred kilobytes behind.
class Uploads {
 public:
  explicit Uploads(StreamHandle stream);
  ~Uploads();
  Uploads(const Uploads&) = delete;
  Uploads& operator=(const Uploads&) = delete;
  // Enqueue what reads it before the next call. Aligned to 16 bytes.
  std::byte* take(size_t bytes);
  void copy(void* to, const void* from, size_t bytes);  // to device memory; `from` may go at once

 private:
  struct Turn;
  StreamHandle stream_;
  std::vector<Turn*> turns_;
  size_t turn_ = 0, used_ = 0;
};

// What was enqueued on a stream between `begin` and `end`, to be launched as one. Nothing between them may allocate,
// wait or copy from memory that is not pinned; the calling thread's own calls alone are watched.
class Graph {
 public:
  static void begin(StreamHandle stream);
  static void abandon(StreamHandle stream);  // after a failure in between
  explicit Graph(StreamHandle stream);       // ends the capture; Error says why it could not become a graph
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(StreamHandle stream) const;
  int64_t nodes() const { return nodes_; }

 private:
  CUgraphExec_st* graph_ = nullptr;
  int64_t nodes_ = 0;
};

}  // namespace quire::cuda
