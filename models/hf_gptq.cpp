// GPTQ as AutoGPTQ and GPTQModel write it. Of a module: qweight I32 (ceil(I bits / 32), O), packed along the inputs;
// qzeros I32 (groups, ceil(O bits / 32)), packed along the outputs; scales (groups, O); g_idx I32 (I), the group of
// each input, where it is not i / group_size. Codes are streams of bits, lowest first; of 3 bits some lie over two
// words. Value = scale * (code - zero). Version 1 ("gptq") stores zero - 1 in each field, version 2 ("gptq_v2") the
// zero.
#include <limits>

#include "base/error.h"
#include "base/printable.h"
#include "models/hf_quantized.h"
#include "models/name_pattern.h"

namespace quire {

namespace {

struct Settings {
  int64_t bits = 4, group = 128;  // group -1: the row
  bool act_order = false;         // g_idx says which group each input is of
};

// One entry of `dynamic`: what is different for the modules it matches.
struct Rule {
  NamePattern pattern;
  bool skip;  // "-:": not quantized
  std::optional<int64_t> bits, group;
  std::optional<bool> act_order;
};
constexpr size_t kMaxRules = 1000, kMaxSteps = 2'000'000;  // steps: of all their patterns, for one module

std::optional<int64_t> integer_of(const JsonObject& o, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (const auto v = o.integer(key)) return v;
  }
  return std::nullopt;
}

void check_settings(const Settings& s, const std::string& where) {
  check(s.bits == 2 || s.bits == 3 || s.bits == 4 || s.bits == 8,
        "{}: codes of {} bits cannot be read; 2, 3, 4 and 8 can", where, s.bits);
  check(s.group == -1 || (s.group > 0 && s.group <= std::numeric_limits<int32_t>::max()),
        "{}: group_size is {}; -1 or a positive number is needed", where, s.group);
}

std::vector<Rule> read_rules(const QuantizedSource& source) {
  std::vector<Rule> rules;
  const auto dynamic = source.options.object("dynamic");
  if (!dynamic) return rules;
  check(source.rule_names.size() <= kMaxRules, "{}: {} rules; up to {} are supported", dynamic->where(),
        source.rule_names.size(), kMaxRules);
  for (const std::string& key : source.rule_names) {
    const bool skip = key.starts_with("-:");
    const std::string pattern = skip || key.starts_with("+:") ? key.substr(2) : key;
    const JsonObject o(dynamic->json().at(key), fmt::format("{}, '{}'", dynamic->where(), printable(key)));
    rules.push_back({NamePattern(pattern, dynamic->where(), uint32_t(kMaxSteps / source.rule_names.size())), skip,
                     o.integer("bits"), o.integer("group_size"), o.boolean("desc_act")});
  }
  return rules;
}

class GptqReader {
 public:
  explicit GptqReader(const QuantizedSource& source) : source_(source), rules_(read_rules(source)) {
    const JsonObject& o = source.options;
    settings_.bits = integer_of(o, {"bits", "w_bit", "wbits"}).value_or(4);
    settings_.group = integer_of(o, {"group_size", "q_group_size"}).value_or(-1);
    settings_.act_order = o.boolean("desc_act").value_or(false);
    check_settings(settings_, o.where());
    const std::string format = o.text("checkpoint_format").value_or(o.text("format").value_or("gptq"));
    check(!o.boolean("is_marlin_format").value_or(false) && (format == "gptq" || format == "gptq_v2"),
          "{}: checkpoint_format '{}' cannot be read; 'gptq' and 'gptq_v2' can (GPTQModel converts)", o.where(),
          o.boolean("is_marlin_format").value_or(false) ? "marlin" : printable(format));
    check(!o.find("adapter"),
          "{}: 'adapter' (EoRA, LoRA) adds to the weights, which is not supported; merged models are", o.where());
    const std::string packed = o.text("pack_dtype").value_or("int32");
    check(packed == "int32", "{}: codes packed in {} cannot be read; in int32 they can", o.where(), printable(packed));
    zero_shift_ = format == "gptq" ? 1 : 0;
  }

