// A QuIP# directory of the tiny model, written straight from the description of its layout, and what it means: codes by
// the tests' own decode, transforms as dense matrices in f64.
#pragma once
#include <bit>
#include <cmath>

#include "kernels/hadamard.h"
#include "tests/models/quantized_values.h"
#include "tests/quant/e8_reference.h"

namespace quire {

// Rows `first` of the fused module that a tensor of the network is, what its codes say and what the matrix means.
struct QuipPart {
  int64_t row0, rows, cols;
  std::vector<float> codes;    // (rows, cols)
  std::vector<double> matrix;  // W^ (rows, cols), with both transforms
};

struct QuipOptions {
  int bits = 2;
  double residual = -1.0;  // resid_scale_override
};

class QuipWriter {
 public:
  QuipWriter(const TinyModel& model, const QuipOptions& options) : model_(model), options_(options) {
    constexpr const char* kNames[3] = {"E8P12", "E8P12RVQ3B", "E8P12RVQ4B"};
    config = tiny_hf_config(model);
    config["quip_params"] = {{"codebook", kNames[options.bits - 2]},
                             {"codebook_version", options.bits == 3 ? 0 : 1},
                             {"codesz", 8},
                             {"idx_dtype", "torch.int64"},
                             {"lora_rank", 0},
                             {"model_version", 1},
                             {"outlier_channel_split", false},
                             {"pack_out", false},
                             {"packsz", options.bits == 2   ? 4.0
                                        : options.bits == 3 ? 8.0 / 3
                                                            : 2.0},
                             {"rescale_WH", false},
                             {"resid_scale_override", options.residual}};
  }

  // The directory, and beside it ("-floats") the same network of the matrices, rounded to f32.
  void write(const std::string& path) {
    write_tiny_hf(model_, path);
    write_tiny_hf(model_, path + "-floats");
    SafetensorsWriter quantized, floats;
    const std::string layer = "model.layers.0.", attention = layer + "self_attn.", mlp = layer + "mlp.";
    add(quantized, attention + "qkv_proj", {attention + "q_proj", attention + "k_proj", attention + "v_proj"});
    add(quantized, attention + "o_proj", {attention + "o_proj"});
    add(quantized, mlp + "upgate_proj", {mlp + "up_proj", mlp + "gate_proj"});
    add(quantized, mlp + "down_proj", {mlp + "down_proj"});
    for (const TinyTensor& t : model_.tensors) {
      const Tensor& x = t.weight.tensor;
      const bool matrix = parts.count(module_of(t.name)) > 0 && t.name.ends_with(".weight");
      const std::vector<int64_t> shape =
          x.rows > 1 ? std::vector<int64_t>{x.rows, x.cols} : std::vector<int64_t>{x.cols};
      if (t.name.ends_with(".bias")) {
        floats.tensor(t.name, "F32", shape, raw_bytes(biases.at(t.name)));
      } else if (matrix) {
        const std::vector<double>& w = parts.at(module_of(t.name)).matrix;
        floats.tensor(t.name, "F32", shape, raw_bytes(std::vector<float>(w.begin(), w.end())));
      } else {
        quantized.tensor(t.name, safetensors_type_of(x.codec), shape, bytes_of(x));
        floats.tensor(t.name, safetensors_type_of(x.codec), shape, bytes_of(x));
      }
    }
    quantized.shift = 1;  // nothing is aligned
    write_file(path + "/config.json", config.dump());
    write_file(path + "/model.safetensors", quantized.file());
    write_file(path + "-floats/model.safetensors", floats.file());
  }

  // Entry (i, j) of the matrix of +-1, by the index split of kernels/hadamard.h.
  static int sign(const Hadamard& h, int64_t i, int64_t j) {
    const int64_t n = h.power();
    return h.sign(i / n, j / n) * (std::popcount(uint64_t(i % n & j % n)) % 2 ? -1 : 1);
  }

  nlohmann::ordered_json config;
  std::map<std::string, QuipPart> parts;             // by module of the network
  std::map<std::string, std::vector<float>> biases;  // by tensor
  std::map<std::string, std::vector<float>> SU, SV;  // by module of the file; SV with Wscale and fuse_scales
  std::function<void(SafetensorsWriter&, const std::string& module)> more;  // adds to a module's entries
  std::function<bool(const std::string& entry)> skipped = [](const std::string&) { return false; };

