#include "models/hf_rope.h"

#include <cmath>

#include "base/error.h"
#include "base/printable.h"
#include "models/rope_scaling.h"

namespace quire {

namespace {

double needed_number(const JsonObject& o, const char* key) {
  const auto x = o.number(key);
  check(x.has_value(), "{}: '{}' is missing", o.where(), key);
  return *x;
}

double positive(const JsonObject& o, const char* key, double x) {
  check(std::isfinite(x) && x > 0, "{}: {} is {}; it must be positive", o.where(), key, x);
  return x;
}

// (R/2) positive numbers.
std::vector<float> factors(const JsonObject& o, const char* key, int64_t pairs) {
  const Json* list = o.array(key);
  check(list && int64_t(list->size()) == pairs, "{}: '{}' has {} numbers; one for each of {} pairs of dims is needed",
        o.where(), key, list ? list->size() : 0, pairs);
  std::vector<float> out;
  for (const Json& v : *list) {
    const float x = v.is_number() ? v.get<float>() : 0.0f;
    check(std::isfinite(x) && x > 0, "{}: '{}' holds {}; positive numbers are needed", o.where(), key,
          printable_json(v));
    out.push_back(x);
  }
  return out;
}

double yarn_amplitude(const JsonObject& o, double factor) {
  if (const auto given = o.number("attention_factor")) return positive(o, "attention_factor", *given);
  const double scale = o.number("mscale").value_or(0), all = o.number("mscale_all_dim").value_or(0);
  if (scale != 0 && all != 0) return quire::yarn_amplitude(factor, scale) / quire::yarn_amplitude(factor, all);
  return quire::yarn_amplitude(factor);
}

// outer: config.json itself, which some models keep the original context in.
RopeScaling read_scaling(const JsonObject& rope, const JsonObject& outer, const ModelConfig& c) {
  using Kind = RopeScaling::Kind;
  RopeScaling s;
  const std::string type = rope.text("rope_type").value_or(rope.text("type").value_or("default"));
  if (type == "default") return s;
  const bool phi3 = c.family == "phi3";
  if (type == "linear") {
    s.kind = Kind::linear;
  } else if (type == "llama3") {
    s.kind = Kind::llama3;
  } else if (type == "yarn" && !phi3) {
    s.kind = Kind::yarn;
  } else if (type == "longrope" || (phi3 && (type == "su" || type == "yarn"))) {  // older names of the same
    s.kind = Kind::factors;
  } else {
    fail(fmt::format("{}: rope scaling '{}' is not supported; linear, llama3, yarn and longrope are", rope.where(),
                     printable(type)));
  }
  if (s.kind != Kind::linear) {
    const auto inner = rope.integer("original_max_position_embeddings");
    const auto outside = outer.integer("original_max_position_embeddings");
    s.original_context = outside ? *outside : phi3 ? 4096 : inner.value_or(c.context);
    positive(rope, "original_max_position_embeddings", double(s.original_context));
  }
  if (s.kind != Kind::factors) s.factor = positive(rope, "factor", needed_number(rope, "factor"));
  if (s.kind == Kind::llama3) {
    s.low_freq_factor = positive(rope, "low_freq_factor", needed_number(rope, "low_freq_factor"));
    s.high_freq_factor = positive(rope, "high_freq_factor", needed_number(rope, "high_freq_factor"));
    check(s.low_freq_factor < s.high_freq_factor, "{}: low_freq_factor {} is not below high_freq_factor {}",
          rope.where(), s.low_freq_factor, s.high_freq_factor);
  }
  if (s.kind == Kind::yarn) {
    s.beta_fast = positive(rope, "beta_fast", rope.number("beta_fast").value_or(32.0));
    s.beta_slow = positive(rope, "beta_slow", rope.number("beta_slow").value_or(1.0));
    s.truncate = rope.boolean("truncate").value_or(true);
    s.amplitude = yarn_amplitude(rope, s.factor);
  }
  if (s.kind == Kind::factors) {
    s.short_factors = factors(rope, "short_factor", c.rope_dim / 2);
    s.long_factors = factors(rope, "long_factor", c.rope_dim / 2);
    const double stretch = rope.number("factor").value_or(double(c.context) / double(s.original_context));
    const auto given = rope.number("attention_factor");
    s.amplitude = given ? positive(rope, "attention_factor", *given) : longrope_amplitude(stretch, s.original_context);
  }
  return s;
}

// The dims that turn: the whole head, but for Phi 3.
void read_part(const JsonObject& rope, ModelConfig& c) {
  const double part = rope.number("partial_rotary_factor").value_or(1.0);
  check(part == 1.0 || (c.family == "phi3" && part > 0 && part < 1), "{}: rotating {} of a head is not supported",
        rope.where(), part);
  if (part != 1.0) c.rope_dim = int64_t(double(c.head_dim) * part);
}

double theta_in(const JsonObject& rope, const JsonObject& outer, const char* outer_key, double by_default) {
  const auto inner = rope.number("rope_theta"), outside = outer.number(outer_key);
  check(!inner || !outside || *inner == *outside, "{}: rope_theta is {} here and {} outside", rope.where(),
        inner.value_or(0), outside.value_or(0));
  return inner ? *inner : outside.value_or(by_default);
}

// Gemma 3: windowed layers turn by another base and are never scaled. Newer files have an object for each kind.
void read_windowed_rope(const JsonObject& o, ModelConfig& c) {
  c.rope_theta_windowed = o.number("rope_local_base_freq").value_or(10000.0);
  const auto both = o.object("rope_parameters");
  const auto windowed = both ? both->object("sliding_attention") : std::nullopt;
  if (!windowed) return;
  const RopeScaling scaling = read_scaling(*windowed, o, c);
  check(scaling.kind == RopeScaling::Kind::none, "{}: scaling the rope of windowed layers is not supported",
        windowed->where());
  c.rope_theta_windowed = theta_in(*windowed, o, "rope_local_base_freq", c.rope_theta_windowed);
}

}  // namespace

// rope_scaling (older) or rope_parameters (newer, which holds rope_theta too).
void read_hf_rope(const JsonObject& o, ModelConfig& c) {
  c.rope_theta = o.number("rope_theta").value_or(c.rope_theta);
  if (c.family == "phi3") read_part(o, c);
  if (c.family == "gemma3") read_windowed_rope(o, c);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    auto rope = o.object(key);
    if (rope && rope->find("full_attention")) {
      check(c.family == "gemma3", "{}: a rope for each kind of layer is not supported", rope->where());
      rope.emplace(*rope->object("full_attention"));
    }
    if (!rope) continue;
    read_part(*rope, c);
    c.rope_theta = theta_in(*rope, o, "rope_theta", c.rope_theta);
    const RopeScaling scaling = read_scaling(*rope, o, c);
    check(c.rope_scaling.kind == RopeScaling::Kind::none || scaling.kind == RopeScaling::Kind::none ||
              scaling == c.rope_scaling,
          "{}: 'rope_scaling' and 'rope_parameters' say different things", o.where());
    if (scaling.kind != RopeScaling::Kind::none) c.rope_scaling = scaling;
  }
}

}  // namespace quire
