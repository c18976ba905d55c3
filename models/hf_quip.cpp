// QuIP# as its library writes it (config.json's 'quip_params'; no quantization_config). Modules of a layer: q, k and v
// as self_attn.qkv_proj, self_attn.o_proj, up and gate (in this order) as mlp.upgate_proj, mlp.down_proj. Of one, (O,
// I): Qidxs I64, SU (I), SV (O), Wscale and codebook_id of one value, in modules of several parts fuse_scales (parts),
// maybe bias (O). With H of kernels/hadamard.h
//   y = SV Wscale . (H_O (W (H_I^T (SU . x)))) + bias,  a part's outputs times its fuse_scale.
// Qidxs holds the codes of E8P by 8 columns, 4 codes a word: words in the order [O / 16][I / 64][8 pairs of rows][4
// pairs of code columns], and of a word, code i = row % 2 + 2 (code column % 2): the upper byte in byte i, bit j of the
// lower one in bit 32 + 4 j + i. Rows of I / 32 words; after each, those of a second E8P (4 bits) or one byte a code of
// the E8 book in the order of columns (3 bits).
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "models/family.h"
#include "models/hf_quantized.h"

namespace quire {

namespace {

using Bytes = std::span<const std::byte>;

struct Book {
  const char* name;
  int64_t id, version;
  Codec codec;
  float residual;  // the library's scale of what the second book codes
};
constexpr Book kBooks[] = {
    {"E8P12", 7, 1, id<E8p>, 0.0f},
    {"E8P12RVQ3B", 18, 0, id<E8pRvq3>, 2.04f},
    {"E8P12RVQ4B", 17, 1, id<E8pRvq4>, 3.45f},
};

// K of the orders K * 2^r for which the library has a matrix: those of kernels/hadamard.h equal them.
constexpr int64_t kFactors[] = {1, 12, 20, 28, 36, 52, 60, 108, 140, 156, 172};
bool has_matrix(int64_t order) {
  for (const int64_t k : kFactors) {
    const int64_t power = order % k == 0 ? order / k : 0;
    if (power > 0 && (power & (power - 1)) == 0) return true;
  }
  return false;
}

// The words of one E8P code a (row, 8 columns), with what lies between its rows.
struct TiledCodes {
  const std::byte* words;
  int64_t cols, pitch;  // of the matrix; words from row to row

  uint16_t at(int64_t row, int64_t j) const {
    const int64_t tile = row / 16 * (cols / 64) + j / 8, place = (tile * 8 + row % 16 / 2) * 4 + j % 8 / 2;
    uint64_t word;
    std::memcpy(&word, words + 8 * (place / (cols / 32) * pitch + place % (cols / 32)), 8);
    const int64_t i = row % 2 + 2 * (j % 2);
    uint32_t signs = uint32_t(word >> (32 + i)) & 0x11111111u;  // bit 4 j to bit j
    signs = (signs | signs >> 3) & 0x03030303u;
    signs = (signs | signs >> 6) & 0x000f000fu;
    signs = (signs | signs >> 12) & 0xffu;
    return uint16_t(uint32_t(word >> (8 * i) & 0xff) << 8 | signs);
  }
};

struct CodedMatrix {
  Bytes bytes;
  int64_t cols, pitch;  // words from row to row
  float residual;       // the inverse of its scale

