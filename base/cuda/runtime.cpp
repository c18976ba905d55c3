#include "base/cuda/runtime.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"

namespace quire::cuda {

namespace {

std::vector<DeviceInfo> find_devices(cudaError_t& status) {
  int count = 0;
  status = cudaGetDeviceCount(&count);
  std::vector<DeviceInfo> devices;
  for (int i = 0; status == cudaSuccess && i < count; ++i) {
    cudaDeviceProp p;
    status = cudaGetDeviceProperties(&p, i);
    if (status != cudaSuccess) break;  // a broken device must not stop who computes elsewhere
    devices.push_back({i, p.name, p.major, p.minor, p.multiProcessorCount, int64_t(p.sharedMemPerBlockOptin),
                       int64_t(p.totalGlobalMem), int64_t(p.l2CacheSize)});
  }
  cudaGetLastError();  // no device is an answer, not an error that a later check should find
  return devices;
}

struct Devices {
  cudaError_t status = cudaSuccess;
  std::vector<DeviceInfo> list = find_devices(status);
};
const Devices& devices() {
  static const Devices all;
  return all;
}

// What lies on the devices, for the memory plan's tests. Never destroyed: buffers may be released at exit.
struct Ledger {
  std::mutex mutex;
  std::unordered_map<const void*, size_t> sizes;
  int64_t now = 0, peak = 0;
};
Ledger& ledger() {
  static auto* all = new Ledger;
  return *all;
}

}  // namespace

int device_count() { return int(devices().list.size()); }

std::string why_no_device() {
  const Devices& d = devices();
  return d.status == cudaSuccess ? "no CUDA device is visible" : cudaGetErrorString(d.status);
}

const DeviceInfo& device_info(int index) {
  check(index >= 0 && index < device_count(), "there is no CUDA device {}; {} can be used{}", index, device_count(),
        device_count() == 0 ? fmt::format(" ({})", why_no_device()) : "");
  return devices().list[size_t(index)];
}

void check_status(int status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const cudaError_t error = cudaError_t(status);
  fail(fmt::format("cuda: {}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error)));
}
void check_launch(const char* kernel) { check_status(cudaGetLastError(), kernel); }

void use_device(int index) { check_status(cudaSetDevice(device_info(index).index), "choosing a device"); }
void restore_device(int index) noexcept {
  int now = -1;
  if (cudaGetDevice(&now) == cudaSuccess && now == index) return;  // choosing one wakes it up
  if (cudaSetDevice(index) != cudaSuccess) cudaGetLastError();
}
int current_device() {
  int index = 0;
  check_status(cudaGetDevice(&index), "asking for the current device");
  return index;
}
int64_t free_memory() {
  size_t free = 0, total = 0;
  check_status(cudaMemGetInfo(&free, &total), "asking for free memory");
  return int64_t(free);
}

std::byte* allocate(size_t bytes) {
  void* p = nullptr;
  const cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(fmt::format("out of GPU memory: {} bytes could not be allocated, {} are free", bytes, free_memory()));
  }
  check_status(status, "allocating memory");
  // On the default stream, which streams of ours are not ordered with: wait.
  check_status(cudaMemset(p, 0, bytes), "clearing memory");
  check_status(cudaStreamSynchronize(nullptr), "clearing memory");
  Ledger& l = ledger();
  const std::lock_guard lock(l.mutex);
  l.sizes[p] = bytes;
  l.now += int64_t(bytes);
  l.peak = std::max(l.peak, l.now);
  return static_cast<std::byte*>(p);
}
// Destructors call these: a failure (the context may be gone at exit) is nothing anyone could act on.
void release(std::byte* p) {
  {
    Ledger& l = ledger();
    const std::lock_guard lock(l.mutex);
    const auto it = l.sizes.find(p);
    if (it != l.sizes.end()) {
      l.now -= int64_t(it->second);
      l.sizes.erase(it);
    }
  }
  cudaFree(p);
}

int64_t allocated() {
  const std::lock_guard lock(ledger().mutex);
  return ledger().now;
}
int64_t allocated_peak() {
  const std::lock_guard lock(ledger().mutex);
  return ledger().peak;
}
void reset_allocated_peak() {
  const std::lock_guard lock(ledger().mutex);
  ledger().peak = ledger().now;
}

void copy_async(void* to, const void* from, size_t bytes, StreamHandle stream) {
  if (bytes == 0) return;
  check_status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copying");
}
void clear_async(void* to, int byte, size_t bytes, StreamHandle stream) {
  if (bytes == 0) return;
  check_status(cudaMemsetAsync(to, byte, bytes, stream), "clearing memory");
}

Stream::Stream() { check_status(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
Stream::~Stream() { cudaStreamDestroy(stream_); }
void Stream::synchronize() const { cuda::synchronize(stream_); }
void synchronize(StreamHandle stream) { check_status(cudaStreamSynchronize(stream), "waiting for a stream"); }

Event::Event(bool timed) {
  check_status(cudaEventCreateWithFlags(&event_, timed ? cudaEventDefault : cudaEventDisableTiming), "making an event");
}
Event::~Event() { cudaEventDestroy(event_); }
void Event::record(StreamHandle stream) { check_status(cudaEventRecord(event_, stream), "recording an event"); }
void Event::synchronize() const { check_status(cudaEventSynchronize(event_), "waiting for an event"); }
void Event::hold(StreamHandle stream) const {
  check_status(cudaStreamWaitEvent(stream, event_, 0), "letting a stream wait");
}
double Event::seconds_since(const Event& earlier) const {
  float ms = 0.0f;
  check_status(cudaEventElapsedTime(&ms, earlier.event_, event_), "reading the time between events");
  return double(ms) * 1e-3;
}

PinnedBuffer::PinnedBuffer(size_t bytes) : size_(bytes) {
  void* p = nullptr;
  check_status(cudaHostAlloc(&p, std::max<size_t>(bytes, 1), cudaHostAllocDefault),
               fmt::format("allocating {} bytes of pinned memory", bytes).c_str());
  std::memset(p, 0, bytes);
  data_ = static_cast<std::byte*>(p);
}
PinnedBuffer::~PinnedBuffer() { cudaFreeHost(data_); }

struct Uploads::Turn {
  explicit Turn(size_t bytes) : memory(bytes) {}
  PinnedBuffer memory;
  Event passed;
};

Uploads::Uploads(StreamHandle stream) : stream_(stream), turns_(4, nullptr) {}
Uploads::~Uploads() {
  for (Turn* turn : turns_) delete turn;
}

std::byte* Uploads::take(size_t bytes) {
  constexpr size_t kLeast = 64 << 10;
  bytes = (bytes + 15) / 16 * 16;
  Turn* turn = turns_[turn_];
  if (!turn || used_ + bytes > turn->memory.size()) {
    if (turn && used_ > 0) {
      turn->passed.record(stream_);
      turn_ = (turn_ + 1) % turns_.size();
      turn = turns_[turn_];
    }
    if (turn) turn->passed.synchronize();
    if (!turn || turn->memory.size() < bytes) {
      delete std::exchange(turns_[turn_], nullptr);
      turns_[turn_] = turn = new Turn(std::max(kLeast, bytes));
    }
    used_ = 0;
  }
  std::byte* p = turn->memory.data() + used_;
  used_ += bytes;
  return p;
}

void Uploads::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  std::byte* p = take(bytes);
  std::memcpy(p, from, bytes);
  copy_async(to, p, bytes, stream_);
}

void Graph::begin(StreamHandle stream) {
  check_status(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
}
void Graph::abandon(StreamHandle stream) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream, &graph);
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
}
Graph::Graph(StreamHandle stream) {
  cudaGraph_t graph = nullptr;
  check_status(cudaStreamEndCapture(stream, &graph), "capturing a graph");
  size_t count = 0;
  cudaError_t status = cudaGraphGetNodes(graph, nullptr, &count);
  if (status == cudaSuccess) status = cudaGraphInstantiate(&graph_, graph, 0);
  cudaGraphDestroy(graph);
  check_status(status, "making a graph");
  nodes_ = int64_t(count);
}
Graph::~Graph() { cudaGraphExecDestroy(graph_); }
void Graph::launch(StreamHandle stream) const { check_status(cudaGraphLaunch(graph_, stream), "launching a graph"); }

}  // namespace quire::cuda
