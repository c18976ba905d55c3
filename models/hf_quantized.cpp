#include "models/hf_quantized.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/printable.h"
#include "models/fused_tensors.h"
#include "models/hf_config.h"
#include "models/quant_args.h"

namespace quire {

namespace {

struct Method {
  const char* name;  // quant_method
  std::string (*add)(const QuantizedSource& source);
};
constexpr Method kMethods[] = {
    {"gptq", add_gptq_tensors},     {"awq", add_awq_tensors},           {"qserve", add_qserve_tensors},
    {"quarot", add_quarot_tensors}, {"spqr", add_spqr_tensors},         {"compressed-tensors", add_compressed_tensors},
    {"fp8", add_fp8_tensors},       {"modelopt", add_modelopt_tensors}, {"bitsandbytes", add_bitsandbytes_tensors},
    {"quip", add_quip_tensors},
};

// Configurations that older writers put beside config.json, for directories where that names no method.
struct SideFile {
  const char* name;
  const char* method;  // unless the file says otherwise
};
constexpr SideFile kSideFiles[] = {
    {"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}, {"hf_quant_config.json", "modelopt"}};

constexpr size_t kMaxSideFile = 10'000'000;

const Method* find_method(const std::string& name) {
  for (const Method& m : kMethods) {
    if (name == m.name) return &m;
  }
  return nullptr;
}

std::string known_methods() {
  std::string names;
  for (const Method& m : kMethods) names += fmt::format("{}, ", m.name);
  return names + "and what `quire quantize` writes";
}

bool all_zero(std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) {
    if (b != std::byte{0}) return false;
  }
  return true;
}

// Writers that give every linear a bias fill those with zeros that the network does not have.
bool is_void_bias(const ModelConfig& config, const SafetensorsTensor& t) {
  return t.name.ends_with(".bias") && !network_tensor(config, t.name) && all_zero(t.bytes);
}

Format grouped_format(const GroupedCodes& c, bool symmetric) {
  const int32_t group = c.group >= c.cols ? 0 : int32_t(c.group);
  switch (c.bits) {
    case 2:
      return {symmetric ? id<Int2> : id<Int2Z>, group};
    case 3:
      return {symmetric ? id<Int3> : id<Int3Z>, group};
    case 4:
      return {symmetric ? id<Int4> : id<Int4Z>, group};
    default:
      return {symmetric ? id<Int8> : id<Int8Z>, group};
  }
}

template <class Planes>
void put_codes(const Tensor& to, int64_t r, const uint8_t* codes) {
  Planes::write(to, r, 0, to.cols, codes);
}

void fill_grouped(const GroupedCodes& c, const InputTransform* input, const Tensor& to) {
  const bool zeros = to.aux.ptr != nullptr, flip = to.codec == id<Int8>;  // int8 codes lie in two's complement
  std::vector<uint8_t> block(size_t(c.block * c.cols)), row(static_cast<size_t>(c.cols));
  for (int64_t r0 = 0; r0 < c.rows; r0 += c.block) {
    const int64_t n = std::min(c.block, c.rows - r0);
    c.codes(r0, n, block.data());
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t* in = block.data() + i * c.cols;
      for (int64_t k = 0; k < c.cols; ++k)
        row[size_t(k)] = uint8_t(in[input ? input->order[size_t(k)] : k] ^ (flip ? 0x80 : 0));
      visit(to.codec, [&]<class C>(C) {
        if constexpr (requires { typename C::Planes; }) put_codes<typename C::Planes>(to, r0 + i, row.data());
      });
      for (int64_t g = 0; g < to.groups(); ++g) {
        to.scale.row<float>(r0 + i)[g] = c.scale(r0 + i, g);
        if (zeros) to.aux.row<uint8_t>(r0 + i)[g] = uint8_t(c.zero(r0 + i, g));
      }
    }
  }
}

}  // namespace

namespace {
std::string method_of(const JsonObject& o) {
  if (const auto named = o.text("quant_method")) return *named;
  const bool bits = o.boolean("load_in_8bit").value_or(false) || o.boolean("load_in_4bit").value_or(false);
  return bits ? "bitsandbytes" : "unnamed";  // as in transformers
}

// What compressed-tensors wrote before it was part of transformers: its settings as they are or one deeper, beside
// those of sparsity.
Quantization read_compression_config(const JsonObject& o) {
  const auto inner = o.object("quantization_config");
  const JsonObject& settings = inner ? *inner : o;
  if (inner) check_dense(o);
  const std::string method = settings.text("quant_method").value_or("compressed-tensors");
  return {method == "sparseml" ? "compressed-tensors" : method, nullptr, &settings.json(), settings.where(), {}};
}
}  // namespace

std::optional<Quantization> find_quantization(const std::string& path, const JsonObject& config,
                                              const Entries& entries) {
  Quantization q{"", std::make_unique<Json>(Json::object()), nullptr, config.where(), {}};
  q.json = q.own.get();
  std::string file = (std::filesystem::path(path) / "config.json").string();
  std::vector<std::string> rules = {"dynamic"};
  if (const auto o = config.object("quantization_config")) {
    q = {method_of(*o), nullptr, &o->json(), o->where(), {}};
    rules.insert(rules.begin(), "quantization_config");
  } else if (const auto older = config.object("compression_config")) {
    q = read_compression_config(*older);
  } else {
    for (const SideFile& side : kSideFiles) {
      const std::string other = (std::filesystem::path(path) / side.name).string();
      if (!std::filesystem::exists(other)) continue;
      file = other;
      q.own = std::make_unique<Json>(read_json_file(file, kMaxSideFile));
      q.json = q.own.get();
      q.where = fmt::format("'{}'", file);
      q.method = JsonObject(*q.json, q.where).text("quant_method").value_or(side.method);
      break;
    }
  }
  if (q.method.empty() && config.text("model_type") == kQuarotModel) q.method = "quarot";
  if (q.method.empty() && has_qserve_tensors(entries)) q.method = "qserve";
  if (const auto o = q.method.empty() ? config.object("quip_params") : std::nullopt)
    q = {"quip", nullptr, &o->json(), o->where(), {}};
  if (q.method.empty()) return std::nullopt;
  check(find_method(q.method) != nullptr,
        "{}: weights quantized by '{}' cannot be read; these can: f16, bf16 and f32 directories, GGUF files, {}",
        q.where, printable(q.method), known_methods());
  // The first rule that matches counts.
  if (q.json->contains("dynamic"))
    q.rule_names = keys_in_order(read_text_file(file, kMaxSideFile), rules, fmt::format("'{}'", file));
  return q;
}

void QuantizedSource::for_each_matrix(
    const std::function<void(const std::string& module, TensorShape shape)>& f) const {
  constexpr std::string_view kSuffix = ".weight";
  for_each_needed_tensor(network(), [&](const std::string& name) {
    TensorShape shape = *network_tensor(network(), name);
    if (shape.rows == 1 || !name.ends_with(kSuffix)) return;
    std::string in_files = name;
    if (const auto fused = fused_matrix(network(), name)) {
      if (name != fused->parts[0]) return;
      in_files = fused->name;
      shape = fused->shape;
    }
    f(in_files.substr(0, in_files.size() - kSuffix.size()), shape);
  });
}

namespace {
// Which methods make entries that the network does not have in floats, for people to look at.
constexpr std::pair<std::string_view, const char*> kPackedBy[] = {
    {".qweight", "GPTQ, AWQ or QServe"},
    {".qzeros", "GPTQ or AWQ"},
    {".g_idx", "GPTQ"},
    {".weight_packed", "compressed-tensors"},
    {".weight_shape", "compressed-tensors"},
    {".weight_zero_point", "compressed-tensors"},
    {".weight_g_idx", "compressed-tensors"},
    {".absmax", "bitsandbytes"},
};

std::string packed_by(const SafetensorsTensor& t) {
  for (const auto& [suffix, methods] : kPackedBy) {
    if (t.name.ends_with(suffix)) return methods;
  }
  if (!t.name.ends_with(".weight")) return "";
  if (t.dtype == "I8") return "bitsandbytes, compressed-tensors or QServe";
  if (t.dtype == "U8") return "bitsandbytes or ModelOpt";
  return t.dtype == "F8_E4M3" ? "fp8, compressed-tensors or ModelOpt" : "";
}
}  // namespace

void QuantizedSource::add_plain(const std::string& name) const { add_plain_tensor(builder, entries.take(name)); }

void add_plain_tensor(CheckpointBuilder& builder, const SafetensorsTensor& t) {
  if (t.name.ends_with(".rotary_emb.inv_freq")) return;  // follows from rope_theta; old writers kept it
  // The embedding stands for it, as in transformers.
  if (t.name == "lm_head.weight" && builder.state().config.tied_embeddings) return;
  const auto codec = safetensors_codec(t.dtype);
  if (const std::string methods = codec ? "" : packed_by(t); !methods.empty()) {
    fail(
        fmt::format("'{}': tensor '{}' is in {}, as {} packs weights, but the 'quantization_config' of config.json "
                    "names no such method for it",
                    builder.path(), printable(t.name), t.dtype, methods));
  }
  check(codec.has_value(), "'{}': tensor '{}' is in {}, which cannot be read; F32, F16 and BF16 can", builder.path(),
        printable(t.name), t.dtype);
  check(t.shape.size() == 1 || t.shape.size() == 2, "'{}': tensor '{}' has {} dimensions; 1 or 2 are expected",
        builder.path(), printable(t.name), t.shape.size());
  const int64_t rows = t.shape.size() == 2 ? t.shape[0] : 1, cols = t.shape.back();
  if (add_fused(builder, builder.state().config, {t.name, t.name, *codec, rows, cols, t.bytes.data()})) return;
  builder.add(t.name, t.name, *codec, rows, cols, t.bytes.data());
}

void add_quantized_tensors(CheckpointBuilder& builder, const JsonObject& config, const Quantization& quantization,
                           Entries& entries) {
  const JsonObject options(*quantization.json, quantization.where);
  // Layers without end need tensors without end: a bound before anything walks over them.
  check(builder.state().config.layers <= int64_t(entries.size()),
        "'{}': {} layers are announced, but there are only {} tensors", builder.path(), builder.state().config.layers,
        entries.size());
  const std::string words =
      find_method(quantization.method)->add({builder, config, options, entries, quantization.rule_names});
  builder.state().container += ", " + words;
  split_fused(builder);
  entries.for_each_left([&](const SafetensorsTensor& t) {
    if (!is_void_bias(builder.state().config, t)) add_plain_tensor(builder, t);
  });
}

FloatValues::FloatValues(const SafetensorsTensor& t, const std::string& path) : bytes_(t.bytes.data()) {
  const auto codec = safetensors_codec(t.dtype);
  check(codec.has_value(), "'{}': tensor '{}' is in {}; F16, BF16 or F32 is needed", path, printable(t.name), t.dtype);
  codec_ = *codec;
  size_ = int64_t(t.bytes.size()) / (info(codec_).bits / 8);
}

float FloatValues::operator[](int64_t i) const {
  if (codec_ == id<F32>) return f32_from_bits(load_word(bytes_, i));
  uint16_t half;
  std::memcpy(&half, bytes_ + 2 * i, 2);
  return codec_ == id<F16> ? f16_to_f32(half) : bf16_to_f32(half);
}

FloatValues finite_values(const SafetensorsTensor& t, const std::string& path) {
  FloatValues values(t, path);
  for (int64_t i = 0; i < values.size(); ++i)
    check(std::isfinite(values[i]), "'{}': tensor '{}' is not finite at {}", path, printable(t.name), i);
  return values;
}

FloatValues take_values(const QuantizedSource& source, const std::string& name, const std::vector<int64_t>& shape) {
  const SafetensorsTensor& t = source.entries.take(name);
  check(t.shape == shape, "'{}': tensor '{}' is {} where the configuration needs {}", source.path(), printable(name),
        printable_json(t.shape), printable_json(shape));
  return {t, source.path()};
}

FloatValues take_finite_values(const QuantizedSource& source, const std::string& name,
                               const std::vector<int64_t>& shape) {
  take_values(source, name, shape);
  return finite_values(*source.entries.find(name), source.path());
}

std::span<const std::byte> take_finite(const QuantizedSource& source, const std::string& name, const std::string& dtype,
                                       const std::vector<int64_t>& shape) {
  const auto bytes = source.entries.take(name, dtype, shape);
  finite_values(*source.entries.find(name), source.path());
  return bytes;
}

void set_int8_codes(const QuantizedSource& source, const std::string& module, GroupedCodes& c) {
  const auto data = source.entries.take(module + ".weight", "I8", {c.rows, c.cols});
  c.bits = 8;
  c.codes = [data = data.data(), cols = c.cols](int64_t r0, int64_t n, uint8_t* out) {
    for (int64_t i = 0; i < n * cols; ++i) out[i] = uint8_t(data[r0 * cols + i]) ^ 0x80;
  };
  c.zero = [](int64_t, int64_t) { return 128; };
  c.sources.push_back(data);
}

uint32_t load_word(const std::byte* words, int64_t i) {
  uint32_t word;
  std::memcpy(&word, words + 4 * i, 4);
  return word;
}

CheckpointTensor& add_grouped_codes(const QuantizedSource& source, const std::string& module, GroupedCodes codes,
                                    std::shared_ptr<const InputTransform> input) {
  const int middle = 1 << (codes.bits - 1), most = codes.bits == 8 ? 255 : 1 << codes.bits;
  const int64_t groups = codes.group > 0 ? (codes.cols + codes.group - 1) / codes.group : 1;
  // Groups begin on whole bytes, and the segments of integer products on whole vectors.
  check(codes.group % 16 == 0 && codes.group <= 65536,
        "'{}': '{}' has groups of {}; multiples of 16 up to 65536 can be run", source.path(), printable(module),
        codes.group);
  bool symmetric = true;
  for (int64_t r = 0; r < codes.rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      const int zero = codes.zero(r, g);
      check(std::isfinite(codes.scale(r, g)), "'{}': '{}' has a scale that is not finite at output {}, group {}",
            source.path(), printable(module), r, g);
      check(zero >= 0 && zero <= most, "'{}': '{}' has a zero of {} at output {}, group {}; 0 to {} can be",
            source.path(), printable(module), zero, r, g, most);
      symmetric = symmetric && zero == middle;
    }
  }
  const Format format = grouped_format(codes, symmetric);
  const std::string name = module + ".weight";
  const int64_t rows = codes.rows, cols = codes.cols;
  auto sources = codes.sources;
  CheckpointTensor& t = source.builder.add_made(
      name, name, format, rows, cols, std::move(sources),
      [codes = std::move(codes), input](const Tensor& to) { fill_grouped(codes, input.get(), to); });
  t.input = std::move(input);
  return t;
}

std::shared_ptr<const InputTransform> group_order(const QuantizedSource& source, const std::string& name,
                                                  int64_t inputs, int64_t group,
                                                  std::shared_ptr<const InputTransform>& last) {
  const auto bytes = source.entries.take(name, "I32", {inputs});
  const auto group_of = [&](int64_t i) { return int64_t(int32_t(load_word(bytes.data(), i))); };
  auto input = std::make_shared<InputTransform>();
  input->order.resize(size_t(inputs));
  std::iota(input->order.begin(), input->order.end(), 0);
  std::stable_sort(input->order.begin(), input->order.end(),
                   [&](int32_t a, int32_t b) { return group_of(a) < group_of(b); });
  bool moved = false;
  for (int64_t c = 0; c < inputs; ++c) {
    const int64_t at = input->order[size_t(c)];
    check(group_of(at) == c / group,
          "'{}': tensor '{}' puts input {} into group {}, where groups of {} need {} (each group must have as many)",
          source.path(), printable(name), at, group_of(at), group, c / group);
    moved = moved || at != c;
  }
  if (!moved) return nullptr;
  if (!last || !(*last == *input)) last = std::move(input);
  return last;
}

}  // namespace quire
