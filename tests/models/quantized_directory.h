// Directories as other programs quantize them, written straight from the description of their layouts: the codes are
// drawn, and what they mean is worked out here, not by what reads them.
#pragma once
#include <algorithm>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "quant/scalar.h"
#include "tests/tiny_model.h"

namespace quire {

// value(r, c) = scale(r, group of c) * (code(r, c) - zero(r, group of c)), in float.
struct DrawnMatrix {
  int64_t rows, cols, group;
  int bits;
  std::vector<int> codes, zeros, group_of;  // (rows, cols), (rows, groups), (cols)
  std::vector<uint16_t> scales;             // f16 (rows, groups)

  int64_t groups() const { return (cols + group - 1) / group; }
  float scale(int64_t r, int64_t g) const { return f16_to_f32(scales[size_t(r * groups() + g)]); }
  int zero(int64_t r, int64_t g) const { return zeros[size_t(r * groups() + g)]; }
  int code(int64_t r, int64_t c) const { return codes[size_t(r * cols + c)]; }
  float value(int64_t r, int64_t c) const {
    const int64_t g = group_of[size_t(c)];
    return scale(r, g) * float(code(r, c) - zero(r, g));
  }
};

struct Draw {
  uint64_t state = 88172645463325252u;
  uint32_t operator()(uint32_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return uint32_t((state >> 32) % below);
  }
};

struct DrawOptions {
  int bits = 4;
  int64_t group = 32;  // -1: the row
  bool symmetric = false, act_order = false;
};
inline DrawnMatrix draw_matrix(Draw& draw, int64_t rows, int64_t cols, const DrawOptions& o) {
  DrawnMatrix m;
  m.rows = rows, m.cols = cols, m.bits = o.bits;
  m.group = o.group == -1 ? cols : o.group;
  for (int64_t i = 0; i < rows * cols; ++i) m.codes.push_back(int(draw(1u << o.bits)));
  for (int64_t i = 0; i < rows * m.groups(); ++i) {
    m.zeros.push_back(o.symmetric ? 1 << (o.bits - 1) : int(draw(1u << o.bits)));
    m.scales.push_back(f32_to_f16(float(1 + draw(1000)) / float(3000 << o.bits)));
  }
  std::vector<int64_t> order(size_t(cols), 0);
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = cols - 1; o.act_order && i > 0; --i) std::swap(order[size_t(i)], order[draw(uint32_t(i + 1))]);
  m.group_of.resize(size_t(cols));
  for (int64_t i = 0; i < cols; ++i) m.group_of[size_t(order[size_t(i)])] = int(i / m.group);
  return m;
}

// Little-endian words, to be written bit by bit.
class Words {
 public:
  explicit Words(int64_t count) : bytes_(size_t(count * 4), '\0') {}
  void put(int64_t word, int bit, int64_t value) {  // beyond bit 31: the word after
    for (int i = 0; i < 32 && value >> i; ++i) {
      if (value >> i & 1) bytes_[size_t(word * 4 + (bit + i) / 8)] |= char(1 << (bit + i) % 8);
    }
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

template <class T>
std::string raw_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// f16 (groups, rows) from (rows, groups).
inline std::string scales_by_group(const DrawnMatrix& m) {
  std::vector<uint16_t> out;
  for (int64_t g = 0; g < m.groups(); ++g) {
    for (int64_t r = 0; r < m.rows; ++r) out.push_back(m.scales[size_t(r * m.groups() + g)]);
  }
  return raw_bytes(out);
}

// Code i of a stream along one row or column of words that lie `step` apart.
inline void put_stream(Words& words, int64_t first, int64_t step, int64_t i, int bits, int value) {
  for (int b = 0; b < bits; ++b) {
    const int64_t at = i * bits + b;
    words.put(first + at / 32 * step, int(at % 32), value >> b & 1);
  }
}

// AutoGPTQ's entries; shift 1: version 1, which stores zero - 1.
inline void write_gptq(SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m, int shift, bool g_idx) {
  const int64_t k_words = (m.cols * m.bits + 31) / 32, n_words = (m.rows * m.bits + 31) / 32;
  Words qweight(k_words * m.rows), qzeros(m.groups() * n_words);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) put_stream(qweight, r, m.rows, c, m.bits, m.code(r, c));
    for (int64_t g = 0; g < m.groups(); ++g)
      put_stream(qzeros, g * n_words, 1, r, m.bits, (m.zero(r, g) - shift) & ((1 << m.bits) - 1));
  }
  w.tensor(module + ".qweight", "I32", {k_words, m.rows}, qweight.bytes());
  w.tensor(module + ".qzeros", "I32", {m.groups(), n_words}, qzeros.bytes());
  w.tensor(module + ".scales", "F16", {m.groups(), m.rows}, scales_by_group(m));
  if (g_idx) w.tensor(module + ".g_idx", "I32", {m.cols}, raw_bytes(m.group_of));
}

