// QServe / QoQ as OmniServe writes it (pickles of torch: tools/convert_torch.py makes safetensors of them). Of a module
// (O, I), both multiples of 32: qweight I8 (O, I / 2), in tiles of 32 outputs by 32 inputs, 512 bytes each, tiles of
// one row of tiles in order: output 16 a + 8 b + l and input 16 d + 4 e + f of a tile lie in byte 64 l + 16 e + 8 d + 4
// b + f, a = 0 in the low nibble.
//   per channel: s1_scales, s1_szeros (O), floats:   value = s1 * code - szero
//   per group:   s1_scales (O), s2_scales, s2_zeros I8 (I / 128, O):   value = s1 * int8(code * s2 + s2_zero)
// In s2_* the outputs of each 32 are in the order a kernel reads them: 0, 8, 16, 24, 1, 9, ... OmniServe ("omniserve");
// or 0, 8, 1, 9, ..., 7, 15, 16, 24, ... DeepCompressor's converter ("deepcompressor"). "s2_order" of a
// quantization_config says which; OmniServe's is checked against the range that QoQ gives every output. W8A8: weight I8
// (O, I), dequant_scale (O).
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "models/hf_quantized.h"

namespace quire {

namespace {

constexpr int64_t kTile = 32;
constexpr Format kActivation{id<Int8>, 0};  // W4A8: one scale a token

int code_at(const std::byte* qweight, int64_t inputs, int64_t r, int64_t k) {
  const int64_t i = r % kTile, j = k % kTile;
  const int64_t tile = (r / kTile * (inputs / kTile) + k / kTile) * 512;
  const int64_t at = i % 8 * 64 + j / 4 % 4 * 16 + j / 16 * 8 + i / 8 % 2 * 4 + j % 4;
  const int byte = int(qweight[tile + at]);
  return i < 16 ? byte & 15 : byte >> 4;
}

// Where output r of 32 lies.
using Order = std::array<uint8_t, kTile>;
Order omniserve_order() {
  Order order;
  for (int r = 0; r < kTile; ++r) order[size_t(r)] = uint8_t(r % 8 * 4 + r / 8);
  return order;
}
Order deepcompressor_order() {
  Order order;
  for (int r = 0; r < kTile; ++r) order[size_t(r)] = uint8_t(r / 16 * 16 + r % 8 * 2 + r % 16 / 8);
  return order;
}

struct Second {
  int scale, offset;
};

// The matrix of a module with groups.
struct Grouped {
  int64_t outputs, inputs, group;
  const std::byte *qweight, *s2, *b;
  Order order;

  Second second(int64_t r, int64_t g) const {
    const int64_t at = g * outputs + r / kTile * kTile + order[size_t(r % kTile)];
    return {int(s2[at]), int(int8_t(b[at]))};
  }
  // Smallest and largest integer of an output's group.
  std::pair<int, int> range(int64_t r, int64_t g) const {
    const Second s = second(r, g);
    int lo = INT32_MAX, hi = INT32_MIN;
    for (int64_t k = g * group; k < (g + 1) * group; ++k) {
      const int v = code_at(qweight, inputs, r, k) * s.scale + s.offset;
      lo = std::min(lo, v);
      hi = std::max(hi, v);
    }
    return {lo, hi};
  }
  // Outputs of the first tiles that span what QoQ's first level makes every output span: the largest is +-119, off by
  // half a step of the second level (at most 16) when it was rounded, and within int8.
  int64_t plausible() const {
    int64_t count = 0;
    for (int64_t r = 0; r < std::min<int64_t>(outputs, 4 * kTile); ++r) {
      int most = 0;
      for (int64_t g = 0; g < inputs / group; ++g) {
        const auto [lo, hi] = range(r, g);
        most = std::max({most, hi, -lo});
      }
      count += most >= 119 - 8 && most <= 127;
    }
    return count;
  }
};

class QserveReader {
 public:
  explicit QserveReader(const QuantizedSource& source) : source_(source) {
    order_name_ = source.options.text("s2_order").value_or("omniserve");
    check(order_name_ == "omniserve" || order_name_ == "deepcompressor",
          "{}: s2_order '{}' is not known; 'omniserve' and 'deepcompressor' are", source.options.where(),
          printable(order_name_));
  }

