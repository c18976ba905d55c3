// bitsandbytes, as transformers saves it. Of a module:
//   LLM.int8()   weight I8 (O, I), SCB F32 (O): the largest magnitude of a row; value = code * (SCB * (1 / 127)), each
//                product rounded to f32; theirs is (code * SCB) * (1 / 127), the same within 2^-22 of it
//   nf4, fp4     weight U8 (O I / 2, 1), or as many bytes of a float type: first code in the upper half of a byte;
//                weight.quant_map F32 (16); weight.absmax, F32 a block of 64 values (of the whole matrix, row after
//                row); or, "nested", U8 with weight.nested_quant_map F32 (256) and weight.nested_absmax F32 a block of
//                256: absmax = nested_quant_map[code] * nested_absmax + nested_offset;
//                weight.quant_state.bitsandbytes__nf4: what else is known, JSON as bytes
// Activations of LLM.int8() are int8 by token, but for elements from llm_int8_threshold up, which stay halfs; of four
// bits they stay floats.
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "models/hf_quantized.h"

namespace quire {

namespace {

constexpr size_t kMaxState = 4096;

class BitsAndBytesReader {
 public:
  explicit BitsAndBytesReader(const QuantizedSource& source) : source_(source) {
    threshold_ = source.options.number("llm_int8_threshold").value_or(6.0);
    check(threshold_ >= 0 && threshold_ <= 65504, "{}: llm_int8_threshold is {}; 0 (no outliers) to 65504 can be",
          source.options.where(), threshold_);
  }

  void add(const std::string& module, TensorShape shape) {
    if (source_.entries.has(module + ".SCB")) {
      add_int8(module, shape);
    } else if (source_.entries.has(module + ".weight.absmax")) {
      add_four_bits(module, shape);
    }  // else in floats, which the frame adds
  }

  std::string words() const {
    check(int8_ + four_bits_ > 0,
          "'{}': the configuration says that weights are quantized by bitsandbytes, but no "
          "matrix has 'SCB' or 'weight.absmax'",
          source_.path());
    std::string text = "bitsandbytes:";
    if (int8_ > 0) {
      text += fmt::format(" int8 by row, x int8 by token{}",
                          threshold_ > 0 ? fmt::format(" and halfs from {:g}", threshold_) : "");
    }
    if (four_bits_ > 0)
      text += fmt::format(" {} in blocks of {}{}", type_, block_, nested_ ? ", double quantized" : "");
    return text;
  }

 private:
  void add_int8(const std::string& module, TensorShape shape) {
    ++int8_;
    GroupedCodes codes;
    codes.rows = shape.rows;
    codes.cols = shape.cols;
    set_int8_codes(source_, module, codes);
    const auto most = source_.entries.take(module + ".SCB", "F32", {shape.rows});
    const std::string format = module + ".weight_format";
    if (source_.entries.has(format)) {
      const SafetensorsTensor& t = source_.entries.take(format);
      check(t.dtype == "U8" && t.bytes.size() == 1 && t.bytes[0] == std::byte{0},
            "'{}': '{}' lies as an old GPU's kernels want it ('weight_format' is not 0); save it anew with a newer "
            "bitsandbytes",
            source_.path(), printable(module));
    }
    codes.scale = [most = most.data()](int64_t r, int64_t) {
      return f32_from_bits(load_word(most, r)) * (1.0f / 127.0f);
    };
    codes.sources.push_back(most);
    CheckpointTensor& t = add_grouped_codes(source_, module, std::move(codes));
    t.activation = Format{id<Int8>, 0};
    t.outlier_threshold = float(threshold_);
  }

  // The quant_state of a module: type, block size and, if nested, the offset of absmax.
  struct State {
    std::string type;
    int64_t block;
    bool nested;
    float offset = 0.0f;
  };
  State read_state(const std::string& module, TensorShape shape) const {
    const std::string prefix = module + ".weight.";
    const bool nf4 = source_.entries.has(prefix + "quant_state.bitsandbytes__nf4");
    State s{nf4 ? "nf4" : "fp4", 0, source_.entries.has(prefix + "nested_absmax")};
    const SafetensorsTensor& t = source_.entries.take(prefix + "quant_state.bitsandbytes__" + s.type);
    const std::string where = fmt::format("'{}': tensor '{}'", source_.path(), printable(t.name));
    check(t.dtype == "U8" && t.bytes.size() <= kMaxState, "{} is {} of {} bytes; U8 of up to {} is needed", where,
          t.dtype, t.bytes.size(), kMaxState);
    const Json json = parse_json({reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()}, where);
    const JsonObject o(json, where);
    check(o.text("quant_type").value_or(s.type) == s.type, "{}: quant_type is not '{}'", where, s.type);
    s.block = o.needed_integer("blocksize");
    check(s.block >= 16 && s.block <= 65536 && s.block % 16 == 0,
          "{}: blocks of {} values cannot be run; multiples of 16 up to 65536 can", where, s.block);
    const Json* dims = o.array("shape");
    check(dims && *dims == Json({shape.rows, shape.cols}), "{}: the shape is not the ({}, {}) of the network", where,
          shape.rows, shape.cols);
    // Blocks run on over the ends of rows: then a row has no groups of its own.
    check(shape.cols % s.block == 0, "{}: rows of {} values are no whole blocks of {}, which cannot be run", where,
          shape.cols, s.block);
    if (!s.nested) return s;
    check(o.needed_integer("nested_blocksize") == 256, "{}: nested blocks must be of 256", where);
    s.offset = float(o.number("nested_offset").value_or(NAN));
    check(std::isfinite(s.offset), "{}: 'nested_offset' is missing or not finite", where);
    return s;
  }

