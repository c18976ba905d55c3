// Times the tensor-core matmuls at the layer shapes of Llama-3-8B: cold L2 (weights rotate), one CUDA graph of many
// launches, the median of its replays. Results are not checked here (tests/kernels/matmul_frag_test.cpp does).
//   bench_matmul [all|best] [kernel substring [most tokens]]     best: also try every tile and split, and name the
//                                                                fastest
//   bench_matmul table                             the table of docs/benchmarks.md
// Where cuBLAS is installed its time stands beside ours.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/matmul_blas.h"
#include "kernels/cuda/matmul_choice.h"

using namespace quire;
using namespace quire::cuda;

namespace {

void ok(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

// Random bits; `keep` and `set` make them finite where they are read as floats.
__global__ void fill_kernel(uint32_t* p, int64_t words, uint32_t seed, uint32_t keep, uint32_t set) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < words; i += int64_t(gridDim.x) * blockDim.x) {
    uint32_t h = uint32_t(i) * 2654435761u + seed;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    p[i] = ((h ^ h >> 16) & keep) | set;
  }
}

std::byte* random_memory(int64_t bytes, uint32_t seed, uint32_t keep = ~0u, uint32_t set = 0) {
  std::byte* p = nullptr;
  ok(cudaMalloc(&p, size_t(bytes)), "cudaMalloc");
  fill_kernel<<<1024, 256>>>(reinterpret_cast<uint32_t*>(p), bytes / 4, seed, keep, set);
  ok(cudaGetLastError(), "fill");
  return p;
}

struct Case {
  const char* name;
  FragCode code;
  int entry, segment, x_group;
  MmaX x;
};
constexpr Case kCases[] = {
    {"w8a8", FragCode::int8, 128, 0, 0, MmaX::int8},
    {"w4a8", FragCode::nibble_signed, 128, 0, 0, MmaX::int8},
    {"w4a8_qoq_g128", FragCode::nibble_affine, 128, 0, 0, MmaX::int8},
    {"w4a8_g128", FragCode::nibble_signed, 128, 128, 0, MmaX::int8},
    {"w8a8_g64", FragCode::int8, 64, 64, 64, MmaX::int8},
    {"q4_1", FragCode::nibble_offset, 32, 32, 32, MmaX::int8},
    {"w4a16_g64", FragCode::half_nibble, 64, 64, 0, MmaX::f16},
    {"w4a16_g128", FragCode::half_nibble, 128, 128, 0, MmaX::f16},
    {"w8a16", FragCode::half_byte, 128, 128, 0, MmaX::f16},
    {"w16a16", FragCode::half_float, 128, 128, 0, MmaX::f16},
    {"fp8", FragCode::e4m3, 128, 128, 0, MmaX::e4m3},
};
struct Shape {
  const char* name;
  int64_t n, k;
};
constexpr Shape kShapes[] = {{"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate_up", 28672, 4096}, {"down", 4096, 14336}};
constexpr int64_t kTokens[] = {1, 16, 32, 64, 128, 256, 512, 1024, 4096};
constexpr double kBandwidth = 3.12e12, kInt8 = 1.95e15, kHalf = 0.85e15;  // measured on an H100

struct Bench {
  MmaMatmul op;
  std::vector<std::byte*> weights;
  MmaWorkspace workspace;
  cudaStream_t stream;
  const Context* ctx;