  // Rows [row0, row0 + to.rows).
  void fill(int64_t row0, const Tensor& to) const {
    const TiledCodes first{bytes.data(), cols, pitch}, second{bytes.data() + cols / 4, cols, pitch};
    if (to.table.ptr) *to.table.row<float>(0) = residual;
    for (int64_t r = 0; r < to.rows; ++r) {
      for (int64_t j = 0; j < cols / 8; ++j) {
        to.data.row<uint16_t>(r)[j] = first.at(row0 + r, j);
        if (to.codec == id<E8pRvq4>) to.high.row<uint16_t>(r)[j] = second.at(row0 + r, j);
      }
      if (to.codec != id<E8pRvq3>) continue;
      std::memcpy(to.high.row<uint8_t>(r), bytes.data() + 8 * ((row0 + r) * pitch + cols / 32), size_t(cols / 8));
    }
  }
};

class QuipReader {
 public:
  explicit QuipReader(const QuantizedSource& source) : source_(source), book_(find_book(source.options)) {
    const JsonObject& o = source.options;
    const auto refuse = [&](bool holds, const char* key, const char* what) {
      check(!holds, "{}: '{}' asks for {}, which is not supported", o.where(), key, what);
    };
    refuse(o.integer("codesz").value_or(8) != 8, "codesz", "codes of other than 8 values");
    refuse(o.integer("lora_rank").value_or(0) > 0, "lora_rank", "a low-rank term");
    refuse(o.boolean("rescale_WH").value_or(false), "rescale_WH", "inputs divided by scaleWH");
    refuse(o.boolean("outlier_channel_split").value_or(false), "outlier_channel_split", "doubled inputs");
    refuse(o.boolean("pack_out").value_or(false), "pack_out", "codes packed along the outputs");
    const int64_t version = o.integer("codebook_version").value_or(0);
    check(version == book_.version, "{}: 'codebook_version' {} of {} cannot be read; {} can", o.where(), version,
          book_.name, book_.version);
    const double scale = o.number("resid_scale_override").value_or(-1.0);
    residual_ = book_.residual > 0 ? 1.0f / (scale > 0 ? float(scale) : book_.residual) : 0.0f;
    check(std::isfinite(residual_), "{}: 'resid_scale_override' is {}", o.where(), scale);
  }

  // `parts`: modules of the network, in the order of the file's rows.
  void add(const std::string& module, const std::vector<std::string>& parts) {
    const ModelConfig& config = source_.network();
    int64_t rows = 0, cols = 0;
    for (const std::string& part : parts) {
      const TensorShape shape = *network_tensor(config, part + ".weight");
      rows += shape.rows;
      cols = shape.cols;
    }
    check(rows % 16 == 0 && cols % 64 == 0, "'{}': '{}' ({}, {}) is no matrix of QuIP#: 16 n outputs, 64 n inputs",
          source_.path(), printable(module), rows, cols);
    for (const int64_t order : {rows, cols}) {
      check(
          has_matrix(order),
          "'{}': '{}' needs a Hadamard matrix of order {}; QuIP# has those of 1, 12, 20, 28, 36, 52, 60, 108, 140, 156 "
          "and 172 times a power of two",
          source_.path(), printable(module), order);
    }
    const int64_t pitch = cols * info(book_.codec).bits / 64;  // in words
    const std::string codes = module + ".Qidxs";
    const CodedMatrix matrix{source_.entries.take(codes, "I64", {rows, pitch}), cols, pitch, residual_};
    check_book(module);
    auto input = std::make_shared<InputTransform>();
    input->diagonal = values(module + ".SU", {cols});
    input->hadamard = cols;
    input->transposed = true;
    auto output = std::make_shared<OutputTransform>();
    const std::vector<float> factors = factors_of(module, parts);
    const std::string bias_name = module + ".bias";
    const bool biased = network_tensor(config, parts[0] + ".bias") && source_.entries.has(bias_name);
    const std::vector<float> bias = biased ? values(bias_name, {rows}) : std::vector<float>();
    output->diagonal = values(module + ".SV", {rows});
    const float scale = single(module + ".Wscale");
    int64_t row0 = 0;
    for (size_t p = 0; p < parts.size(); ++p) {
      const int64_t count = network_tensor(config, parts[p] + ".weight")->rows;
      for (int64_t r = row0; r < row0 + count; ++r) output->diagonal[size_t(r)] *= scale * factors[p];
      CheckpointTensor& t = source_.builder.add_made(parts[p] + ".weight", codes, {book_.codec, 0}, count, cols,
                                                     {matrix.bytes}, [=](const Tensor& to) { matrix.fill(row0, to); });
      t.input = input;
      t.output = output;
      t.output_row = row0;
      if (biased) add_bias(parts[p], bias_name, {bias.begin() + row0, bias.begin() + row0 + count}, factors[p]);
      row0 += count;
    }
    check_finite(module + ".SV times Wscale and fuse_scales", output->diagonal);
  }

