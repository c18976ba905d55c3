#include "models/quant_args.h"

#include <charconv>

#include "base/error.h"
#include "base/printable.h"

namespace quire {

namespace {

constexpr size_t kMaxGroups = 64;

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return text;
}

// A preset that a group may be instead of its settings: {"W4A16": ["Linear"]}.
struct Preset {
  const char* name;
  int bits;
  bool floating, symmetric;
  Granularity weights;
  int64_t group;
  bool int8_inputs, fp8_inputs, static_inputs;
};
constexpr Preset kPresets[] = {
    {"W8A8", 8, false, true, Granularity::channel, 0, true, false, false},
    {"INT8", 8, false, true, Granularity::channel, 0, true, false, false},
    {"W8A16", 8, false, true, Granularity::group, 128, false, false, false},
    {"W4A16", 4, false, true, Granularity::group, 128, false, false, false},
    {"W4A16_ASYM", 4, false, false, Granularity::group, 128, false, false, false},
    {"W3A16", 3, false, true, Granularity::group, 128, false, false, false},
    {"W2A16", 2, false, true, Granularity::group, 128, false, false, false},
    {"W4A8", 4, false, true, Granularity::group, 128, true, false, false},
    {"W4AFP8", 4, false, true, Granularity::group, 128, false, true, false},
    {"FP8", 8, true, true, Granularity::tensor, 0, false, true, true},
    {"FP8_DYNAMIC", 8, true, true, Granularity::channel, 0, false, true, false},
};

QuantGroup preset_group(const std::string& name, const Json& targets, const std::string& where) {
  std::string known, upper = name;
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
  for (const Preset& p : kPresets) {
    known += fmt::format("{}{}", known.empty() ? "" : " ", p.name);
    if (upper != p.name) continue;
    QuantGroup group;
    group.name = name;
    group.targets = ModuleList(&targets, where);
    group.weights = QuantArgs{p.bits, p.floating, p.symmetric, false, p.weights, p.group, 0, 0, false};
    if (p.int8_inputs || p.fp8_inputs) {
      const Granularity inputs = p.static_inputs ? Granularity::tensor : Granularity::token;
      group.inputs = QuantArgs{8, p.fp8_inputs, true, !p.static_inputs, inputs, 0, 0, 0, false};
    }
    return group;
  }
  fail(fmt::format("{}: the preset '{}' cannot be read; these can: {}", where, printable(name), known));
}

void read_block(const JsonObject& o, QuantArgs& args) {
  const Json* v = o.find("block_structure");
  check(v != nullptr, "{}: 'block_structure' is missing", o.where());
  bool good = false;
  if (v->is_array() && v->size() == 2 && (*v)[0].is_number_unsigned() && (*v)[1].is_number_unsigned()) {
    args.block_rows = (*v)[0].get<int64_t>();
    args.block_cols = (*v)[1].get<int64_t>();
    good = true;
  } else if (v->is_string()) {  // older writers: "128x128"
    const auto& text = v->get_ref<const std::string&>();
    const char *begin = text.data(), *end = begin + text.size();
    const auto rows = std::from_chars(begin, end, args.block_rows);
    if (rows.ec == std::errc() && rows.ptr != end && *rows.ptr == 'x') {
      const auto cols = std::from_chars(rows.ptr + 1, end, args.block_cols);
      good = cols.ec == std::errc() && cols.ptr == end;
    }
  }
  constexpr int64_t kMost = 1 << 16;
  check(good && args.block_rows > 0 && args.block_cols > 0 && args.block_rows <= kMost && args.block_cols <= kMost,
        "{}: block_structure {} is not two sizes from 1 to {}", o.where(), printable_json(*v), kMost);
}

void read_granularity(const JsonObject& o, QuantArgs& args) {
  const int64_t group = o.integer("group_size").value_or(0);
  check(group >= -1 && group <= INT32_MAX, "{}: group_size is {}; -1 or a positive number is needed", o.where(), group);
  std::string strategy = lower(o.text("strategy").value_or(""));
  if (strategy.empty()) strategy = group > 0 ? "group" : group == -1 ? "channel" : "tensor";
  if (strategy == "tensor") {
    args.granularity = Granularity::tensor;
  } else if (strategy == "channel") {
    args.granularity = Granularity::channel;
  } else if (strategy == "token") {
    args.granularity = Granularity::token;
  } else if (strategy == "group") {
    check(group > 0, "{}: strategy 'group' needs a group_size, not {}", o.where(), group);
    args.granularity = Granularity::group;
    args.group = group;
  } else if (strategy == "block") {
    args.granularity = Granularity::block;
    read_block(o, args);
  } else {
    fail(fmt::format("{}: strategy '{}' cannot be run; tensor, channel, group, block and token can", o.where(),
                     printable(strategy)));
  }
}

}  // namespace