  double time(const MmaForce& force) {
    return time([&] { mma_matmul(op, workspace, stream, force); });
  }
  double time_blas() {
    return time([&] {
      const Scratch::Scope scope(*ctx->scratch);
      blas_matmul(*ctx, op);
    });
  }
  // Microseconds of one launch.
  template <class Launch>
  double time(Launch launch) {
    double estimate = 20;
    op.w = weights[0];
    launch();  // loads the kernel: not while a graph is captured
    ok(cudaStreamSynchronize(stream), "first launch");
    std::vector<double> times;
    for (int round = 0; round < 2; ++round) {
      const int launches = round == 0 ? 4 : int(std::clamp(1500.0 / estimate, 2.0, 48.0));
      cudaGraph_t graph;
      cudaGraphExec_t exec;
      ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
      for (int i = 0; i < launches; ++i) {
        op.w = weights[size_t(i) % weights.size()];
        launch();
      }
      ok(cudaStreamEndCapture(stream, &graph), "capture");
      ok(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
      cudaEvent_t begin, end;
      ok(cudaEventCreate(&begin), "event");
      ok(cudaEventCreate(&end), "event");
      times.clear();
      for (int r = 0; r < (round == 0 ? 2 : 8); ++r) {
        ok(cudaEventRecord(begin, stream), "record");
        ok(cudaGraphLaunch(exec, stream), "launch");
        ok(cudaEventRecord(end, stream), "record");
        ok(cudaEventSynchronize(end), "run");
        float ms = 0;
        ok(cudaEventElapsedTime(&ms, begin, end), "time");
        if (r > 0) times.push_back(ms * 1e3 / launches);
      }
      std::sort(times.begin(), times.end());
      estimate = times[times.size() / 2];
      cudaEventDestroy(begin);
      cudaEventDestroy(end);
      cudaGraphExecDestroy(exec);
      cudaGraphDestroy(graph);
    }
    return estimate;
  }
};

// What a column of the table says of one shape, by number of tokens.
using Cells = std::vector<std::string>;

void run_case(const Case& c, const Shape& s, bool best, bool table, int64_t most_tokens, const MmaWorkspace& workspace,
              const Context& ctx, Cells& cells) {
  Bench b;
  b.workspace = workspace;
  b.stream = ctx.stream;
  b.ctx = &ctx;
  MmaMatmul& op = b.op;
  op.shape.n = s.n;
  op.shape.k = s.k;
  op.shape.code = c.code;
  op.shape.entry = c.entry;
  op.shape.segment = c.segment;
  op.shape.offset = c.code == FragCode::nibble_offset;
  op.x_type = c.x;
  op.x_group = c.x_group;
  const bool half = op.shape.half();
  const int64_t most = kTokens[std::size(kTokens) - 1], bytes = op.shape.bytes();
  const int copies = int(std::max<int64_t>(2, (160 << 20) / bytes + 1));
  const uint32_t keep = c.code == FragCode::e4m3 ? 0x77777777u : c.code == FragCode::half_float ? 0x9fff9fffu : ~0u;
  for (int i = 0; i < copies; ++i) b.weights.push_back(random_memory(bytes, uint32_t(i * 77 + 1), keep));
  op.x_pitch = s.k * (half ? 2 : 1);
  op.x = random_memory(most * op.x_pitch, 5,
                       half                       ? 0x83ff83ffu
                       : c.code == FragCode::e4m3 ? 0x77777777u
                                                  : ~0u,
                       half ? 0x38003800u : 0u);
  const int64_t groups = c.x_group ? s.k / c.x_group : 1;
  if (!half) op.sx = reinterpret_cast<const float*>(random_memory(most * groups * 4, 6, 0x007fffffu, 0x3f000000u));
  op.sx_pitch = groups;
  if (op.shape.offset) op.sums = reinterpret_cast<const int32_t*>(random_memory(most * groups * 4, 8, 0x7fffu));
  op.sums_pitch = groups;
  op.y = reinterpret_cast<float*>(random_memory(most * s.n * 4, 7));
  op.ldy = s.n;
  for (const int64_t m : kTokens) {
    if (m > most_tokens) break;
    op.m = m;
    const double own = b.time(MmaForce{});
    const double library = ctx.blas && m >= 64 && blas_supports(op.shape) ? b.time_blas() : 0;
    const bool taken = library > 0 && blas_is_faster(op.shape, m, device_info(0).multiprocessors);
    const double us = taken ? library : own;
    const double moved = double(bytes + m * op.x_pitch + m * s.n * 4),
                 operations = 2.0 * double(m) * double(s.n) * double(s.k);
    const double floor = std::max(moved / kBandwidth, operations / (half ? kHalf : kInt8)) * 1e6;
    if (table) {
      char text[32];
      std::snprintf(text, sizeof(text), us < 100 ? "%.1f" : "%.0f", us);
      cells.push_back(text);
      continue;
    }
    std::printf("%-14s %-8s M %5lld %9.1f us %6.0f GB/s %6.0f TOPS  floor %8.1f us = %3.0f %%", c.name, s.name,
                static_cast<long long>(m), us, moved / us * 1e-3, operations / us * 1e-6, floor, floor / us * 100);
    if (library > 0)
      std::printf("  own %.1f cuBLAS %.1f%s", own, library, taken == (library < own) ? "" : " WRONG CHOICE");
    if (best) {
      double least = us;
      std::string what = "auto";
      for (const int tokens : {8, 16, 32, 64, 128, 256}) {
        if ((m > 512 && tokens < 64) || (tokens == 256 && c.segment > 0)) continue;
        if (m <= 512 && (m > tokens * 8 || (tokens > 16 && tokens > m * 4))) continue;
        const auto attempt = [&](const MmaForce& force, const std::string& name) {
          const double t = b.time(force);
          std::printf("  %s %.1f", name.c_str(), t);
          if (t < least * 0.98) {
            least = t;
            what = name;
          }
        };
        for (const int split : {0, 1}) {
          if (tokens >= 64 && split <= int(c.segment == 0 && tokens < 256)) {
            attempt({tokens, 0, 0, split}, std::to_string(tokens) + (split ? "s" : ""));
          }
        }
        for (const int rows : {16, 32, 64}) {
          if (tokens > 32) continue;
          attempt({tokens, rows, 0, 0}, std::to_string(tokens) + "x" + std::to_string(rows));
        }
      }
      std::printf("  best %s", what.c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  for (std::byte* w : b.weights) cudaFree(w);
  cudaFree(const_cast<std::byte*>(op.x));
  cudaFree(const_cast<float*>(op.sx));
  cudaFree(const_cast<int32_t*>(op.sums));
  cudaFree(op.y);
}

}  // namespace

int main(int argc, char** argv) {
  const bool best = argc > 1 && std::strcmp(argv[1], "best") == 0;
  const bool table = argc > 1 && std::strcmp(argv[1], "table") == 0;
  const char* only = argc > 2 ? argv[2] : "";
  const int64_t most_tokens = argc > 3 ? std::atoll(argv[3]) : kTokens[std::size(kTokens) - 1];
  cudaDeviceProp device;
  ok(cudaGetDeviceProperties(&device, 0), "device");
  std::printf("%s, %d multiprocessors; shares of the floor at %.2f TB/s, %.0f TOPS (8 bit), %.0f (16 bit)\n",
              device.name, device.multiProcessorCount, kBandwidth * 1e-12, kInt8 * 1e-12, kHalf * 1e-12);
  cudaStream_t stream;
  ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  MmaWorkspace workspace;
  ok(cudaMalloc(&workspace.counters, kMmaCounters * 4), "cudaMalloc");
  ok(cudaMemset(workspace.counters, 0, kMmaCounters * 4), "cudaMemset");
  ok(cudaMalloc(&workspace.partials, size_t(mma_workspace_bytes())), "cudaMalloc");
  ok(cudaDeviceSynchronize(), "start");
  Scratch scratch(Device::cuda);
  Context ctx;
  ctx.device = Device::cuda;
  ctx.scratch = &scratch;
  ctx.stream = stream;
  std::string why;
  const auto blas = Blas::open(stream, &why);
  ctx.blas = blas.get();
  std::printf("cuBLAS: %s\n", blas ? "here" : why.c_str());
  for (const Case& c : kCases) {
    if (!std::strstr(c.name, only)) continue;
    std::vector<Cells> shapes;
    for (const Shape& s : kShapes) run_case(c, s, best, table, most_tokens, workspace, ctx, shapes.emplace_back());
    for (size_t i = 0; table && i < shapes[0].size(); ++i) {
      std::printf("%-14s M %5lld  %s / %s / %s / %s\n", c.name, static_cast<long long>(kTokens[i]),
                  shapes[0][i].c_str(), shapes[1][i].c_str(), shapes[2][i].c_str(), shapes[3][i].c_str());
    }
    std::fflush(stdout);
  }
  return 0;
}
