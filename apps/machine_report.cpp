#include "apps/machine_report.h"

#include <filesystem>
#include <fstream>

#include <unistd.h>

#include "apps/numbers.h"
#include "base/bandwidth.h"
#include "base/machine.h"
#include "kernels/context.h"
#include "kernels/cpu/matmul_simd.h"

namespace quire {

namespace {

using Json = nlohmann::ordered_json;
constexpr double kGiga = 1e9;

std::string build_text() {
#ifdef __clang__
  const char* compiler = "clang " __clang_version__;
#else
  const char* compiler = "g++ " __VERSION__;
#endif
  return fmt::format("{}, {}, CUDA: {}", compiler, *QUIRE_BUILD_TYPE ? QUIRE_BUILD_TYPE : "no build type",
                     QUIRE_CUDA_TEXT);
}

// What NVIDIA's driver says about its GPUs, also in a build that cannot use them; empty without one.
std::vector<std::string> nvidia_gpus() {
  std::vector<std::string> gpus;
  if constexpr (kCuda) {
    for (int i = 0; i < cuda::device_count(); ++i) {
      const cuda::DeviceInfo& d = cuda::device_info(i);
      gpus.push_back(fmt::format("{} (sm_{}{}, {})", d.name, d.major, d.minor, bytes_text(d.memory)));
    }
    return gpus;
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", error)) {
    std::ifstream file(entry.path() / "information");
    std::string line;
    while (std::getline(file, line)) {
      const size_t name = line.find_first_not_of(" \t", line.find(':') + 1);
      if (line.compare(0, 6, "Model:") == 0 && name != std::string::npos) gpus.push_back(line.substr(name));
    }
  }
  return gpus;
}

Json bandwidth_json(int threads) {
  Json list = Json::array();
  for (const int64_t bytes : {int64_t(64) << 20, uncached_bytes()}) {
    for (const int n : {1, threads}) {
      if (n == 1 && threads == 1 && !list.empty() && list.back()["bytes"] == bytes) continue;
      ThreadPool pool(n);
      list.push_back({{"bytes", bytes}, {"threads", n}, {"gb_per_s", read_bandwidth(pool, bytes) / kGiga}});
    }
  }
  return list;
}

std::string caches_text(const Json& caches) {
  std::string text;
  for (const Json& c : caches) {
    text += fmt::format("{}L{}{} {}", text.empty() ? "" : ", ", c["level"].get<int>(),
                        c["type"] == "Unified" ? ""
                        : c["type"] == "Data"  ? "d"
                                               : "i",
                        bytes_text(c["bytes"].get<int64_t>()));
    const auto shared = c["shared_by"].get<std::string>();
    if (shared.find_first_of(",-") != std::string::npos) text += fmt::format(" (cores {})", shared);
  }
  return text.empty() ? "unknown" : text;
}

std::string gpu_text(const Json& gpu) {
  std::string names;
  for (const Json& name : gpu["names"]) names += (names.empty() ? "" : ", ") + name.get<std::string>();
  const std::string found = !names.empty()          ? names
                            : gpu["driver"] == true ? "driver found, no GPU"
                                                    : "none (no NVIDIA driver)";
  return found + (gpu["built"] == true ? "" : "; this build has no CUDA");
}

}  // namespace

std::string version_text() {
  return fmt::format("quire {}\ninstruction set: {}\nCUDA: {}", QUIRE_VERSION, to_string(default_isa()),
                     QUIRE_CUDA_TEXT);
}

nlohmann::ordered_json machine_json(int threads) {
  if (threads == 0) threads = hardware_threads();
  const MachineMemory memory = machine_memory();
  Json caches = Json::array(), available = Json::array();
  for (const CpuCache& c : cpu_caches())
    caches.push_back({{"level", c.level}, {"type", c.type}, {"bytes", c.bytes}, {"shared_by", c.shared_by}});
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (isa <= machine_isa()) available.push_back(to_string(isa));
  }
  const std::vector<std::string> gpus = nvidia_gpus();
  return {
      {"version", QUIRE_VERSION},
      {"build", build_text()},
      {"cpu", cpu_name()},
      {"isa", to_string(default_isa())},
      {"isa_available", available},
      {"amx", cpu::amx_works()},
      {"cores_usable", hardware_threads()},
      {"cores_online", int64_t(sysconf(_SC_NPROCESSORS_ONLN))},
      {"caches", caches},
      {"memory_total", memory.total},
      {"memory_available", memory.available},
      {"read_bandwidth", bandwidth_json(threads)},
      {"gpu", {{"built", kCuda}, {"driver", std::filesystem::exists("/proc/driver/nvidia/version")}, {"names", gpus}}}};
}

std::string machine_text(const nlohmann::ordered_json& r) {
  std::string isas, out;
  for (const Json& isa : r["isa_available"]) isas += (isas.empty() ? "" : ", ") + isa.get<std::string>();
  if (r["amx"] == true) isas += ", AMX int8";
  const auto line = [&](const char* key, const std::string& value) { out += fmt::format("  {:<16} {}\n", key, value); };
  out += "Machine\n";
  line("cpu", r["cpu"].get<std::string>());
  line("cores", fmt::format("{} usable of {}", r["cores_usable"].get<int>(), r["cores_online"].get<int64_t>()));
  line("caches", caches_text(r["caches"]));
  line("memory", fmt::format("{}, {} available", bytes_text(r["memory_total"].get<int64_t>()),
                             bytes_text(r["memory_available"].get<int64_t>())));
  for (const Json& b : r["read_bandwidth"]) {
    line("read bandwidth",
         fmt::format("{:.1f} GB/s, {} thread{}, buffer of {}", b["gb_per_s"].get<double>(), b["threads"].get<int>(),
                     b["threads"] == 1 ? "" : "s", bytes_text(b["bytes"].get<int64_t>())));
  }
  line("gpu", gpu_text(r["gpu"]));
  out += "Quire\n";
  line("version", r["version"].get<std::string>());
  line("instruction set",
       fmt::format("{} (the machine has {}; QUIRE_ISA forces one)", r["isa"].get<std::string>(), isas));
  line("build", r["build"].get<std::string>());
  return out;
}

}  // namespace quire
