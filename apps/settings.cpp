// The table of sampling settings.
#include <algorithm>
#include <array>
#include <limits>

#include "apps/numbers.h"
#include "apps/options.h"

namespace quire {

namespace {

template <class T>
std::string shown(T value) {
  return fmt::format("{}", value);
}

void add_logit_bias(GenerationSettings& s, std::string_view value) {
  if (value.empty()) {
    s.sampler.logit_bias.clear();
    return;
  }
  const size_t equals = value.find('=');
  check(equals != std::string_view::npos, "logit-bias: '{}' is not TOKEN=BIAS, such as 42=-100", value);
  const auto token = parse_number<int32_t>("logit-bias token", value.substr(0, equals), 0, 1 << 30);
  s.sampler.logit_bias.emplace_back(token, parse_number<float>("logit-bias", value.substr(equals + 1)));
}

std::string logit_bias_text(const GenerationSettings& s) {
  std::string lines;
  for (const auto& [token, bias] : s.sampler.logit_bias) lines += fmt::format("{}={}\n", token, bias);
  return lines;
}

// What a line of text cannot hold, and how it is typed.
constexpr std::array<std::pair<char, char>, 4> kEscapes = {{{'\\', '\\'}, {'\n', 'n'}, {'\t', 't'}, {'\r', 'r'}}};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto found = std::find_if(kEscapes.begin(), kEscapes.end(), [c](const auto& e) { return e.first == c; });
    out += found == kEscapes.end() ? std::string(1, c) : std::string{'\\', found->second};
  }
  return out;
}

// A backslash before anything else stays one.
std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    const auto found =
        std::find_if(kEscapes.begin(), kEscapes.end(), [next](const auto& e) { return e.second == next; });
    i += found == kEscapes.end() ? 0 : 1;
    out += found == kEscapes.end() ? text[i] : found->first;
  }
  return out;
}

void add_stop(GenerationSettings& s, std::string_view value) {
  if (value.empty()) {
    s.stop.clear();
  } else {
    s.stop.push_back(unescaped(value));
  }
}

std::string stop_text(const GenerationSettings& s) {
  std::string lines;
  for (const std::string& stop : s.stop) lines += escaped(stop) + "\n";
  return lines;
}

using S = GenerationSettings;
using View = std::string_view;
constexpr float kMost = std::numeric_limits<float>::max();

constexpr std::array kSettings = {
    Setting{"temperature", "T", "0: always the likeliest token (default); 0.7 is lively", false,
            [](S& s, View v) { s.sampler.temperature = parse_number<float>("temperature", v, 0.0f, kMost); },
            [](const S& s) { return shown(s.sampler.temperature); }},
    Setting{"top-k", "K", "only the K likeliest tokens; 0: all (default)", false,
            [](S& s, View v) { s.sampler.top_k = parse_number<int32_t>("top-k", v, 0, 1 << 30); },
            [](const S& s) { return shown(s.sampler.top_k); }},
    Setting{"top-p", "P", "only the likeliest tokens that together have probability P (default 1: all)", false,
            [](S& s, View v) {
              s.sampler.top_p = parse_number<float>("top-p", v, 0.0f, 1.0f);
              check(s.sampler.top_p > 0, "top-p: 0 would leave no token; --top-k 1 leaves the likeliest");
            },
            [](const S& s) { return shown(s.sampler.top_p); }},
    Setting{"min-p", "P", "only tokens at least P times as likely as the likeliest (default 0: all)", false,
            [](S& s, View v) { s.sampler.min_p = parse_number<float>("min-p", v, 0.0f, 1.0f); },
            [](const S& s) { return shown(s.sampler.min_p); }},
    Setting{"repetition-penalty", "X", "weakens tokens of the last 64, prompt included (default 1: off)", false,
            [](S& s, View v) {
              s.sampler.repetition_penalty = parse_number<float>("repetition-penalty", v);
              check(s.sampler.repetition_penalty > 0, "repetition-penalty: {} is not above 0", v);
            },
            [](const S& s) { return shown(s.sampler.repetition_penalty); }},
    Setting{"presence-penalty", "X", "weakens tokens already generated (default 0: off)", false,
            [](S& s, View v) { s.sampler.presence_penalty = parse_number<float>("presence-penalty", v); },
            [](const S& s) { return shown(s.sampler.presence_penalty); }},
    Setting{"frequency-penalty", "X", "the same, once for each time (default 0: off)", false,
            [](S& s, View v) { s.sampler.frequency_penalty = parse_number<float>("frequency-penalty", v); },
            [](const S& s) { return shown(s.sampler.frequency_penalty); }},
    Setting{"logit-bias", "TOKEN=BIAS", "adds BIAS to the logit of a token id; may be repeated", true, add_logit_bias,
            logit_bias_text},
    Setting{"seed", "N", "the same seed gives the same text (default 0)", false,
            [](S& s, View v) { s.sampler.seed = parse_number<uint64_t>("seed", v); },
            [](const S& s) { return shown(s.sampler.seed); }},
    Setting{"max-tokens", "N", "most tokens of an answer (default -1: until the context is full)", false,
            [](S& s, View v) {
              s.max_tokens = parse_number<int64_t>("max-tokens", v, -1, std::numeric_limits<int64_t>::max());
            },
            [](const S& s) { return shown(s.max_tokens); }},
    Setting{"stop", "TEXT", "ends the answer before TEXT (\\n, \\t, \\\\ as in C); may be repeated", true, add_stop,
            stop_text},
};

}  // namespace

std::span<const Setting> all_settings() { return kSettings; }

const Setting* find_setting(std::string_view name) {
  std::string dashed(name);
  for (char& c : dashed) c = c == '_' ? '-' : c;
  for (const Setting& setting : kSettings) {
    if (dashed == setting.name) return &setting;
  }
  return nullptr;
}

std::string setting_names() {
  std::string names;
  for (const Setting& setting : kSettings) names += fmt::format("{}{}", names.empty() ? "" : " ", setting.name);
  return names;
}

}  // namespace quire
