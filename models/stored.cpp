#include "models/stored.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "models/entries.h"
#include "models/network_tensors.h"

namespace quire {

namespace {

constexpr int64_t kFormatVersion = 1;

Format read_format(const JsonObject& o, const char* key) {
  const auto text = o.text(key);
  check(text.has_value(), "{}: '{}' is missing", o.where(), key);
  check(text->size() <= 64, "{}: '{}' is no format", o.where(), key);
  try {
    const Format format = parse_format(*text);
    check(info(format.codec).encode, "{} is only read from other writers' files", *text);
    // Groups begin on whole bytes, and the segments of integer products on whole vectors.
    check(format.group % 16 == 0 && format.group <= 65536, "groups of {} are not a multiple of 16 up to 65536",
          format.group);
    return format;
  } catch (const Error& e) {
    fail(fmt::format("{}: '{}': {}", o.where(), key, printable(e.what(), 400)));
  }
}

KvScheme read_kv(const JsonObject& o) {
  try {
    return parse_kv(o.text("kv").value_or("kvf16"));
  } catch (const Error& e) {
    fail(fmt::format("{}: {}", o.where(), printable(e.what(), 400)));
  }
}

bool is_plain(Codec codec) { return codec == id<F32> || codec == id<F16> || codec == id<BF16>; }

const char* data_type(Codec codec) {
  if (codec == id<F32>) return "F32";
  if (codec == id<F16>) return "F16";
  if (codec == id<BF16>) return "BF16";
  if (codec == id<Int8>) return "I8";
  if (codec == id<E4M3>) return "F8_E4M3";
  return "U8";
}

// What encoding never makes and arithmetic relies on: finite scales, and codes that fit in a byte.
void check_scales(const Tensor& t, const std::string& name, const std::string& path) {
  const CodecInfo& codec = info(t.codec);
  const RowBytes bytes = codec.row_bytes(t.cols, t.groups());
  const bool halves = codec.half_scales;
  for (int64_t r = 0; r < t.rows && bytes.scale > 0; ++r) {
    bool finite = true;
    if (halves) {
      const auto* scale = t.scale.row<const uint16_t>(r);
      for (int64_t i = 0; i < bytes.scale / 2; ++i) finite = finite && (scale[i] & 0x7C00) != 0x7C00;
    } else {
      const auto* scale = t.scale.row<const float>(r);
      for (int64_t i = 0; i < bytes.scale / 4; ++i) finite = finite && std::isfinite(scale[i]);
    }
    check(finite, "'{}': tensor '{}' has a scale that is not finite in row {}", path, printable(name), r);
  }
  if (bytes.aux == 0) return;
  const bool two_levels = t.codec == id<TwoLevel4>;
  const int most = (1 << codec.bits) - 1;
  for (int64_t r = 0; r < t.rows; ++r) {
    const auto* aux = t.aux.row<const uint8_t>(r);
    bool in_range = true;
    for (int64_t g = 0; g < t.groups(); ++g) {
      in_range = in_range && (two_levels ? 15 * aux[2 * g] + int8_t(aux[2 * g + 1]) <= 127 : aux[g] <= most);
    }
    check(in_range, "'{}': tensor '{}' has a zero or a second scale out of range in row {}", path, printable(name), r);
  }
}

}  // namespace

nlohmann::ordered_json stored_scheme_json(const Scheme& scheme) {
  return {{"quant_method", kStoredMethod},
          {"format_version", kFormatVersion},
          {"scheme", scheme.name},
          {"weight_format", to_string(scheme.weight)},
          {"embedding_format", to_string(scheme.embedding)},
          {"activation_format", to_string(scheme.activation)},
          {"kv", scheme.kv.name}};
}

std::optional<Scheme> read_stored_scheme(const JsonObject& config) {
  const auto o = config.object("quantization_config");
  if (!o || o->text("quant_method").value_or("") != kStoredMethod) return std::nullopt;
  const int64_t version = o->needed_integer("format_version");
  check(version == kFormatVersion, "{}: format_version {} cannot be read; {} can (was it written by a newer Quire?)",
        o->where(), version, kFormatVersion);
  Scheme scheme;
  scheme.name = o->text("scheme").value_or("");
  check(!scheme.name.empty() && scheme.name.size() <= 64 &&
            scheme.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string::npos,
        "{}: 'scheme' must be a word such as w4a8, not '{}'", o->where(), printable(scheme.name));
  scheme.native = scheme.native_activation = false;
  scheme.weight = read_format(*o, "weight_format");
  scheme.embedding = read_format(*o, "embedding_format");
  scheme.activation = read_format(*o, "activation_format");
  check(scheme.activation == (Format{id<F32>, 0}) || scheme.activation.codec == id<Int8>,
        "{}: activations in {} are not supported; f32 and int8 are", o->where(), to_string(scheme.activation));
  scheme.kv = read_kv(*o);
  return scheme;
}

Format stored_format(const Scheme& scheme, const std::string& name, bool vector) {
  if (vector) return {id<F32>, 0};
  const bool embedding = name == "model.embed_tokens.weight" || name == "lm_head.weight";
  return embedding ? scheme.embedding : scheme.weight;
}

std::vector<StoredPlane> stored_planes(Format format, int64_t rows, int64_t cols) {
  const CodecInfo& codec = info(format.codec);
  const int64_t groups = format.group > 0 ? (cols + format.group - 1) / format.group : 1;
  const RowBytes bytes = codec.row_bytes(cols, groups);
  std::vector<StoredPlane> planes;
  const auto add = [&](Plane Tensor::*plane, const char* suffix, const char* dtype, int64_t count, int64_t row_bytes,
                       int64_t value_bytes) {
    if (row_bytes == 0) return;
    std::vector<int64_t> shape = {count, row_bytes / value_bytes};
    if (count == 1 && is_plain(format.codec)) shape = {cols};  // a vector
    planes.push_back({plane, suffix, dtype, std::move(shape), row_bytes, count, value_bytes});
  };
  const bool halves = codec.half_scales;
  const int64_t data_bytes = format.codec == id<F32> ? 4 : is_plain(format.codec) ? 2 : 1;
  add(&Tensor::data, "", data_type(format.codec), rows, bytes.data, data_bytes);
  add(&Tensor::high, "_high", "U8", rows, bytes.high, 1);
  add(&Tensor::scale, "_scale", halves ? "F16" : "F32", (rows + codec.span - 1) / codec.span, bytes.scale,
      halves ? 2 : 4);
  add(&Tensor::aux, "_aux", "U8", rows, bytes.aux, 1);
  add(&Tensor::table, "_table", "F32", codec.table_shared ? 1 : cols, codec.table_bytes, 4);
  return planes;
}

void add_stored_tensors(CheckpointBuilder& builder, const Scheme& scheme, std::span<const SafetensorsFile> files) {
  const ModelConfig& config = builder.state().config;
  Entries entries(files, builder.path());
  std::vector<std::string> names;
  for (const SafetensorsFile& file : files) {
    for (const SafetensorsTensor& t : file.tensors()) {
      if (network_tensor(config, t.name)) names.push_back(t.name);
    }
  }
  for (const std::string& name : names) {
    const TensorShape shape = *network_tensor(config, name);
    const Format format = stored_format(scheme, name, shape.rows == 1);
    Tensor t;
    t.codec = format.codec;
    t.group = format.group;
    t.rows = shape.rows;
    t.cols = shape.cols;
    bool aligned = true;
    Buffer scales;  // a copy of those that are not aligned, to be looked at
    std::vector<std::span<const std::byte>> sources;
    const std::vector<StoredPlane> planes = stored_planes(format, shape.rows, shape.cols);
    for (const StoredPlane& plane : planes) {
      const auto bytes = entries.take(name + plane.suffix, plane.dtype, plane.shape);
      // Blocks of GGUF begin with an f16.
      const int64_t alignment = info(format.codec).group > 0 ? 2 : plane.alignment;
      const bool fits = reinterpret_cast<uintptr_t>(bytes.data()) % uintptr_t(alignment) == 0;
      const bool table = plane.plane == &Tensor::table;
      aligned = aligned && fits;
      sources.push_back(bytes);
      t.*plane.plane = {const_cast<std::byte*>(bytes.data()), table ? 0 : plane.row_bytes, 1};  // never written
      if (fits || plane.plane != &Tensor::scale) continue;
      scales = Buffer(bytes.size());
      std::memcpy(scales.data(), bytes.data(), bytes.size());
    }
    Tensor checked = t;
    if (scales.data()) checked.scale.ptr = scales.data();
    check_scales(checked, name, builder.path());
    if (aligned) {
      builder.add(name, name, t);
      continue;
    }
    builder.add_made(name, name, format, shape.rows, shape.cols, sources, [=](const Tensor& to) {
      for (size_t i = 0; i < planes.size(); ++i)
        std::memcpy((to.*planes[i].plane).ptr, sources[i].data(), sources[i].size());
    });
  }
  entries.check_all_used();
}

}  // namespace quire
