// 8-bit floats outside of compressed-tensors. Of a module: weight F8_E4M3 (O, I) and
//   fp8       weight_scale_inv (ceil(O / 128), ceil(I / 128)), which is multiplied with all the same (DeepSeek, Qwen),
//   or
//             one weight_scale (or weight_scale_inv) of the whole matrix; static activations: input_scale
//   modelopt  weight_scale, one or one a row; input_scale; k_proj.k_scale and v_proj.v_scale of the cache
// What is stored in another type was not quantized, whatever the configuration's lists say.
#include "base/error.h"
#include "base/printable.h"
#include "models/e4m3_matrix.h"

namespace quire {

namespace {

bool is_e4m3(const QuantizedSource& source, const std::string& module) {
  const SafetensorsTensor* t = source.entries.find(module + ".weight");
  return t && t->dtype == "F8_E4M3";
}

ScaleBlock read_block(const JsonObject& o) {
  const Json* size = o.array("weight_block_size");
  if (!size) return {};
  constexpr int64_t kMost = 1 << 16;
  const auto side = [&](size_t i) {
    const Json& v = (*size)[i];
    return v.is_number_unsigned() && v.get<uint64_t>() <= uint64_t(kMost) ? v.get<int64_t>() : 0;
  };
  check(size->size() == 2 && side(0) > 0 && side(1) > 0, "{}: weight_block_size {} is not two sizes from 1 to {}",
        o.where(), printable_json(*size), kMost);
  return {side(0), side(1)};
}

// How many rows share a scale of a matrix without blocks: all, or none where there is a scale a row.
ScaleBlock block_of_scale(const QuantizedSource& source, const std::string& name, TensorShape shape) {
  const SafetensorsTensor* t = source.entries.find(name);
  int64_t count = 1;
  for (const int64_t d : t ? t->shape : std::vector<int64_t>{}) count *= d;
  return {count == shape.rows ? 1 : shape.rows, shape.cols};
}

struct Fp8Directory {
  const char* method;
  ScaleBlock block;  // 0: none
  bool is_static;
};

// The number of matrices that are quantized.
int64_t add_matrices(const QuantizedSource& source, const Fp8Directory& d) {
  int64_t count = 0;
  source.for_each_matrix([&](const std::string& module, TensorShape shape) {
    if (!is_e4m3(source, module)) return;  // in floats, which the frame adds
    ++count;
    const std::string inverse = module + ".weight_scale_inv";
    const std::string scale = source.entries.has(inverse) ? inverse : module + ".weight_scale";
    const ScaleBlock block = d.block.rows > 0 ? d.block : block_of_scale(source, scale, shape);
    CheckpointTensor& t = add_e4m3_matrix(source, module, shape, scale, block);
    const int32_t group = d.block.cols > 0 && d.block.cols < shape.cols ? int32_t(d.block.cols) : 0;
    const std::string input =
        module + (source.entries.has(module + ".activation_scale") ? ".activation_scale" : ".input_scale");
    set_activation(source, t, {id<E4M3>, d.is_static ? 0 : group}, input, d.is_static);
  });
  check(count > 0, "'{}': the configuration says that weights are quantized by {}, but none is F8_E4M3", source.path(),
        d.method);
  return count;
}

std::string words(const Fp8Directory& d) {
  return fmt::format("{}, e4m3{}, {} activations", d.method,
                     d.block.rows > 0 ? fmt::format(" in blocks of {} x {}", d.block.rows, d.block.cols) : "",
                     d.is_static ? "static" : "dynamic");
}

}  // namespace

std::string add_fp8_tensors(const QuantizedSource& source) {
  const JsonObject& o = source.options;
  const std::string format = o.text("fmt").value_or("e4m3");
  check(format == "e4m3", "{}: weights in {} cannot be read; in e4m3 they can", o.where(), printable(format));
  const std::string scheme = o.text("activation_scheme").value_or("dynamic");
  check(scheme == "dynamic" || scheme == "static", "{}: activation_scheme '{}' is neither dynamic nor static",
        o.where(), printable(scheme));
  const Fp8Directory d{"fp8", read_block(o), scheme == "static"};
  add_matrices(source, d);
  add_cache_scales(source, false);
  return words(d);
}

std::string add_modelopt_tensors(const QuantizedSource& source) {
  // In hf_quant_config.json the settings are under "quantization", in config.json they are not.
  const auto inner = source.options.object("quantization");
  const JsonObject& o = inner ? *inner : source.options;
  const std::string algorithm = o.text("quant_algo").value_or("unnamed");
  check(algorithm == "FP8" || algorithm == "FP8_PER_CHANNEL_PER_TOKEN",
        "{}: ModelOpt's '{}' cannot be read; 'FP8' and 'FP8_PER_CHANNEL_PER_TOKEN' can", o.where(),
        printable(algorithm));
  const std::string cache = o.text("kv_cache_quant_algo").value_or("");
  bool fp8_cache = cache == "FP8";
  check(cache.empty() || fp8_cache, "{}: a cache in ModelOpt's '{}' cannot be run; in 'FP8' it can", o.where(),
        printable(cache));
  if (const auto scheme = o.object("kv_cache_scheme")) {  // config.json's way to say it
    const bool fp8 = scheme->text("type").value_or("") == "float" && scheme->integer("num_bits").value_or(0) == 8;
    check(fp8, "{}: this cache cannot be run; one of 8-bit floats can", scheme->where());
    fp8_cache = true;
  }
  const Fp8Directory d{"ModelOpt", {}, algorithm == "FP8"};
  add_matrices(source, d);
  add_cache_scales(source, fp8_cache);
  return words(d) + (fp8_cache ? ", cache in fp8" : "");
}

}  // namespace quire
