// AWQ as AutoAWQ writes it. Version "gemm", of a module: qweight I32 (I, O / 8) and qzeros I32 (groups, O / 8), packed
// along the outputs: nibble n of word c is output 8 c + {0, 2, 4, 6, 1, 3, 5, 7}[n]; scales (groups, O) in any floats.
// Version "gemv": qweight I32 (O, I / 8), nibbles in order along the inputs; qzeros I32 (O, W), scales (O, 8 W), with
// the groups padded to whole W words. Value = scale * (code - zero). The scaling of channels is in the norms already.
#include "base/error.h"
#include "base/printable.h"
#include "models/hf_quantized.h"

namespace quire {

namespace {

constexpr int kShifts[8] = {0, 16, 4, 20, 8, 24, 12, 28};  // of output 8 c + j in word c

class AwqReader {
 public:
  explicit AwqReader(const QuantizedSource& source) : source_(source) {
    const JsonObject& o = source.options;
    const auto integer = [&](const char* key, const char* older, int64_t otherwise) {
      const auto v = o.integer(key);
      return v ? *v : o.integer(older).value_or(otherwise);
    };
    const int64_t bits = integer("bits", "w_bit", 4);
    check(bits == 4, "{}: codes of {} bits cannot be read; AWQ's are of 4", o.where(), bits);
    group_ = integer("group_size", "q_group_size", 128);
    check(group_ == -1 || (group_ > 0 && group_ <= 65536), "{}: group_size is {}; -1 or up to 65536 can be read",
          o.where(), group_);
    version_ = o.text("version").value_or("gemm");
    for (char& c : version_) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    check(version_ == "gemm" || version_ == "gemv",
          "{}: AWQ's version '{}' cannot be read; 'gemm' and 'gemv' can (AutoAWQ writes them)", o.where(),
          printable(version_));
    check(o.boolean("zero_point").value_or(true), "{}: AWQ without zero points cannot be read; with them it can",
          o.where());
  }

  void add(const std::string& module, TensorShape shape) {
    if (!source_.entries.has(module + ".qweight")) return;  // in floats, which the frame adds
    ++modules_;
    check(shape.rows % 8 == 0 && shape.cols % 8 == 0, "'{}': '{}' ({}, {}) is no multiple of 8, which AWQ needs",
          source_.path(), printable(module), shape.rows, shape.cols);
    GroupedCodes codes;
    codes.rows = shape.rows;
    codes.cols = shape.cols;
    codes.bits = 4;
    codes.group = group_ == -1 ? 0 : group_;
    if (version_ == "gemm") {
      set_gemm(module, codes);
    } else {
      set_gemv(module, codes);
    }
    add_grouped_codes(source_, module, std::move(codes));
  }

  std::string words() const {
    check(modules_ > 0, "'{}': the configuration says that weights are quantized by AWQ, but there is no '.qweight'",
          source_.path());
    return fmt::format("AWQ ({}), 4 bits, {}", version_,
                       group_ == -1 ? "one group a row" : fmt::format("groups of {}", group_));
  }

 private:
  int64_t groups_of(const GroupedCodes& c) const { return c.group > 0 ? (c.cols + c.group - 1) / c.group : 1; }

  void set_gemm(const std::string& module, GroupedCodes& c) const {
    const int64_t words = c.rows / 8, outputs = c.rows, inputs = c.cols;
    const auto qweight = source_.entries.take(module + ".qweight", "I32", {inputs, words});
    const auto qzeros = source_.entries.take(module + ".qzeros", "I32", {groups_of(c), words});
    const FloatValues scale = take_values(source_, module + ".scales", {groups_of(c), outputs});
    c.sources = {qweight, qzeros, scale.bytes()};
    c.block = 128;  // a cache line of words
    c.codes = [=, data = qweight.data()](int64_t r0, int64_t n, uint8_t* out) {
      for (int64_t k = 0; k < inputs; ++k) {
        for (int64_t i = 0; i < n; ++i) {
          const int64_t r = r0 + i;
          out[i * inputs + k] = uint8_t((load_word(data, k * words + r / 8) >> kShifts[r % 8]) & 15);
        }
      }
    };
    c.scale = [=](int64_t r, int64_t g) { return scale[g * outputs + r]; };
    c.zero = [=, data = qzeros.data()](int64_t r, int64_t g) {
      return int((load_word(data, g * words + r / 8) >> kShifts[r % 8]) & 15);
    };
  }

  void set_gemv(const std::string& module, GroupedCodes& c) const {
    // Groups a word of zeros covers, rounded up so that a warp reads whole vectors of them (AutoAWQ's width rule).
    const int64_t times = group_ >= 128 || group_ == -1 ? 1 : group_ == 64 ? 2 : 4, inputs = c.cols;
    const int64_t base = (c.cols / (c.group > 0 ? c.group : c.cols) + 7) / 8;
    const int64_t width = (base + times - 1) / times * times;
    const auto qweight = source_.entries.take(module + ".qweight", "I32", {c.rows, inputs / 8});
    const auto qzeros = source_.entries.take(module + ".qzeros", "I32", {c.rows, width});
    check(groups_of(c) <= 8 * width, "'{}': '{}' has {} inputs, no multiple of its groups of {}", source_.path(),
          printable(module), inputs, c.group);
    const FloatValues scale = take_values(source_, module + ".scales", {c.rows, 8 * width});
    c.sources = {qweight, qzeros, scale.bytes()};
    c.block = 1;
    c.codes = [=, data = qweight.data()](int64_t r0, int64_t n, uint8_t* out) {
      for (int64_t i = 0; i < n * inputs; ++i)
        out[i] = uint8_t((load_word(data, (r0 * inputs + i) / 8) >> (4 * (i % 8))) & 15);
    };
    c.scale = [=](int64_t r, int64_t g) { return scale[r * 8 * width + g]; };
    c.zero = [=, data = qzeros.data()](int64_t r, int64_t g) {
      return int((load_word(data, r * width + g / 8) >> (4 * (g % 8))) & 15);
    };
  }

  const QuantizedSource& source_;
  int64_t group_ = 128, modules_ = 0;
  std::string version_;
};

}  // namespace

std::string add_awq_tensors(const QuantizedSource& source) {
  AwqReader reader(source);
  source.for_each_matrix([&](const std::string& module, TensorShape shape) { reader.add(module, shape); });
  return reader.words();
}

}  // namespace quire