// AutoAWQ's, version gemm.
inline void write_awq_gemm(SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
  constexpr int kOutput[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // of nibble n
  const int64_t words = m.rows / 8;
  Words qweight(m.cols * words), qzeros(m.groups() * words);
  for (int64_t i = 0; i < words; ++i) {
    for (int n = 0; n < 8; ++n) {
      const int64_t r = 8 * i + kOutput[n];
      for (int64_t c = 0; c < m.cols; ++c) qweight.put(c * words + i, 4 * n, m.code(r, c));
      for (int64_t g = 0; g < m.groups(); ++g) qzeros.put(g * words + i, 4 * n, m.zero(r, g));
    }
  }
  w.tensor(module + ".qweight", "I32", {m.cols, words}, qweight.bytes());
  w.tensor(module + ".qzeros", "I32", {m.groups(), words}, qzeros.bytes());
  w.tensor(module + ".scales", "F16", {m.groups(), m.rows}, scales_by_group(m));
}

// Version gemv: groups padded to `width` words.
inline void write_awq_gemv(SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m, int64_t width) {
  Words qweight(m.rows * m.cols / 8), qzeros(m.rows * width);
  std::vector<uint16_t> scales(size_t(m.rows * width * 8), 0);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) qweight.put((r * m.cols + c) / 8, int(c % 8) * 4, m.code(r, c));
    for (int64_t g = 0; g < m.groups(); ++g) {
      qzeros.put(r * width + g / 8, int(g % 8) * 4, m.zero(r, g));
      scales[size_t(r * width * 8 + g)] = m.scales[size_t(r * m.groups() + g)];
    }
  }
  w.tensor(module + ".qweight", "I32", {m.rows, m.cols / 8}, qweight.bytes());
  w.tensor(module + ".qzeros", "I32", {m.rows, width}, qzeros.bytes());
  w.tensor(module + ".scales", "F16", {m.rows, width * 8}, raw_bytes(scales));
}

// A whole directory: the tiny model with its linears replaced by what `write` puts (true: it did; false: in floats),
// and beside it the same network in floats, with `value` as the weights.
struct QuantizedDirectory {
  std::string path, floats;
  std::map<std::string, DrawnMatrix> matrices;  // by module
};
inline std::string module_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

using WriteModule = std::function<void(SafetensorsWriter&, const std::string& module, const DrawnMatrix&)>;
using OptionsOf = std::function<std::optional<DrawOptions>(const std::string& module)>;  // empty: in floats
inline QuantizedDirectory write_quantized_hf(const TinyModel& model, const std::string& path,
                                             const nlohmann::ordered_json& quantization, const OptionsOf& options_of,
                                             const WriteModule& write) {
  QuantizedDirectory out{path, path + "-floats", {}};
  write_tiny_hf(model, path);
  write_tiny_hf(model, out.floats);
  SafetensorsWriter quantized, floats;
  Draw draw;
  for (const TinyTensor& t : model.tensors) {
    const Tensor& x = t.weight.tensor;
    const std::string module = module_of(t.name);
    const bool linear = x.rows > 1 && t.name.find("embed_tokens") == std::string::npos;
    const auto options = linear ? options_of(module) : std::nullopt;
    const std::vector<int64_t> shape = x.rows > 1 ? std::vector<int64_t>{x.rows, x.cols} : std::vector<int64_t>{x.cols};
    if (!options) {
      quantized.tensor(t.name, safetensors_type_of(x.codec), shape, bytes_of(x));
      floats.tensor(t.name, safetensors_type_of(x.codec), shape, bytes_of(x));
      continue;
    }
    const DrawnMatrix m = draw_matrix(draw, x.rows, x.cols, *options);
    write(quantized, module, m);
    std::vector<float> values;
    for (int64_t r = 0; r < m.rows; ++r) {
      for (int64_t c = 0; c < m.cols; ++c) values.push_back(m.value(r, c));
    }
    floats.tensor(t.name, "F32", shape, raw_bytes(values));
    out.matrices.emplace(module, m);
  }
  nlohmann::ordered_json config = tiny_hf_config(model);
  write_file(out.floats + "/config.json", config.dump());
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  write_file(path + "/config.json", config.dump());
  quantized.shift = 1;  // nothing is aligned
  write_file(path + "/model.safetensors", quantized.file());
  write_file(out.floats + "/model.safetensors", floats.file());
  return out;
}

}  // namespace quire
