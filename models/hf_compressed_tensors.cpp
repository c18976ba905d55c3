// compressed-tensors, as llm-compressor writes it. Of a module, by its group's format:
//   pack-quantized   weight_packed I32 (O, words): code + 2^(bits - 1) as a stream of bits, lowest first (older writers
//                    leave the rest of a word that holds no whole code empty); weight_scale (O, groups); weight_shape;
//                    weight_zero_point I32, packed along the outputs; weight_g_idx I32 (I), the group of each column
//   int-quantized    weight I8 (O, I), also of fewer bits; weight_scale (O, groups), (O, 1) or (1); weight_zero_point
//   I8 float-quantized  weight F8_E4M3 (O, I); weight_scale of the matrix, its rows or blocks naive-quantized  the last
//   two, as the type says
// beside them input_scale where activations are static, and self_attn.k_scale and v_scale of a static cache.
// value = scale * (code - zero).
#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/printable.h"
#include "models/e4m3_matrix.h"
#include "models/quant_args.h"

namespace quire {

namespace {

// An integer that may lie in any of the types writers use for shapes.
int64_t integer_at(const SafetensorsTensor& t, int64_t i, const std::string& path) {
  check(t.dtype == "I64" || t.dtype == "I32", "'{}': tensor '{}' is in {}; I64 or I32 is needed", path,
        printable(t.name), t.dtype);
  if (t.dtype == "I32") return int32_t(load_word(t.bytes.data(), i));
  return int64_t(uint64_t(load_word(t.bytes.data(), 2 * i)) | uint64_t(load_word(t.bytes.data(), 2 * i + 1)) << 32);
}

class CompressedTensorsReader {
 public:
  explicit CompressedTensorsReader(const QuantizedSource& source)
      : source_(source), config_(read_compressed_tensors_config(source.options)) {
    if (!config_.cache) return;
    const QuantArgs& c = *config_.cache;
    check(c.floating && c.bits == 8 && c.symmetric && !c.dynamic && c.granularity == Granularity::tensor,
          "{}, 'kv_cache_scheme': a {} cache in {} cannot be run; a static one in fp8 by tensor can",
          source.options.where(), c.dynamic ? "dynamic" : "static", c.words());
  }

  void add(const std::string& module, TensorShape shape) {
    const QuantGroup* group = config_.group_of(module);
    if (!group) return;  // in floats, which the frame adds
    const char* codes = packed(*group) ? "weight_packed" : "weight";
    check(source_.entries.has(fmt::format("{}.{}", module, codes)),
          "'{}': '{}' should be quantized by the configuration's '{}', but there is no '{}'", source_.path(),
          printable(module), printable(group->name), codes);
    ++modules_;
    CheckpointTensor& t =
        group->weights->floating ? add_floats(module, shape, *group) : add_integers(module, shape, *group);
    if (group->inputs) add_inputs(module, *group->inputs, t);
  }

  std::string words() const {
    check(modules_ > 0 || config_.cache,
          "'{}': the configuration says that weights are quantized by compressed-tensors, but no group has a matrix",
          source_.path());
    std::string text = "compressed-tensors";
    for (const QuantGroup& g : config_.groups) {
      text += fmt::format("{} {} {}{}", &g == &config_.groups[0] ? ":" : ";", printable(g.format, 20),
                          g.weights->words(), moved_.count(&g) > 0 ? ", act-order" : "");
      if (g.inputs)
        text += fmt::format(", {} activations {}", g.inputs->dynamic ? "dynamic" : "static", g.inputs->words());
    }
    return text + (config_.cache ? ", cache in fp8" : "");
  }
  bool fp8_cache() const { return config_.cache.has_value(); }

 private:
  static bool packed(const QuantGroup& g) { return g.format == "pack-quantized"; }

  CheckpointTensor& add_floats(const std::string& module, TensorShape shape, const QuantGroup& group) {
    const QuantArgs& w = *group.weights;
    ScaleBlock block;
    if (w.granularity == Granularity::channel) block = {1, shape.cols};
    if (w.granularity == Granularity::group) block = {1, w.group};
    if (w.granularity == Granularity::block) block = {w.block_rows, w.block_cols};
    return add_e4m3_matrix(source_, module, shape, module + ".weight_scale", block);
  }

