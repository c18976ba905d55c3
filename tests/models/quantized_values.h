// QServe, QuaRot and SpQR directories of the tiny model, written straight from the description of their layouts. Each
// put_*() draws a module's entries and gives the values they mean, (rows, cols).
#pragma once
#include <functional>
#include <map>

#include "tests/models/quantized_directory.h"

namespace quire {

using Values = std::map<std::string, std::vector<float>>;  // (rows, cols) of modules, row after row

// Writes the tiny model with its linears as `module` gives them (values of (rows, cols)), and the same in floats.
using WriteValues = std::function<std::vector<float>(SafetensorsWriter&, const std::string&, int64_t, int64_t)>;
inline Values write_directory(
    const TinyModel& model, const std::string& path, const nlohmann::ordered_json& config, const WriteValues& module,
    const std::function<bool(const std::string&)>& kept = [](const std::string&) { return true; }) {
  Values values;
  write_tiny_hf(model, path);
  write_tiny_hf(model, path + "-floats");
  SafetensorsWriter quantized, floats;
  for (const TinyTensor& t : model.tensors) {
    const Tensor& x = t.weight.tensor;
    const std::vector<int64_t> shape = x.rows > 1 ? std::vector<int64_t>{x.rows, x.cols} : std::vector<int64_t>{x.cols};
    if (x.rows == 1 || t.name.find("layers") == std::string::npos) {
      if (kept(t.name)) quantized.tensor(t.name, safetensors_type_of(x.codec), shape, bytes_of(x));
      floats.tensor(t.name, safetensors_type_of(x.codec), shape, bytes_of(x));
      continue;
    }
    const std::string name = module_of(t.name);
    values[name] = module(quantized, name, x.rows, x.cols);
    floats.tensor(t.name, "F32", shape, raw_bytes(values[name]));
  }
  quantized.shift = 3;
  write_file(path + "/config.json", config.dump());
  write_file(path + "/model.safetensors", quantized.file());
  write_file(path + "-floats/model.safetensors", floats.file());
  return values;
}

inline std::string tiles(const std::vector<int>& codes, int64_t rows, int64_t cols) {
  std::string out(size_t(rows * cols / 2), '\0');
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < cols; ++k) {
      const int64_t i = r % 32, j = k % 32;
      const int64_t a = i / 16, b = i / 8 % 2, l = i % 8, d = j / 16, e = j / 4 % 4, f = j % 4;
      const int64_t byte = (r / 32 * (cols / 32) + k / 32) * 512 + 64 * l + 16 * e + 8 * d + 4 * b + f;
      out[size_t(byte)] |= char(codes[size_t(r * cols + k)] << (a == 0 ? 0 : 4));
    }
  }
  return out;
}

inline std::vector<float> put_channels(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                       Draw& draw) {
  std::vector<int> codes;
  std::vector<uint16_t> s1, szeros;
  std::vector<float> values;
  for (int64_t r = 0; r < rows; ++r) {
    s1.push_back(f32_to_f16(float(1 + draw(100)) * 1e-4f));
    szeros.push_back(f32_to_f16(f16_to_f32(s1.back()) * float(draw(16))));
    for (int64_t c = 0; c < cols; ++c) {
      codes.push_back(int(draw(16)));
      values.push_back(f16_to_f32(s1.back()) * float(codes.back()) - f16_to_f32(szeros.back()));
    }
  }
  w.tensor(module + ".qweight", "I8", {rows, cols / 2}, tiles(codes, rows, cols));
  w.tensor(module + ".s1_scales", "F16", {rows}, raw_bytes(s1));
  w.tensor(module + ".s1_szeros", "F16", {rows}, raw_bytes(szeros));
  return values;
}

inline std::vector<float> put_bytes(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                    Draw& draw) {
  std::string codes;
  std::vector<uint16_t> scales;
  std::vector<float> values;
  for (int64_t r = 0; r < rows; ++r) {
    scales.push_back(f32_to_f16(float(1 + draw(100)) * 1e-5f));
    for (int64_t c = 0; c < cols; ++c) {
      codes.push_back(char(int(draw(256)) - 128));
      values.push_back(f16_to_f32(scales.back()) * float(int8_t(codes.back())));
    }
  }
  w.tensor(module + ".weight", "I8", {rows, cols}, codes);
  w.tensor(module + ".dequant_scale", "F16", {rows}, raw_bytes(scales));
  return values;
}

