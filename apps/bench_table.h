// The rows of `quire bench`, as Markdown, CSV or JSON.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/bench_profile.h"

namespace quire {

struct BenchRow {
  std::string model_filename, model, scheme, kv;
  std::string device;            // "cpu", or a GPU's number and name
  int64_t size = 0, params = 0;  // bytes of the weights as they run; values in the model
  int threads = 0;
  int64_t n_batch = 0;  // prompt tokens a step
  BenchTest test;
  std::vector<BenchSample> samples;
  MemoryPlan memory;
  int64_t memory_peak = 0;  // most that was resident since the model was opened, or so far if that cannot be told
  std::optional<BenchProfile> profile;
  std::string test_time;  // UTC, ISO 8601, when the test began

  const char* backend() const { return device == "cpu" ? "CPU" : "CUDA"; }
  std::vector<double> rates() const;  // tokens a second
};

enum class BenchFormat : uint8_t { md, csv, json, jsonl };
BenchFormat parse_bench_format(std::string_view text);

// Every field of a row by name, in the order of the columns.
nlohmann::ordered_json row_json(const BenchRow& row);

// Text to print before the first row, for each row, and at the end; rows come one by one, as they are measured.
class BenchPrinter {
 public:
  explicit BenchPrinter(BenchFormat format) : format_(format) {}
  std::string row(const BenchRow& row);
  std::string end() const;

 private:
  BenchFormat format_;
  int64_t rows_ = 0;
};

}  // namespace quire
