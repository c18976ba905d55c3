// What this machine is, as far as the system tells. Unknown numbers are 0, unknown texts empty.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace quire {

struct MachineMemory {
  int64_t total = 0, available = 0;  // bytes; available: what can be had without swapping
};
MachineMemory machine_memory();

struct ProcessMemory {
  int64_t resident = 0, peak = 0;  // bytes of this process in memory, mapped files included
};
ProcessMemory process_memory();
bool reset_peak_memory();  // peak starts again at what is resident now; false if the system does not allow it

struct CpuCache {
  int level = 0;
  std::string type;  // "Data", "Instruction", "Unified"
  int64_t bytes = 0;
  std::string shared_by;  // cores that share one, "0-1"
};
std::vector<CpuCache> cpu_caches();  // of the first core
std::string cpu_name();

}  // namespace quire