// The order that lists where outputs of 32 lie, as the writers spell it: position p holds output order[p].
inline std::vector<int> second_order(bool deepcompressor) {
  if (!deepcompressor) {
    std::vector<int> order;
    for (int l = 0; l < 8; ++l) order.insert(order.end(), {l, 8 + l, 16 + l, 24 + l});
    return order;
  }
  return {0,  8,  1,  9,  2,  10, 3,  11, 4,  12, 5,  13, 6,  14, 7,  15,
          16, 24, 17, 25, 18, 26, 19, 27, 20, 28, 21, 29, 22, 30, 23, 31};
}

constexpr int64_t kQserveGroup = 32;
inline std::vector<float> put_groups(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                     Draw& draw, bool deepcompressor) {
  const int64_t groups = cols / kQserveGroup;
  std::vector<int> codes(size_t(rows * cols), 0);
  std::vector<uint16_t> s1;
  std::string s2(size_t(groups * rows), '\0'), b(s2);
  std::vector<float> values;
  const std::vector<int> order = second_order(deepcompressor);
  for (int64_t r = 0; r < rows; ++r) {
    s1.push_back(f32_to_f16(float(1 + draw(100)) * 1e-5f));
    for (int64_t g = 0; g < groups; ++g) {
      // One group of each output spans all that QoQ allows; its largest code would leave int8, and is not used.
      const bool wide = g == (r * 7 + r / 8) % groups;
      const int step = wide ? 16 : int(1 + draw(5)), zero = wide ? 7 : int(draw(16));
      const auto place = std::find(order.begin(), order.end(), int(r % 32)) - order.begin();
      s2[size_t(g * rows + r / 32 * 32 + place)] = char(step);
      b[size_t(g * rows + r / 32 * 32 + place)] = char(-zero * step);
      for (int64_t c = g * kQserveGroup; c < (g + 1) * kQserveGroup; ++c) {
        const int code = wide && c % kQserveGroup == 0 ? 0 : int(draw(wide ? 15 : 16));
        codes[size_t(r * cols + c)] = code;
        values.push_back(f16_to_f32(s1.back()) * float(int8_t(uint8_t(code * step - zero * step))));
      }
    }
  }
  w.tensor(module + ".qweight", "I8", {rows, cols / 2}, tiles(codes, rows, cols));
  w.tensor(module + ".s1_scales", "F16", {rows}, raw_bytes(s1));
  w.tensor(module + ".s2_scales", "I8", {groups, rows}, s2);
  w.tensor(module + ".s2_zeros", "I8", {groups, rows}, b);
  return values;
}

inline std::vector<float> put_quarot(SafetensorsWriter& w, const std::string& name, int64_t rows, int64_t cols,
                                     Draw& draw) {
  std::string bytes(size_t(rows * cols / 2), '\0');
  std::vector<uint16_t> scales;
  std::vector<float> values;
  for (int64_t r = 0; r < rows; ++r) {
    scales.push_back(f32_to_f16(float(1 + draw(100)) * 1e-3f));
    for (int64_t c = 0; c < cols; ++c) {
      const int code = int(draw(16)) - 8;
      bytes[size_t((r * cols + c) / 2)] |= char((code & 15) << (c % 2 * 4));
      values.push_back(f16_to_f32(scales.back()) * float(code));
    }
  }
  w.tensor(name + ".weight", "U8", {rows, cols / 2}, bytes);
  w.tensor(name + ".weight_scales", "F16", {rows, 1}, raw_bytes(scales));
  return values;
}

inline float half(float x) { return f16_to_f32(f32_to_f16(x)); }