void check_dense(const JsonObject& o) {
  const auto sparsity = o.object("sparsity_config");
  const std::string format = sparsity ? sparsity->text("format").value_or("dense") : "dense";
  check(format == "dense", "{}: sparse weights in '{}' cannot be read; dense ones can", o.where(), printable(format));
}

namespace {

bool neutral(const Json* v) {
  return !v || v->is_null() || (v->is_object() && v->empty()) || (v->is_array() && v->empty());
}

// What no directory may ask for.
void check_extras(const JsonObject& o) {
  check_dense(o);
  if (const auto transform = o.object("transform_config")) {
    for (const auto& [key, value] : transform->json().items()) {
      check(neutral(&value), "{}: transforms (rotations of weights and activations) cannot be run: '{}' {}",
            transform->where(), printable(key), printable_json(value));
    }
  }
}

void check_group(const QuantGroup& group, const JsonObject& o, const std::string& where) {
  check(neutral(o.find("output_activations")), "{}: quantized outputs cannot be run; quantized inputs can", where);
  check(group.weights.has_value(), "{}: activations without quantized weights ({}) cannot be run", where,
        group.inputs ? group.inputs->words() : "nothing quantized");
  if (!group.inputs) return;
  const QuantArgs& in = *group.inputs;
  check(in.bits == 8, "{}: activations of {} bits cannot be run; int8 and fp8 can", where, in.bits);
  check(in.symmetric, "{}: activations with a zero point ('symmetric': false) cannot be run; symmetric ones can",
        where);
  const bool can = in.dynamic ? in.granularity == Granularity::token || in.granularity == Granularity::tensor ||
                                    in.granularity == Granularity::group
                              : in.granularity == Granularity::tensor;
  check(can,
        "{}: {} activations quantized as {} cannot be run; static ones by tensor and dynamic ones by token, tensor "
        "or group can",
        where, in.dynamic ? "dynamic" : "static", in.words());
}

void check_weights(const QuantGroup& group, const std::string& where) {
  constexpr const char* kFormats[] = {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized"};
  bool known = false;
  for (const char* format : kFormats) known = known || group.format == format;
  check(known, "{}: format '{}' cannot be read; pack-quantized, int-quantized, float-quantized and naive-quantized can",
        where, printable(group.format));
  const QuantArgs& w = *group.weights;
  check(!w.dynamic, "{}: weights cannot be quantized dynamically", where);
  check(w.granularity != Granularity::token, "{}: weights cannot be quantized by token", where);
  const bool packed = group.format == "pack-quantized";
  check(!w.floating || (w.bits == 8 && w.symmetric && !packed),
        "{}: floats of {} bits{}{} cannot be read; symmetric ones of 8 bits (E4M3), not packed, can", where, w.bits,
        w.symmetric ? "" : " with zero points", packed ? ", packed" : "");
  check(w.floating || (w.bits >= 2 && w.bits <= 8), "{}: integers of {} bits cannot be read; of 2 to 8 bits they can",
        where, w.bits);
  check(w.floating || w.granularity != Granularity::block, "{}: integers in blocks cannot be run; floats can", where);
}

QuantGroup read_group(const JsonObject& o) {
  QuantGroup group;
  group.targets = ModuleList(o.array("targets"), o.where());
  group.format = o.text("format").value_or("");
  if (const auto weights = o.object("weights")) group.weights = read_quant_args(*weights);
  if (const auto inputs = o.object("input_activations")) group.inputs = read_quant_args(*inputs);
  check_group(group, o, o.where());
  return group;
}

}  // namespace

std::string QuantArgs::words() const {
  std::string text = floating ? bits == 8 ? "fp8" : fmt::format("fp{}", bits) : fmt::format("int{}", bits);
  switch (granularity) {
    case Granularity::tensor:
      text += " by tensor";
      break;
    case Granularity::channel:
      text += " by channel";
      break;
    case Granularity::token:
      text += " by token";
      break;
    case Granularity::group:
      text += fmt::format(" in groups of {}", group);
      break;
    case Granularity::block:
      text += fmt::format(" in blocks of {} x {}", block_rows, block_cols);
      break;
  }
  return symmetric ? text : text + " with zeros";
}

QuantArgs read_quant_args(const JsonObject& o) {
  QuantArgs args;
  const int64_t bits = o.integer("num_bits").value_or(8);
  check(bits >= 1 && bits <= 16, "{}: num_bits is {}; 1 to 16 are possible", o.where(), bits);
  args.bits = int(bits);
  const std::string type = lower(o.text("type").value_or("int"));
  check(type == "int" || type == "float", "{}: type '{}' is neither int nor float", o.where(), printable(type));
  args.floating = type == "float";
  args.symmetric = o.boolean("symmetric").value_or(true);
  if (const Json* dynamic = o.find("dynamic")) {
    check(dynamic->is_boolean(), "{}: dynamic {} cannot be run; true and false can", o.where(),
          printable_json(*dynamic));
    args.dynamic = dynamic->get<bool>();
  }
  if (const Json* order = o.find("actorder")) {
    const std::string word = order->is_string() ? lower(order->get<std::string>()) : "";
    check(order->is_boolean() || word == "group" || word == "dynamic" || word == "weight" || word == "static",
          "{}: actorder {} is not known", o.where(), printable_json(*order));
    args.order_by_group = order->is_boolean() ? order->get<bool>() : word == "group" || word == "dynamic";
  }
  read_granularity(o, args);
  return args;
}

const QuantGroup* CompressedTensorsConfig::group_of(const std::string& module) const {
  const QuantGroup* best = nullptr;
  std::optional<ModuleList::Match> closest;
  for (const QuantGroup& group : groups) {
    const auto match = group.targets.match(module);
    if (!match) continue;
    // The same target twice; which one counts would hang on the order of the file.
    check(!closest || *match < *closest || *closest < *match,
          "groups '{}' and '{}' of the configuration both target '{}', as '{}'", printable(best ? best->name : ""),
          printable(group.name), printable(module), printable(std::string(match->text), 100));
    if (closest && *closest < *match) continue;
    closest = match;
    best = &group;
  }
  return best && ignore.matches(module) ? nullptr : best;
}

CompressedTensorsConfig read_compressed_tensors_config(const JsonObject& o) {
  CompressedTensorsConfig config;
  check_extras(o);
  config.ignore = ModuleList(o.array("ignore"), o.where());
  const std::string format = o.text("format").value_or("");
  const auto groups = o.object("config_groups");
  check(groups.has_value(), "{}: 'config_groups' is missing", o.where());
  check(groups->json().size() <= kMaxGroups, "{}: {} groups; up to {} are supported", groups->where(),
        groups->json().size(), kMaxGroups);
  for (const auto& [name, value] : groups->json().items()) {
    const std::string where = fmt::format("{}, '{}'", groups->where(), printable(name));
    QuantGroup group = value.is_array() ? preset_group(name, value, where) : read_group(JsonObject(value, where));
    group.name = name;
    if (group.format.empty()) group.format = format;
    check_weights(group, where);
    config.groups.push_back(std::move(group));
  }
  if (const auto cache = o.object("kv_cache_scheme")) config.cache = read_quant_args(*cache);
  return config;
}

}  // namespace quire