  std::string words() const { return fmt::format("QuIP#, {} bits ({})", info(book_.codec).bits, book_.name); }

 private:
  static const Book& find_book(const JsonObject& options) {
    const std::string name = options.text("codebook").value_or("");
    std::string known;
    for (const Book& book : kBooks) {
      if (name == book.name) return book;
      known += fmt::format("{}{}", known.empty() ? "" : ", ", book.name);
    }
    fail(fmt::format("{}: 'codebook' is '{}'; {} can be read", options.where(), printable(name), known));
  }
  void check_finite(const std::string& what, const std::vector<float>& values) const {
    for (size_t i = 0; i < values.size(); ++i) {
      check(std::isfinite(values[i]), "'{}': tensor '{}' is not finite at {}", source_.path(), printable(what), i);
    }
  }
  std::vector<float> values(const std::string& name, const std::vector<int64_t>& shape) const {
    const FloatValues floats = take_finite_values(source_, name, shape);
    std::vector<float> out;
    for (int64_t i = 0; i < floats.size(); ++i) out.push_back(floats[i]);
    return out;
  }
  float single(const std::string& name) const {
    const SafetensorsTensor* t = source_.entries.find(name);
    return values(name, t && t->shape == std::vector<int64_t>{1} ? std::vector<int64_t>{1} : std::vector<int64_t>())[0];
  }
  std::vector<float> factors_of(const std::string& module, const std::vector<std::string>& parts) const {
    if (parts.size() == 1) return {1.0f};
    return values(module + ".fuse_scales", {int64_t(parts.size())});
  }
  void check_book(const std::string& module) const {
    const std::string name = module + ".codebook_id";
    const SafetensorsTensor& t = source_.entries.take(name);
    int64_t value = 0;
    check(t.dtype == "I64" && t.bytes.size() == sizeof value, "'{}': tensor '{}' is {} {}, not one I64", source_.path(),
          printable(name), t.dtype, printable_json(t.shape));
    std::memcpy(&value, t.bytes.data(), sizeof value);
    check(value == book_.id, "'{}': tensor '{}' is {}; {} is {}", source_.path(), printable(name), value, book_.name,
          book_.id);
  }
  // The library scales a part after the bias.
  void add_bias(const std::string& part, const std::string& source_name, std::vector<float> bias, float factor) const {
    for (float& b : bias) b *= factor;
    check_finite(source_name, bias);
    const int64_t count = int64_t(bias.size());
    source_.builder.add_made(part + ".bias", source_name, {id<F32>, 0}, 1, count, {}, [bias](const Tensor& to) {
      std::memcpy(to.data.ptr, bias.data(), bias.size() * sizeof(float));
    });
  }

  const QuantizedSource& source_;
  const Book& book_;
  float residual_ = 0.0f;
};

}  // namespace

std::string add_quip_tensors(const QuantizedSource& source) {
  QuipReader reader(source);
  const Family& f = find_family(source.network().family);
  check(source.network().family == "llama" || source.network().family == "mistral",
        "'{}': QuIP# in a network of family {} cannot be read; llama and mistral can", source.path(),
        source.network().family);
  for (int64_t layer = 0; layer < source.network().layers; ++layer) {
    const std::string at = fmt::format("model.layers.{}.", layer);
    reader.add(at + "self_attn.qkv_proj", {at + f.q, at + f.k, at + f.v});
    reader.add(at + f.o, {at + f.o});
    reader.add(at + "mlp.upgate_proj", {at + f.up, at + f.gate});
    reader.add(at + f.down, {at + f.down});
  }
  return reader.words();
}

}  // namespace quire