// How many outliers the rows of a matrix have: none, up to two, half of all columns, or that in one row alone.
enum class SpqrOutliers { none, few, many, one_row };
struct SpqrOptions {
  bool interleaved = false, permuted = false;
  SpqrOutliers outliers = SpqrOutliers::few;
};
inline std::vector<float> put_spqr(SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols,
                                   Draw& draw, const SpqrOptions& o = {}) {
  std::vector<float> values(size_t(rows * cols), 0.0f);
  std::vector<uint64_t> words;
  for (int64_t i = 0; i < rows; i += 16) {
    for (int64_t j = 0; j < cols; j += 16) {
      const uint16_t second[4] = {f32_to_f16(float(1 + draw(99)) * 1e-4f), f32_to_f16(float(1 + draw(99)) * 1e-2f),
                                  f32_to_f16(-float(draw(99)) * 1e-1f), f32_to_f16(float(draw(99)) * 1e-2f)};
      uint64_t all = 0;
      for (int p = 0; p < 4; ++p) all |= uint64_t(second[p]) << (16 * p);
      for (int64_t k = 0; k < 16; ++k) {
        const uint32_t cs = draw(8), cz = draw(8);
        const float s = half(f16_to_f32(second[0]) * half(float(cs) - f16_to_f32(second[2])));
        const float z = half(f16_to_f32(second[1]) * half(float(cz) - f16_to_f32(second[3])));
        uint64_t word = cs | cz << 3 | (all >> (8 * (k / 2)) & 0xFF) << 54;
        for (int64_t c = 0; c < 16; ++c) {
          const uint32_t q = draw(8);
          word |= uint64_t(q) << (6 + 3 * c);
          if (j + c < cols) values[size_t((i + k) * cols + j + c)] = half(s * half(float(q) - z));
        }
        words.push_back(word);
      }
    }
  }
  // Outliers: rows one after the other, or 16 rows side by side, padded with zeros.
  std::vector<std::vector<uint32_t>> of_row(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) {
    int64_t count = o.outliers == SpqrOutliers::few ? draw(3) : 0, step = 5;
    if (o.outliers == SpqrOutliers::many || (o.outliers == SpqrOutliers::one_row && r == 5)) count = cols / 2, step = 2;
    for (int64_t e = 0; e < count; ++e) {
      const uint32_t c = uint32_t(e * step + draw(uint32_t(step)));
      const uint16_t v = f32_to_f16(float(1 + draw(200)) * 1e-2f - 1.005f);
      of_row[size_t(r)].push_back(c | uint32_t(v) << 16);
      values[size_t(r * cols + c)] += f16_to_f32(v);
    }
  }
  std::vector<int32_t> offsets = {0};
  std::vector<uint32_t> entries;
  for (int64_t r = 0; r < rows; r += o.interleaved ? 16 : 1) {
    size_t most = of_row[size_t(r)].size();
    for (int64_t i = 0; o.interleaved && i < 16; ++i) most = std::max(most, of_row[size_t(r + i)].size());
    for (size_t e = 0; e < most; ++e) {
      for (int64_t i = 0; i < (o.interleaved ? 16 : 1); ++i) {
        const std::vector<uint32_t>& row = of_row[size_t(r + i)];
        entries.push_back(e < row.size() ? row[e] : 0);
      }
    }
    offsets.push_back(int32_t(entries.size()));
  }
  w.tensor(module + ".dense_weights", "I64", {int64_t(words.size())}, raw_bytes(words));
  w.tensor(module + ".row_offsets", "I32", {int64_t(offsets.size())}, raw_bytes(offsets));
  w.tensor(module + ".col_vals", "I32", {int64_t(entries.size())}, raw_bytes(entries));
  if (!o.permuted) return values;
  // Column c of the matrix is for column perm[c] of x.
  std::vector<float> moved(values.size());
  std::vector<uint16_t> perm;
  for (int64_t c = 0; c < cols; ++c)
    perm.push_back(uint16_t((c * 5 + 3) % cols));  // 5 has no factor in common with cols
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) moved[size_t(r * cols + perm[size_t(c)])] = values[size_t(r * cols + c)];
  }
  w.tensor(module + ".in_perm", "I32", {cols / 2}, raw_bytes(perm));
  return moved;
}

}  // namespace quire