  CheckpointTensor& add_integers(const std::string& module, TensorShape shape, const QuantGroup& group) {
    const QuantArgs& w = *group.weights;
    GroupedCodes codes;
    codes.rows = shape.rows;
    codes.cols = shape.cols;
    codes.bits = packed(group) && w.bits <= 4 ? w.bits : 8;  // others lie in bytes, there or here
    codes.group = w.granularity == Granularity::group && w.group < shape.cols ? w.group : 0;
    const int64_t groups = codes.group > 0 ? (shape.cols + codes.group - 1) / codes.group : 1;
    set_scales(module, codes, groups, w.granularity == Granularity::tensor);
    if (packed(group)) {
      set_packed(module, codes, groups, w);
    } else {
      set_bytes(module, codes, groups, w);
    }
    std::shared_ptr<const InputTransform> order;
    const bool listed = has_group_order(module);
    check(listed || source_.entries.has(module + ".weight_g_idx") || !w.order_by_group || codes.group == 0,
          "'{}': tensor '{}.weight_g_idx' is missing; by 'actorder' it says which group each column is of",
          source_.path(), printable(module));
    if (listed) {
      check(codes.group > 0, "'{}': '{}' has 'weight_g_idx' without groups", source_.path(), printable(module));
      order = group_order(source_, module + ".weight_g_idx", shape.cols, codes.group, last_order_);
      if (order) moved_.insert(&group);
    }
    return add_grouped_codes(source_, module, std::move(codes), std::move(order));
  }

  // Of -1 throughout it is the place for an order that was never put there.
  bool has_group_order(const std::string& module) const {
    const std::string name = module + ".weight_g_idx";
    const SafetensorsTensor* t = source_.entries.find(name);
    if (!t) return false;
    const bool none = t->dtype == "I32" &&
                      std::all_of(t->bytes.begin(), t->bytes.end(), [](std::byte b) { return b == std::byte{0xFF}; });
    if (none) source_.entries.take(name);
    return !none;
  }

  void set_scales(const std::string& module, GroupedCodes& c, int64_t groups, bool by_tensor) const {
    const SafetensorsTensor& t = source_.entries.take(module + ".weight_scale");
    const FloatValues scale(t, source_.path());
    const int64_t rows = by_tensor ? 1 : c.rows;
    check(scale.size() == rows * groups && (t.shape.empty() || t.shape[0] == rows),
          "'{}': tensor '{}' is {} where ({}, {}) is needed", source_.path(), printable(t.name),
          printable_json(t.shape), rows, groups);
    c.scale = [=](int64_t r, int64_t g) { return scale[by_tensor ? 0 : r * groups + g]; };
    c.sources.push_back(t.bytes);
  }

