#include "models/e4m3_matrix.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"

namespace quire {

namespace {

// Shapes agree but for dimensions of 1.
bool same_shape(std::vector<int64_t> a, std::vector<int64_t> b) {
  std::erase(a, 1);
  std::erase(b, 1);
  return a == b;
}

int64_t spans(int64_t n, int64_t block) { return (n + block - 1) / block; }

}  // namespace

CheckpointTensor& add_e4m3_matrix(const QuantizedSource& source, const std::string& module, TensorShape shape,
                                  const std::string& scale_name, ScaleBlock block) {
  const auto codes = source.entries.take(module + ".weight", "F8_E4M3", {shape.rows, shape.cols});
  const SafetensorsTensor& scales = source.entries.take(scale_name);
  const FloatValues scale = finite_values(scales, source.path());
  const int64_t rows = block.rows > 0 ? block.rows : shape.rows, cols = block.cols > 0 ? block.cols : shape.cols;
  const int64_t down = spans(shape.rows, rows), across = spans(shape.cols, cols);
  check(same_shape(scales.shape, {down, across}),
        "'{}': tensor '{}' is {} where blocks of {} x {} of a ({}, {}) matrix need ({}, {})", source.path(),
        printable(scale_name), printable_json(scales.shape), rows, cols, shape.rows, shape.cols, down, across);
  // Groups begin on whole vectors.
  check(across == 1 || (cols % 16 == 0 && cols <= 65536),
        "'{}': '{}' has blocks of {} columns; multiples of 16 up to 65536 can be run", source.path(), printable(module),
        cols);
  const Format format{id<E4M3>, across == 1 ? 0 : int32_t(cols)};
  const auto fill = [=, data = codes.data(),
                     name =
                         fmt::format("'{}': tensor '{}.weight'", source.path(), printable(module))](const Tensor& to) {
    std::memcpy(to.data.ptr, data, size_t(to.rows * to.cols));
    for (int64_t r = 0; r < to.rows; ++r) {
      uint8_t nan = 0;
      for (int64_t c = 0; c < to.cols; ++c) nan |= uint8_t((uint8_t(data[r * to.cols + c]) & 0x7F) == 0x7F);
      check(nan == 0, "{} has a NaN in row {}", name, r);
      float* out = to.scale.row<float>(r);
      for (int64_t g = 0; g < across; ++g) out[g] = scale[r / rows * across + g];
    }
  };
  return source.builder.add_made(module + ".weight", module + ".weight", format, shape.rows, shape.cols,
                                 {codes, scales.bytes}, fill);
}

std::optional<float> take_scale(const QuantizedSource& source, const std::string& name) {
  if (!source.entries.has(name)) return std::nullopt;
  const SafetensorsTensor& t = source.entries.take(name);
  const FloatValues values(t, source.path());
  check(values.size() == 1, "'{}': tensor '{}' is {}; one scale is needed", source.path(), printable(name),
        printable_json(t.shape));
  check(std::isfinite(values[0]) && values[0] > 0.0f, "'{}': tensor '{}' is {}; a scale must be positive",
        source.path(), printable(name), values[0]);
  return values[0];
}

void set_activation(const QuantizedSource& source, CheckpointTensor& t, Format format, const std::string& scale,
                    bool is_static) {
  t.activation = format;
  const std::optional<float> value = take_scale(source, scale);
  if (!is_static) return;  // found at run time; one that is there too was for calibration
  check(value.has_value(), "'{}': tensor '{}' is missing; the activations are static", source.path(), printable(scale));
  t.input_scale = *value;
}

void add_cache_scales(const QuantizedSource& source, bool asked) {
  constexpr const char* kKeys[] = {"k_scale",      "k_proj.k_scale", "qkv_proj.k_scale", "k_proj.output_scale",
                                   "attn.k_scale", "kv_scale"};
  constexpr const char* kValues[] = {"v_scale",      "v_proj.v_scale", "qkv_proj.v_scale", "v_proj.output_scale",
                                     "attn.v_scale", "kv_scale"};
  // Queries stay floats.
  constexpr const char* kUnused[] = {"q_scale", "q_proj.q_scale", "attn.q_scale", "prob_scale", "attn.prob_scale"};
  std::vector<KvScale> scales;
  int64_t found = 0;
  for (int64_t layer = 0; layer < source.network().layers; ++layer) {
    const std::string at = fmt::format("model.layers.{}.self_attn.", layer);
    const auto first_of = [&](const auto& names, float& to) {
      for (const char* name : names) {
        const std::optional<float> value = take_scale(source, at + name);
        if (!value) continue;
        to = *value;
        ++found;
        return;
      }
    };
    KvScale scale;
    first_of(kKeys, scale.k);
    first_of(kValues, scale.v);
    for (const char* name : kUnused) take_scale(source, at + name);
    scales.push_back(scale);
  }
  check(found == 0 || found == 2 * source.network().layers,
        "'{}': {} of the {} scales that the cache of {} layers has are there", source.path(), found,
        2 * source.network().layers, source.network().layers);
  if (found > 0) source.builder.state().cache_scales = std::move(scales);
  if (!asked) return;
  Scheme scheme = parse_scheme("kvfp8");
  source.builder.state().stored_scheme = std::move(scheme);
}

}  // namespace quire