  std::span<const std::byte> take_floats(const std::string& name, int64_t count) const {
    return take_finite(source_, name, "F32", {count});
  }

  // Two codes a byte; bnb_4bit_quant_storage calls the same bytes floats.
  std::span<const std::byte> take_codes(const std::string& name, int64_t bytes) const {
    const SafetensorsTensor& t = source_.entries.take(name);
    const int64_t size = t.dtype == "F32" ? 4 : t.dtype == "F16" || t.dtype == "BF16" ? 2 : 1;
    const bool known = size > 1 || t.dtype == "U8" || t.dtype == "I8";
    check(
        known && bytes % size == 0 && t.shape == (std::vector<int64_t>{bytes / size, 1}),
        "'{}': tensor '{}' is {} {} where {} bytes of codes are needed, as U8 ({}, 1) or the same in BF16, F16 or F32",
        source_.path(), printable(name), t.dtype, printable_json(t.shape), bytes, bytes);
    return t.bytes;
  }

  void add_four_bits(const std::string& module, TensorShape shape) {
    const State s = read_state(module, shape);
    const std::string prefix = module + ".weight.";
    const int64_t values = shape.rows * shape.cols, blocks = values / s.block, nested = (blocks + 255) / 256;
    const auto codes = take_codes(module + ".weight", values / 2);
    const auto table = take_floats(prefix + "quant_map", 16);
    std::vector<std::span<const std::byte>> sources = {codes, table};
    std::function<float(int64_t)> scale;
    if (s.nested) {
      const auto absmax = source_.entries.take(prefix + "absmax", "U8", {blocks});
      const auto map = take_floats(prefix + "nested_quant_map", 256),
                 most = take_floats(prefix + "nested_absmax", nested);
      sources.insert(sources.end(), {absmax, map, most});
      scale = [=, offset = s.offset](int64_t block) {
        const float entry = f32_from_bits(load_word(map.data(), int64_t(absmax[size_t(block)])));
        const float product = entry * f32_from_bits(load_word(most.data(), block / 256));  // rounded, as there
        return product + offset;
      };
    } else {
      const auto absmax = take_floats(prefix + "absmax", blocks);
      sources.push_back(absmax);
      scale = [=](int64_t block) { return f32_from_bits(load_word(absmax.data(), block)); };
    }
    for (int64_t i = 0; i < blocks; ++i) {
      check(std::isfinite(scale(i)), "'{}': '{}' has a scale that is not finite in block {}", source_.path(),
            printable(module), i);
    }
    const auto fill = [=](const Tensor& to) {
      std::memcpy(to.table.ptr, table.data(), 64);
      for (int64_t i = 0; i < values / 2; ++i) {  // here the first code is in the lower half
        const auto b = uint8_t(codes[size_t(i)]);
        to.data.ptr[i] = std::byte(uint8_t(b << 4 | b >> 4));
      }
      for (int64_t i = 0; i < blocks; ++i) reinterpret_cast<float*>(to.scale.ptr)[i] = scale(i);
    };
    const Format format{id<Lut4>, shape.cols == s.block ? 0 : int32_t(s.block)};
    source_.builder.add_made(module + ".weight", module + ".weight", format, shape.rows, shape.cols, std::move(sources),
                             fill);
    ++four_bits_;
    type_ = s.type;
    block_ = s.block;
    nested_ = s.nested;
  }

  const QuantizedSource& source_;
  int64_t int8_ = 0, four_bits_ = 0, block_ = 0;
  std::string type_;
  bool nested_ = false;
  double threshold_;
};

}  // namespace

std::string add_bitsandbytes_tensors(const QuantizedSource& source) {
  BitsAndBytesReader reader(source);
  source.for_each_matrix([&](const std::string& module, TensorShape shape) { reader.add(module, shape); });
  return reader.words();
}

}  // namespace quire
