// The network as plain loops over the written order of each op, for one sequence, on f32 weights and an f16 cache.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/math.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"
#include "tests/tiny_model.h"

namespace quire {

struct PlainNetwork {
  const TinyModel& model;
  std::vector<std::vector<float>> keys, values;  // a layer's, token after token

  const float* row(const std::string& name, int64_t r) const { return model.get(name).data.row<const float>(r); }
  // y = fma over k in order, then bias, then residual.
  std::vector<float> linear(const std::string& name, const std::vector<float>& x, bool bias,
                            const std::vector<float>* residual) const {
    const Tensor& w = model.get(name + ".weight");
    std::vector<float> y;
    for (int64_t n = 0; n < w.rows; ++n) {
      float acc = 0.0f;
      for (int64_t k = 0; k < w.cols; ++k) acc = std::fma(x[size_t(k)], w.data.row<const float>(n)[k], acc);
      if (bias) acc += row(name + ".bias", 0)[n];
      if (residual) acc += (*residual)[size_t(n)];
      y.push_back(acc);
    }
    return y;
  }
  std::vector<float> norm(const std::string& name, const std::vector<float>& x) const {
    const float inv =
        1.0f / std::sqrt(sum_of_squares(x.data(), int64_t(x.size())) / float(x.size()) + float(model.config.norm_eps));
    std::vector<float> y;
    for (size_t d = 0; d < x.size(); ++d) y.push_back(x[d] * inv * row(name + ".weight", 0)[d]);
    return y;
  }
  void rotate(float* head, int64_t position) const {
    const int64_t half = model.config.head_dim / 2;
    for (int64_t i = 0; i < half; ++i) {
      const float frequency = float(std::pow(model.config.rope_theta, -2.0 * double(i) / double(2 * half)));
      const double angle = double(float(position) * frequency);
      const float c = float(std::cos(angle)), s = float(std::sin(angle)), a = head[i], b = head[i + half];
      head[i] = a * c - b * s;
      head[i + half] = b * c + a * s;
    }
  }
  static float lane_sum(const std::vector<float>& x) {
    float lane[16] = {};
    for (size_t i = 0; i < x.size(); ++i) lane[i % 16] += x[i];
    for (int width = 8; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
    }
    return lane[0];
  }
  std::vector<float> attend(size_t layer, std::vector<float> q) const {
    const ModelConfig& c = model.config;
    const size_t dim = size_t(c.head_dim), width = size_t(c.kv_heads) * dim, length = keys[layer].size() / width;
    std::vector<float> out(q.size());
    for (size_t h = 0; h < size_t(c.heads); ++h) {
      const size_t kv = h / size_t(c.heads / c.kv_heads) * dim;
      std::vector<float> p(length);
      for (size_t t = 0; t < length; ++t) {
        for (size_t d = 0; d < dim; ++d) {
          p[t] = std::fma(q[h * dim + d] * (1.0f / std::sqrt(float(dim))), keys[layer][t * width + kv + d], p[t]);
        }
      }
      const float peak = *std::max_element(p.begin(), p.end());
      for (float& x : p) x = exp_f32(x - peak);
      for (size_t d = 0; d < dim; ++d) {
        float sum = 0.0f;
        for (size_t t = 0; t < length; ++t) sum = std::fma(p[t], values[layer][t * width + kv + d], sum);
        out[h * dim + d] = sum / lane_sum(p);
      }
    }
    return out;
  }
  std::vector<float> next(int32_t token, int64_t position) {
    const ModelConfig& c = model.config;
    const float* embedding = row("model.embed_tokens.weight", token);
    std::vector<float> h(embedding, embedding + c.hidden);
    keys.resize(size_t(c.layers)), values.resize(size_t(c.layers));
    for (int64_t l = 0; l < c.layers; ++l) {
      const std::string at = fmt::format("model.layers.{}.", l);
      const std::vector<float> x = norm(at + "input_layernorm", h);
      std::vector<float> q = linear(at + "self_attn.q_proj", x, c.attention_bias, nullptr);
      std::vector<float> k = linear(at + "self_attn.k_proj", x, c.attention_bias, nullptr);
      for (int64_t i = 0; i < c.heads; ++i) rotate(q.data() + i * c.head_dim, position);
      for (int64_t i = 0; i < c.kv_heads; ++i) rotate(k.data() + i * c.head_dim, position);
      for (const float v : k) keys[size_t(l)].push_back(f16_to_f32(f32_to_f16(v)));
      for (const float v : linear(at + "self_attn.v_proj", x, c.attention_bias, nullptr)) {
        values[size_t(l)].push_back(f16_to_f32(f32_to_f16(v)));
      }
      h = linear(at + "self_attn.o_proj", attend(size_t(l), q), c.attention_bias, &h);
      const std::vector<float> y = norm(at + "post_attention_layernorm", h);
      std::vector<float> gate = linear(at + "mlp.gate_proj", y, c.mlp_bias, nullptr);
      const std::vector<float> up = linear(at + "mlp.up_proj", y, c.mlp_bias, nullptr);
      for (size_t f = 0; f < gate.size(); ++f) gate[f] = silu(gate[f]) * up[f];
      h = linear(at + "mlp.down_proj", gate, c.mlp_bias, &h);
    }
    return linear(c.tied_embeddings ? "model.embed_tokens" : "lm_head", norm("model.norm", h), false, nullptr);
  }
};

}  // namespace quire