  void add(const std::string& module, TensorShape shape) {
    if (source_.entries.has(module + ".dequant_scale")) return add_bytes(module, shape);
    if (!source_.entries.has(module + ".qweight")) return;  // in floats, which the frame adds
    ++modules_;
    check(shape.rows % kTile == 0 && shape.cols % kTile == 0,
          "'{}': '{}' ({}, {}) is no multiple of 32 each way, which QServe's tiles need", source_.path(),
          printable(module), shape.rows, shape.cols);
    const auto qweight = source_.entries.take(module + ".qweight", "I8", {shape.rows, shape.cols / 2});
    const FloatValues s1 = take_finite_values(source_, module + ".s1_scales", {shape.rows});
    if (source_.entries.has(module + ".s1_szeros")) {
      add_channels(module, shape, qweight, s1);
    } else {
      add_groups(module, shape, qweight, s1);
    }
  }

  std::string words() const {
    check(modules_ > 0, "'{}': the configuration says that weights are quantized by QServe, but there is no '.qweight'",
          source_.path());
    if (group_ < 0) return "QServe (W8A8), one scale a row";
    return group_ == 0 ? "QServe (QoQ), 4 bits, one scale a row"
                       : fmt::format("QServe (QoQ), 4 bits, groups of {}", group_);
  }

 private:
  using Bytes = std::span<const std::byte>;

  // The format keeps them as f16, whatever the file does.
  void check_halves(const std::string& name, const FloatValues& values) const {
    for (int64_t i = 0; i < values.size(); ++i)
      check(f16_to_f32(f32_to_f16(values[i])) == values[i],
            "'{}': tensor '{}' has {} at {}, which f16 cannot hold; scales by channel are kept in it", source_.path(),
            printable(name), values[i], i);
  }

  static void put_codes(const Tensor& to, const std::byte* qweight) {
    for (int64_t r = 0; r < to.rows; ++r) {
      auto* out = to.data.row<uint8_t>(r);
      for (int64_t k = 0; k < to.cols; k += 2)
        out[k / 2] = uint8_t(code_at(qweight, to.cols, r, k) | code_at(qweight, to.cols, r, k + 1) << 4);
    }
  }
  CheckpointTensor& put(const std::string& module, Format format, TensorShape shape, std::vector<Bytes> sources,
                        std::function<void(const Tensor&)> fill) {
    const std::string name = module + ".weight";
    CheckpointTensor& t =
        source_.builder.add_made(name, name, format, shape.rows, shape.cols, std::move(sources), std::move(fill));
    t.activation = kActivation;
    return t;
  }

  void add_channels(const std::string& module, TensorShape shape, Bytes qweight, const FloatValues& s1) {
    const FloatValues szeros = take_finite_values(source_, module + ".s1_szeros", {shape.rows});
    check_halves(module + ".s1_scales", s1);
    check_halves(module + ".s1_szeros", szeros);
    put(module, {id<UInt4O>, 0}, shape, {qweight, s1.bytes(), szeros.bytes()}, [=](const Tensor& to) {
      put_codes(to, qweight.data());
      for (int64_t r = 0; r < to.rows; ++r) {
        auto* meta = to.scale.row<uint16_t>(r);
        meta[0] = f32_to_f16(s1[r]);
        meta[1] = f32_to_f16(szeros[r]) ^ 0x8000;  // added here, subtracted there
      }
    });
  }