  void set_packed(const std::string& module, GroupedCodes& c, int64_t groups, const QuantArgs& w) const {
    const int bits = w.bits, per_word = 32 / bits;
    const int64_t cols = c.cols, dense = (cols * bits + 31) / 32, loose = (cols + per_word - 1) / per_word;
    const SafetensorsTensor& t = source_.entries.take(module + ".weight_packed");
    check(
        t.dtype == "I32" && t.shape.size() == 2 && t.shape[0] == c.rows && (t.shape[1] == dense || t.shape[1] == loose),
        "'{}': tensor '{}' is {} {} where {} codes of {} bits a row need I32 ({}, {})", source_.path(),
        printable(t.name), t.dtype, printable_json(t.shape), cols, bits, c.rows, dense);
    const SafetensorsTensor& shape = source_.entries.take(module + ".weight_shape");
    check(shape.shape == std::vector<int64_t>{2} && integer_at(shape, 0, source_.path()) == c.rows &&
              integer_at(shape, 1, source_.path()) == cols,
          "'{}': tensor '{}' is not the ({}, {}) of the network", source_.path(), printable(shape.name), c.rows, cols);
    const int64_t words = t.shape[1];
    const bool is_loose = words != dense;
    const auto code = [=](const std::byte* row, int64_t stride, int64_t i) {  // words `stride` apart
      const auto word = [&](int64_t at) { return load_word(row, at * stride); };
      if (is_loose) return int(word(i / per_word) >> (i % per_word * bits) & ((1u << bits) - 1));
      return stream_code(i, bits, word);
    };
    const int lift = c.bits == 8 ? 128 - (1 << (bits - 1)) : 0;  // 5 to 7 bits: the middle of a byte
    c.codes = [=, data = t.bytes.data()](int64_t r0, int64_t n, uint8_t* out) {
      for (int64_t i = 0; i < n; ++i) {
        const std::byte* row = data + (r0 + i) * words * 4;
        for (int64_t k = 0; k < cols; ++k) out[i * cols + k] = uint8_t(code(row, 1, k) + lift);
      }
    };
    c.sources.push_back(t.bytes);
    if (w.symmetric) {
      c.zero = [middle = 1 << (c.bits - 1)](int64_t, int64_t) { return middle; };
      take_unused_zeros(module);
      return;
    }
    check(w.granularity != Granularity::tensor, "'{}': '{}' has packed zeros by tensor, which cannot be read",
          source_.path(), printable(module));
    const int64_t zero_words = is_loose ? (c.rows + per_word - 1) / per_word : (c.rows * bits + 31) / 32;
    const auto zeros = source_.entries.take(module + ".weight_zero_point", "I32", {zero_words, groups});
    c.zero = [=, data = zeros.data()](int64_t r, int64_t g) { return code(data + 4 * g, groups, r) + lift; };
    c.sources.push_back(zeros);
  }

  void set_bytes(const std::string& module, GroupedCodes& c, int64_t groups, const QuantArgs& w) const {
    set_int8_codes(source_, module, c);
    if (w.symmetric) return take_unused_zeros(module);
    const SafetensorsTensor& zeros = source_.entries.take(module + ".weight_zero_point");
    const int64_t rows = w.granularity == Granularity::tensor ? 1 : c.rows;
    check(zeros.dtype == "I8" && int64_t(zeros.bytes.size()) == rows * groups,
          "'{}': tensor '{}' is {} {} where I8 ({}, {}) is needed", source_.path(), printable(zeros.name), zeros.dtype,
          printable_json(zeros.shape), rows, groups);
    c.zero = [=, data = zeros.bytes.data()](int64_t r, int64_t g) {
      return 128 + int(int8_t(data[rows == 1 ? 0 : r * groups + g]));
    };
    c.sources.push_back(zeros.bytes);
  }

  // Zeros beside symmetric codes say nothing, and must say that.
  void take_unused_zeros(const std::string& module) const {
    const std::string name = module + ".weight_zero_point";
    if (source_.entries.has(name)) check_zero(source_.entries.take(name));
  }
  void check_zero(const SafetensorsTensor& t) const {
    for (const std::byte b : t.bytes) {
      check(b == std::byte{0}, "'{}': tensor '{}' is not zero, but the configuration says that it is symmetric",
            source_.path(), printable(t.name));
    }
  }

  void add_inputs(const std::string& module, const QuantArgs& in, CheckpointTensor& t) const {
    const std::string zeros = module + ".input_zero_point";
    if (source_.entries.has(zeros)) check_zero(source_.entries.take(zeros));
    const int32_t group = in.granularity == Granularity::group && in.group < t.tensor.cols ? int32_t(in.group) : 0;
    check(group % 16 == 0 && group <= 65536,
          "'{}': '{}' has activations in groups of {}; multiples of 16 up to 65536 can be run", source_.path(),
          printable(module), group);
    const Codec codec = in.floating ? id<E4M3> : id<Int8>;
    set_activation(source_, t, {codec, group}, module + ".input_scale", !in.dynamic);
  }

  const QuantizedSource& source_;
  CompressedTensorsConfig config_;
  int64_t modules_ = 0;
  std::shared_ptr<const InputTransform> last_order_;
  std::set<const QuantGroup*> moved_;  // columns of theirs are in another order
};

}  // namespace

std::string add_compressed_tensors(const QuantizedSource& source) {
  CompressedTensorsReader reader(source);
  source.for_each_matrix([&](const std::string& module, TensorShape shape) { reader.add(module, shape); });
  add_cache_scales(source, reader.fp8_cache());
  return reader.words();
}

}  // namespace quire