 private:
  static std::string codes_as_file(const std::vector<uint32_t>& codes, const std::vector<uint32_t>& seconds,
                                   int64_t rows, int64_t cols, int bits) {
    const int64_t pitch = cols * bits / 64;
    std::vector<uint64_t> words(size_t(rows * pitch), 0);
    const auto put = [&](const std::vector<uint32_t>& from, int64_t column0) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < cols / 8; ++j) {
          // [rows / 16][cols / 64][8 pairs of rows][4 pairs of columns]
          const int64_t flat = ((r / 16 * (cols / 64) + j / 8) * 8 + r % 16 / 2) * 4 + j % 8 / 2;
          uint64_t& word = words[size_t(flat / (cols / 32) * pitch + column0 + flat % (cols / 32))];
          const uint64_t code = from[size_t(r * (cols / 8) + j)], place = uint64_t(r % 2 + j % 2 * 2);
          word |= (code >> 8) << (8 * place);
          for (uint64_t b = 0; b < 8; ++b) word |= (code >> b & 1) << (32 + 4 * b + place);
        }
      }
    };
    put(codes, 0);
    if (bits == 4) put(seconds, cols / 32);
    for (int64_t i = 0; bits == 3 && i < rows * cols / 8; ++i) {
      const int64_t r = i / (cols / 8), j = i % (cols / 8);
      words[size_t(r * pitch + cols / 32 + j / 8)] |= uint64_t(seconds[size_t(i)]) << (8 * (j % 8));
    }
    return raw_bytes(words);
  }

  bool has_bias(const std::string& module) const {
    for (const TinyTensor& t : model_.tensors) {
      if (t.name == module + ".bias") return true;
    }
    return false;
  }

  std::vector<uint16_t> halves(int64_t n, bool signs, float scale) {
    std::vector<uint16_t> out;
    for (int64_t i = 0; i < n; ++i) {
      const float magnitude = signs ? 1.0f : 0.5f + float(draw_(1000)) / 1000.0f;
      out.push_back(f32_to_f16((draw_(2) ? scale : -scale) * magnitude));
    }
    return out;
  }

  void add(SafetensorsWriter& w, const std::string& module, const std::vector<std::string>& names) {
    int64_t rows = 0, cols = 0;
    for (const std::string& name : names) {
      const Tensor& t = model_.get(name + ".weight");
      rows += t.rows, cols = t.cols;
    }
    std::vector<uint32_t> codes, seconds;
    std::vector<float> values(size_t(rows * cols), 0.0f);
    const double default_scale = options_.bits == 3 ? 2.04 : 3.45;
    const float factor = 1.0f / float(options_.residual > 0 ? options_.residual : default_scale);
    for (int64_t i = 0; i < rows * cols / 8; ++i) {
      codes.push_back(draw_(65536));
      seconds.push_back(options_.bits == 3 ? draw_(256) : draw_(65536));
      const E8Value a = e8p_value(codes.back());
      const E8Value b = options_.bits == 3 ? e8_one_bit()[seconds.back()] : e8p_value(seconds.back());
      for (size_t k = 0; k < 8; ++k)
        values[size_t(i) * 8 + k] = options_.bits == 2 ? float(a[k]) : float(a[k]) + factor * float(b[k]);
    }
    const auto tensor = [&](const std::string& name, const char* type, std::vector<int64_t> shape,
                            const std::string& bytes) {
      if (!skipped(module + name)) w.tensor(module + name, type, std::move(shape), bytes);
    };
    tensor(".Qidxs", "I64", {rows, cols * options_.bits / 64},
           codes_as_file(codes, seconds, rows, cols, options_.bits));
    const std::vector<uint16_t> su = halves(cols, module.ends_with("o_proj"), 1.0f), sv = halves(rows, false, 0.5f);
    const float scale = names.size() == 1 ? 1.0f : 0.125f + float(draw_(100)) / 1000.0f;
    std::vector<float> fuse;
    for (size_t p = 0; p < names.size(); ++p)
      fuse.push_back(names.size() == 1 ? 1.0f : 0.5f + float(draw_(100)) / 100.0f);
    tensor(".SU", "F16", {cols}, raw_bytes(su));
    tensor(".SV", "F16", {rows}, raw_bytes(sv));
    tensor(".Wscale", "F32", {}, raw_bytes(std::vector<float>{scale}));
    tensor(".codebook_id", "I64", {},
           raw_bytes(std::vector<int64_t>{options_.bits == 2   ? 7
                                          : options_.bits == 3 ? 18
                                                               : 17}));
    if (names.size() > 1) tensor(".fuse_scales", "F32", {int64_t(names.size())}, raw_bytes(fuse));
    if (more) more(w, module);
    for (const uint16_t v : su) SU[module].push_back(f16_to_f32(v));
    for (const uint16_t v : sv) SV[module].push_back(f16_to_f32(v));
    std::vector<uint16_t> bias;
    const bool biased = has_bias(names[0]);
    if (biased) {
      bias = halves(rows, false, 0.25f);
      tensor(".bias", "F16", {rows}, raw_bytes(bias));
    }
    int64_t row0 = 0;
    for (size_t p = 0; p < names.size(); ++p) {
      const int64_t count = model_.get(names[p] + ".weight").rows;
      QuipPart part{row0, count, cols, {}, {}};
      part.codes.assign(values.begin() + row0 * cols, values.begin() + (row0 + count) * cols);
      for (int64_t r = row0; r < row0 + count; ++r) {
        SV[module][size_t(r)] *= scale * fuse[p];
        if (biased) biases[names[p] + ".bias"].push_back(f16_to_f32(bias[size_t(r)]) * fuse[p]);
      }
      parts[names[p]] = std::move(part);
      row0 += count;
    }
    fill_dense(module, names, values, rows, cols);
  }

  // diag(SV) H_rows codes H_cols^T diag(SU)
  void fill_dense(const std::string& module, const std::vector<std::string>& names, const std::vector<float>& values,
                  int64_t rows, int64_t cols) {
    const Hadamard left(rows), right(cols);
    std::vector<double> turned(values.size(), 0.0);  // codes H_cols^T
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        double sum = 0.0;
        for (int64_t k = 0; k < cols; ++k) sum += double(values[size_t(r * cols + k)]) * sign(right, c, k);
        turned[size_t(r * cols + c)] = sum / std::sqrt(double(cols)) * double(SU[module][size_t(c)]);
      }
    }
    for (const std::string& name : names) {
      QuipPart& part = parts[name];
      for (int64_t r = part.row0; r < part.row0 + part.rows; ++r) {
        std::vector<double> row(size_t(cols), 0.0);
        for (int64_t k = 0; k < rows; ++k) {
          const double s = sign(left, r, k) / std::sqrt(double(rows)) * double(SV[module][size_t(r)]);
          for (int64_t c = 0; c < cols; ++c) row[size_t(c)] += s * turned[size_t(k * cols + c)];
        }
        part.matrix.insert(part.matrix.end(), row.begin(), row.end());
      }
    }
  }

  const TinyModel& model_;
  QuipOptions options_;
  Draw draw_;
};

}  // namespace quire