  void add_groups(const std::string& module, TensorShape shape, Bytes qweight, const FloatValues& s1) {
    const SafetensorsTensor* s2 = source_.entries.find(module + ".s2_scales");
    check(s2 && s2->shape.size() == 2 && s2->shape[0] > 0 && shape.cols % s2->shape[0] == 0,
          "'{}': '{}' has neither s1_szeros (per channel) nor s2_scales of groups that divide {} inputs",
          source_.path(), printable(module), shape.cols);
    const int64_t groups = s2->shape[0];
    Grouped m{shape.rows, shape.cols, shape.cols / groups, qweight.data(), nullptr, nullptr, {}};
    check(m.group % 16 == 0 && m.group <= 65536, "'{}': '{}' has groups of {}; multiples of 16 can be run",
          source_.path(), printable(module), m.group);
    m.s2 = source_.entries.take(module + ".s2_scales", "I8", {groups, shape.rows}).data();
    m.b = source_.entries.take(module + ".s2_zeros", "I8", {groups, shape.rows}).data();
    const bool deep = order_name_ == "deepcompressor";
    m.order = deep ? deepcompressor_order() : omniserve_order();
    if (group_ == 0 || group_ != m.group) check_order(module, m, deep);
    group_ = m.group;
    check_range(module, m);
    const size_t meta = size_t(groups * shape.rows);
    put(module, {id<TwoLevel4>, int32_t(m.group)}, shape, {qweight, s1.bytes(), {m.s2, meta}, {m.b, meta}},
        [=](const Tensor& to) {
          put_codes(to, m.qweight);
          for (int64_t r = 0; r < to.rows; ++r) {
            *to.scale.row<float>(r) = s1[r];
            for (int64_t g = 0; g < to.groups(); ++g) {
              const Second s = m.second(r, g);
              to.aux.row<uint8_t>(r)[2 * g] = uint8_t(s.scale);
              to.aux.row<uint8_t>(r)[2 * g + 1] = uint8_t(s.offset);
            }
          }
        });
  }

  // A file in the other order is read without an error and means nothing: it is told by the integers it gives.
  void check_order(const std::string& module, const Grouped& m, bool deep) const {
    Grouped other = m;
    other.order = deep ? omniserve_order() : deepcompressor_order();
    check(m.plausible() >= other.plausible(),
          "'{}': '{}' does not span QoQ's range with second scales in the order of '{}', but does in that of '{}': a "
          "quantization_config {{\"quant_method\": \"qserve\", \"s2_order\": \"{}\"}} in config.json reads it so",
          source_.path(), printable(module), order_name_, deep ? "omniserve" : "deepcompressor",
          deep ? "omniserve" : "deepcompressor");
  }

  void check_range(const std::string& module, const Grouped& m) const {
    for (int64_t r = 0; r < m.outputs; ++r) {
      for (int64_t g = 0; g < m.inputs / m.group; ++g) {
        const Second s = m.second(r, g);
        check(s.scale <= 127, "'{}': '{}' has a second scale of {} at output {}, group {}; 0 to 127 can be",
              source_.path(), printable(module), s.scale - 256, r, g);
        if (15 * s.scale + s.offset <= 127) continue;  // whatever the codes
        const auto [lo, hi] = m.range(r, g);
        check(hi <= 127, "'{}': '{}' leaves int8 ({}) at output {}, group {}: is its s2_order right?", source_.path(),
              printable(module), hi, r, g);
      }
    }
  }

  void add_bytes(const std::string& module, TensorShape shape) {
    ++modules_;
    if (group_ == 0) group_ = -1;
    GroupedCodes codes;
    codes.rows = shape.rows;
    codes.cols = shape.cols;
    set_int8_codes(source_, module, codes);
    const SafetensorsTensor& t = source_.entries.take(module + ".dequant_scale");
    const FloatValues scale(t, source_.path());
    check(scale.size() == shape.rows, "'{}': tensor '{}' has {} scales for {} outputs", source_.path(),
          printable(t.name), scale.size(), shape.rows);
    codes.scale = [=](int64_t r, int64_t) { return scale[r]; };
    codes.sources.push_back(t.bytes);
    add_grouped_codes(source_, module, std::move(codes)).activation = kActivation;
  }

  const QuantizedSource& source_;
  std::string order_name_;
  int64_t modules_ = 0, group_ = 0;
};

}  // namespace

bool has_qserve_tensors(const Entries& entries) {
  bool found = false;
  entries.for_each_left([&](const SafetensorsTensor& t) {
    found = found || t.name.ends_with(".s1_scales") || t.name.ends_with(".dequant_scale");
  });
  return found;
}

std::string add_qserve_tensors(const QuantizedSource& source) {
  QserveReader reader(source);
  source.for_each_matrix([&](const std::string& module, TensorShape shape) { reader.add(module, shape); });
  return reader.words();
}

}  // namespace quire
