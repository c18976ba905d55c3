#include "apps/bench_profile.h"

#include <algorithm>

#include "apps/numbers.h"

namespace quire {

namespace {

using Json = nlohmann::ordered_json;

Json op_json(const std::string& name, double calls, double seconds, double bytes, double operations,
             const BenchProfile& p) {
  const double rate = seconds > 0 ? bytes / seconds : 0.0;
  return {{"op", name},
          {"calls", calls},
          {"ms", seconds * 1e3},
          {"time_share", p.seconds > 0 ? seconds * double(p.steps) / p.seconds : 0.0},
          {"bytes", bytes},
          {"operations", operations},
          {"gb_per_s", rate / 1e9},
          {"bandwidth_share", p.bandwidth.bytes_per_second > 0 ? rate / p.bandwidth.bytes_per_second : 0.0},
          {"gop_per_s", seconds > 0 ? operations / seconds / 1e9 : 0.0}};
}

std::string md_line(const Json& op) {
  const auto number = [&](const char* key) { return op[key].get<double>(); };
  return fmt::format(
      "| {:<20} | {:>6.0f} | {:>9.3f} | {:>5.1f} % | {:>9.3f} | {:>9.2f} | {:>7.2f} | {:>5.1f} % | {:>8.1f} |\n",
      op["op"].get<std::string>(), number("calls"), number("ms"), 100 * number("time_share"), number("bytes") / 1e6,
      number("operations") / 1e6, number("gb_per_s"), 100 * number("bandwidth_share"), number("gop_per_s"));
}

}  // namespace

nlohmann::ordered_json profile_json(const BenchProfile& p) {
  const double steps = double(std::max<int64_t>(p.steps, 1));
  Json ops = Json::array();
  double seconds = 0.0, calls = 0.0, bytes = 0.0, operations = 0.0;
  for (const OpTotal& t : p.ops) {
    ops.push_back(op_json(t.name, double(t.calls) / steps, t.seconds / steps, double(t.cost.bytes) / steps,
                          double(t.cost.operations) / steps, p));
    seconds += t.seconds;
    calls += double(t.calls) / steps;
    bytes += double(t.cost.bytes) / steps;
    operations += double(t.cost.operations) / steps;
  }
  ops.push_back(op_json("other", 0, (p.seconds - seconds) / steps, 0, 0, p));
  return {{"steps", p.steps},
          {"step_ms", p.seconds / steps * 1e3},
          {"bandwidth_gb_per_s", p.bandwidth.bytes_per_second / 1e9},
          {"bandwidth_buffer", p.bandwidth.buffer},
          {"bandwidth_threads", p.bandwidth.threads},
          {"ops", ops},
          {"all", op_json("all", calls, p.seconds / steps, bytes, operations, p)}};
}

std::string profile_md(const BenchProfile& p, const std::string& title) {
  const Json json = profile_json(p);
  std::string out = fmt::format(
      "One step of {}: {:.3f} ms (mean of {}). Bandwidth: {:.1f} GB/s, measured by {} thread{} reading {} (as large as "
      "the "
      "weights).\n\n",
      title, json["step_ms"].get<double>(), p.steps, p.bandwidth.bytes_per_second / 1e9, p.bandwidth.threads,
      p.bandwidth.threads == 1 ? "" : "s", bytes_text(p.bandwidth.buffer));
  out +=
      "| op                   |  calls |        ms |    time |        MB |       Mop |    GB/s | of peak |    Gop/s "
      "|\n";
  out +=
      "|:-------------------- | ------:| ---------:| -------:| ---------:| ---------:| -------:| -------:| "
      "--------:|\n";
  for (const Json& op : json["ops"]) out += md_line(op);
  return out + md_line(json["all"]);
}

}  // namespace quire
