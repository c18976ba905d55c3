#include "apps/bench_table.h"

#include <algorithm>
#include <array>

#include "apps/numbers.h"
#include "base/machine.h"
#include "kernels/context.h"

namespace quire {

namespace {

constexpr std::array<const char*, 4> kFormatNames = {"md", "csv", "json", "jsonl"};

struct MdColumn {
  const char* title;
  int width;  // at least; right aligned when positive, left when negative
};
constexpr std::array<MdColumn, 12> kMdColumns = {{{"model", -32},
                                                  {"size", 10},
                                                  {"params", 9},
                                                  {"backend", -7},
                                                  {"isa", -8},
                                                  {"threads", 7},
                                                  {"scheme", -8},
                                                  {"kv", -6},
                                                  {"batch", 5},
                                                  {"seqs", 4},
                                                  {"test", 15},
                                                  {"t/s", 18}}};

std::string md_cell(const std::string& text, const MdColumn& column) {
  std::string safe;
  for (const char c : text) safe += c == '|' ? std::string("\\|") : std::string(1, c);
  return column.width < 0 ? fmt::format(" {:<{}} |", safe, -column.width)
                          : fmt::format(" {:>{}} |", safe, column.width);
}

std::string md_header() {
  std::string titles = "|", lines = "|";
  for (const MdColumn& c : kMdColumns) {
    titles += md_cell(c.title, c);
    const std::string dashes(size_t(std::abs(c.width)), '-');
    lines += c.width < 0 ? ":" + dashes + " |" : " " + dashes + ":|";
  }
  return titles + "\n" + lines + "\n";
}

std::string count_text(int64_t n) {
  return n >= 1'000'000'000 ? fmt::format("{:.2f} B", double(n) / 1e9) : fmt::format("{:.2f} M", double(n) / 1e6);
}

std::string md_row(const BenchRow& row) {
  const std::vector<double> rates = row.rates();
  const std::array<std::string, kMdColumns.size()> cells = {
      row.model,
      bytes_text(row.size),
      count_text(row.params),
      row.backend(),
      to_string(default_isa()),
      std::to_string(row.threads),
      row.scheme,
      row.kv,
      std::to_string(row.n_batch),
      std::to_string(row.test.sequences),
      row.test.name(),
      fmt::format("{:.2f} ± {:.2f}", mean(rates), deviation(rates))};
  std::string text = "|";
  for (size_t i = 0; i < cells.size(); ++i) text += md_cell(cells[i], kMdColumns[i]);
  return text + "\n";
}

std::string csv_cell(const nlohmann::ordered_json& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_line(const nlohmann::ordered_json& object, bool names) {
  std::string line;
  for (const auto& [key, value] : object.items()) line += (line.empty() ? "" : ",") + (names ? key : csv_cell(value));
  return line + "\n";
}

std::string json_text(const nlohmann::ordered_json& object, int indent) {
  return object.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

std::vector<double> BenchRow::rates() const {
  std::vector<double> rates;
  for (const BenchSample& s : samples) rates.push_back(s.rate());
  return rates;
}

BenchFormat parse_bench_format(std::string_view text) {
  for (size_t i = 0; i < kFormatNames.size(); ++i) {
    if (text == kFormatNames[i]) return BenchFormat(i);
  }
  fail(fmt::format("output: '{}' is not md, csv, json or jsonl", text));
}

nlohmann::ordered_json row_json(const BenchRow& row) {
  std::vector<double> ns;
  for (const BenchSample& s : row.samples) ns.push_back(s.seconds * 1e9);
  const std::vector<double> rates = row.rates();
  nlohmann::ordered_json object = {{"model_filename", row.model_filename},
                                   {"model", row.model},
                                   {"size", row.size},
                                   {"params", row.params},
                                   {"backend", row.backend()},
                                   {"device", row.device},
                                   {"cpu_info", cpu_name()},
                                   {"isa", to_string(default_isa())},
                                   {"threads", row.threads},
                                   {"scheme", row.scheme},
                                   {"kv", row.kv},
                                   {"n_batch", row.n_batch},
                                   {"n_sequences", row.test.sequences},
                                   {"n_prompt", row.test.prompt},
                                   {"n_gen", row.test.generated},
                                   {"n_depth", row.test.depth},
                                   {"test", row.test.name()},
                                   {"test_time", row.test_time},
                                   {"memory_weights", row.memory.weights},
                                   {"memory_scratch", row.memory.scratch},
                                   {"memory_cache", row.memory.cache},
                                   {"memory_peak", row.memory_peak},
                                   {"avg_ns", mean(ns)},
                                   {"stddev_ns", deviation(ns)},
                                   {"avg_ts", mean(rates)},
                                   {"stddev_ts", deviation(rates)},
                                   {"median_ts", median(rates)},
                                   {"samples_ns", ns},
                                   {"samples_ts", rates}};
  if (row.profile) object["profile"] = profile_json(*row.profile);
  return object;
}

std::string BenchPrinter::row(const BenchRow& row) {
  const bool first = rows_++ == 0;
  switch (format_) {
    case BenchFormat::md:
      return (first ? md_header() : "") + md_row(row);
    case BenchFormat::csv:
      return (first ? csv_line(row_json(row), true) : "") + csv_line(row_json(row), false);
    case BenchFormat::json:
      return (first ? "[\n" : ",\n") + json_text(row_json(row), 2);
    case BenchFormat::jsonl:
      return json_text(row_json(row), -1) + "\n";
  }
  return {};
}

std::string BenchPrinter::end() const {
  if (format_ != BenchFormat::json) return {};
  return rows_ > 0 ? "\n]\n" : "[]\n";
}

}  // namespace quire
