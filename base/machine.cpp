#include "base/machine.h"

#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <utility>

namespace quire {

namespace {

// "Key:   123 kB" lines of files under /proc.
void read_kib(const char* path, std::initializer_list<std::pair<const char*, int64_t*>> wanted) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    for (const auto& [key, bytes] : wanted) {
      const std::string start = std::string(key) + ":";
      if (line.compare(0, start.size(), start) == 0)
        *bytes = std::strtoll(line.c_str() + start.size(), nullptr, 10) * 1024;
    }
  }
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

MachineMemory machine_memory() {
  MachineMemory m;
  read_kib("/proc/meminfo", {{"MemTotal", &m.total}, {"MemAvailable", &m.available}});
  return m;
}

ProcessMemory process_memory() {
  ProcessMemory m;
  read_kib("/proc/self/status", {{"VmRSS", &m.resident}, {"VmHWM", &m.peak}});
  return m;
}

bool reset_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return bool(file);
}

std::vector<CpuCache> cpu_caches() {
  std::vector<CpuCache> caches;
  for (int i = 0;; ++i) {
    const std::string at = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    CpuCache cache;
    cache.level = std::atoi(first_line(at + "level").c_str());
    if (cache.level == 0) return caches;
    cache.type = first_line(at + "type");
    const std::string size = first_line(at + "size");  // "2048K"
    const char unit = size.empty() ? ' ' : size.back();
    cache.bytes = std::strtoll(size.c_str(), nullptr, 10) * (unit == 'K' ? 1 << 10 : unit == 'M' ? 1 << 20 : 1);
    cache.shared_by = first_line(at + "shared_cpu_list");
    caches.push_back(cache);
  }
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.compare(0, 10, "model name") == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return {};
}

}  // namespace quire
