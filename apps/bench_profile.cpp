#include "apps/bench_profile.h"

#include <algorithm>

#include "apps/numbers.h"

namespace quire {

namespace {

using Json = nlohmann::ordered_json;

// Seconds that an op cannot do without.
double least_seconds(const OpCost& cost, const Peaks& peaks) {
  const double bytes = peaks.bytes_per_second > 0 ? double(cost.bytes) / peaks.bytes_per_second : 0.0;
  const double rate = peaks.of(cost.unit);
  return std::max(bytes, rate > 0 ? double(cost.operations) / rate : 0.0);
}

struct PerStep {
  std::string op;
  double calls = 0, seconds = 0, share = 0, bytes = 0, operations = 0, least = 0;
};

Json op_json(const PerStep& s, const Peaks& peaks) {
  const double rate = s.seconds > 0 ? s.bytes / s.seconds : 0.0;
  return {{"op", s.op},
          {"calls", s.calls},
          {"ms", s.seconds * 1e3},
          {"time_share", s.share},
          {"bytes", s.bytes},
          {"operations", s.operations},
          {"gb_per_s", rate / 1e9},
          {"bandwidth_share", peaks.bytes_per_second > 0 ? rate / peaks.bytes_per_second : 0.0},
          {"gop_per_s", s.seconds > 0 ? s.operations / s.seconds / 1e9 : 0.0},
          {"peak_share", s.seconds > 0 ? s.least / s.seconds : 0.0}};
}

std::string md_line(const Json& op) {
  const auto number = [&](const char* key) { return op[key].get<double>(); };
  return fmt::format(
      "| {:<20} | {:>6.0f} | {:>9.3f} | {:>5.1f} % | {:>9.3f} | {:>9.2f} | {:>7.2f} | {:>5.1f} % | {:>8.1f} |\n",
      op["op"].get<std::string>(), number("calls"), number("ms"), 100 * number("time_share"), number("bytes") / 1e6,
      number("operations") / 1e6, number("gb_per_s"), 100 * number("peak_share"), number("gop_per_s"));
}

}  // namespace

nlohmann::ordered_json profile_json(const BenchProfile& p) {
  const double steps = double(std::max<int64_t>(p.steps, 1)), observed = double(std::max<int64_t>(p.observed, 1));
  Json ops = Json::array();
  PerStep all{"all"}, other{"other"};
  all.seconds = other.seconds = p.seconds / steps;
  all.share = other.share = 1.0;
  for (const OpTotal& t : p.ops) {
    const PerStep one{t.name,
                      double(t.calls) / observed,
                      t.seconds / observed,
                      all.seconds > 0 ? t.seconds / observed / all.seconds : 0.0,
                      double(t.cost.bytes) / observed,
                      double(t.cost.operations) / observed,
                      least_seconds(t.cost, p.peaks) / observed};
    ops.push_back(op_json(one, p.peaks));
    other.seconds -= one.seconds;
    other.share -= one.share;
    all.calls += one.calls;
    all.bytes += one.bytes;
    all.operations += one.operations;
    all.least += one.least;
  }
  ops.push_back(op_json(other, p.peaks));
  Json json = {{"steps", p.steps},
               {"step_ms", p.seconds / steps * 1e3},
               {"bandwidth_gb_per_s", p.peaks.bytes_per_second / 1e9},
               {"bandwidth_buffer", p.peaks.buffer},
               {"bandwidth_threads", p.peaks.threads}};
  if (p.peaks.f16 > 0) {
    json["f16_gop_per_s"] = p.peaks.f16 / 1e9;
    json["int8_gop_per_s"] = p.peaks.int8 / 1e9;
    json["e4m3_gop_per_s"] = p.peaks.e4m3 / 1e9;
  }
  json["ops"] = ops;
  json["all"] = op_json(all, p.peaks);
  return json;
}

std::string profile_md(const BenchProfile& p, const std::string& title) {
  const Json json = profile_json(p);
  std::string out = fmt::format("One step of {}: {:.3f} ms (mean of {}). Bandwidth: {:.1f} GB/s", title,
                                json["step_ms"].get<double>(), p.steps, p.peaks.bytes_per_second / 1e9);
  if (p.peaks.threads > 0) {
    out += fmt::format(", measured by {} thread{} reading {} (as large as the weights).\n\n", p.peaks.threads,
                       p.peaks.threads == 1 ? "" : "s", bytes_text(p.peaks.buffer));
  } else {
    out += fmt::format("; tensor cores: f16 {:.0f}, int8 {:.0f}, e4m3 {:.0f} Top/s, measured just before.\n\n",
                       p.peaks.f16 / 1e12, p.peaks.int8 / 1e12, p.peaks.e4m3 / 1e12);
  }
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