  void add(const std::string& module, TensorShape shape) {
    if (!source_.entries.has(module + ".qweight")) return;  // in floats, which the frame adds
    const Settings s = settings_of(module);
    ++modules_;
    const int64_t inputs = shape.cols, outputs = shape.rows, group = s.group == -1 ? inputs : s.group;
    const int64_t groups = (inputs + group - 1) / group;
    const auto words = [&](int64_t codes) { return (codes * s.bits + 31) / 32; };
    check(s.bits != 3 || (inputs % 32 == 0 && outputs % 32 == 0),
          "'{}': '{}' ({}, {}) is no multiple of 32 each way, which 3-bit codes need", source_.path(),
          printable(module), outputs, inputs);
    const auto qweight = source_.entries.take(module + ".qweight", "I32", {words(inputs), outputs});
    const auto qzeros = source_.entries.take(module + ".qzeros", "I32", {groups, words(outputs)});
    const SafetensorsTensor& scales = source_.entries.take(module + ".scales");
    const FloatValues scale(scales, source_.path());
    check(scales.shape == (std::vector<int64_t>{groups, outputs}),
          "'{}': tensor '{}' is {} where {} outputs in {} groups of {} inputs need ({}, {})", source_.path(),
          printable(scales.name), printable_json(scales.shape), outputs, groups, group, groups, outputs);

    GroupedCodes codes;
    codes.rows = outputs;
    codes.cols = inputs;
    codes.bits = int(s.bits);
    codes.group = s.group == -1 ? 0 : group;
    codes.block = 16;  // a cache line of words
    check(!s.act_order || groups == 1 || source_.entries.has(module + ".g_idx"),
          "'{}': tensor '{}.g_idx' is missing; by 'desc_act' it says which group each input is of", source_.path(),
          printable(module));
    codes.sources = {qweight, qzeros, scales.bytes};
    codes.codes = [=, bits = int(s.bits), data = qweight.data()](int64_t r0, int64_t n, uint8_t* out) {
      read_codes(data, bits, outputs, inputs, r0, n, out);
    };
    codes.scale = [=](int64_t r, int64_t g) { return scale[g * outputs + r]; };
    codes.zero = [=, bits = int(s.bits), shift = zero_shift_, row = words(outputs), data = qzeros.data()](int64_t r,
                                                                                                          int64_t g) {
      return shift + stream_code(r, bits, [&](int64_t w) { return load_word(data, g * row + w); });
    };
    add_grouped_codes(source_, module, std::move(codes), order_of(module, inputs, group));
  }

  std::string words() const {
    check(modules_ > 0, "'{}': the configuration says that weights are quantized by GPTQ, but there is no '.qweight'",
          source_.path());
    return fmt::format("GPTQ{}, {} bits, {}{}{}", zero_shift_ ? "" : " v2", settings_.bits,
                       settings_.group == -1 ? "one group a row" : fmt::format("groups of {}", settings_.group),
                       rules_.empty() ? "" : ", rules for single modules", moved_ ? ", act-order" : "");
  }

 private:
  static void read_codes(const std::byte* data, int bits, int64_t outputs, int64_t inputs, int64_t r0, int64_t n,
                         uint8_t* out) {
    const int per_word = 32 / bits, mask = (1 << bits) - 1;
    for (int64_t k = 0; k < inputs; ++k) {
      if (bits == 3) {
        for (int64_t i = 0; i < n; ++i)
          out[i * inputs + k] =
              uint8_t(stream_code(k, 3, [&](int64_t w) { return load_word(data, w * outputs + r0 + i); }));
        continue;
      }
      const int64_t w = k / per_word;
      const int shift = int(k % per_word) * bits;
      for (int64_t i = 0; i < n; ++i)
        out[i * inputs + k] = uint8_t((load_word(data, w * outputs + r0 + i) >> shift) & uint32_t(mask));
    }
  }

  // The first rule that matches decides, as in GPTQModel.
  Settings settings_of(const std::string& module) const {
    Settings s = settings_;
    for (const Rule& rule : rules_) {
      if (!rule.pattern.matches_start(module)) continue;
      check(!rule.skip, "'{}': '{}' is packed, but a rule of 'dynamic' says that it is not quantized", source_.path(),
            printable(module));
      s.bits = rule.bits.value_or(s.bits);
      s.group = rule.group.value_or(s.group);
      s.act_order = rule.act_order.value_or(s.act_order);
      check_settings(s, fmt::format("'{}': rule for '{}'", source_.path(), printable(module)));
      break;
    }
    return s;
  }

  // Null where the groups lie together as they are.
  std::shared_ptr<const InputTransform> order_of(const std::string& module, int64_t inputs, int64_t group) {
    if (!source_.entries.has(module + ".g_idx")) return nullptr;
    auto order = group_order(source_, module + ".g_idx", inputs, group, last_);
    moved_ = moved_ || order;
    return order;
  }

  const QuantizedSource& source_;
  std::vector<Rule> rules_;
  Settings settings_;
  int zero_shift_ = 0;
  int64_t modules_ = 0;
  bool moved_ = false;
  std::shared_ptr<const InputTransform> last_;
};

}  // namespace

std::string add_gptq_tensors(const QuantizedSource& source) {
  GptqReader reader(source);
  source.for_each_matrix([&](const std::string& module, TensorShape shape) { reader.add(module, shape); });
  return reader.words();
}

}  // namespace quire
