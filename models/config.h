// What a network is, as its file says. Every field is checked by the readers; unknown keys that change the maths are
// refused.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace quire {

// How a model that was stretched to longer contexts turns positions into angles (models/rope_scaling.h).
struct RopeScaling {
  enum class Kind : uint8_t { none, linear, llama3, yarn, factors };
  Kind kind = Kind::none;
  double factor = 1.0;                                 // linear, llama3, yarn
  int64_t original_context = 0;                        // llama3, yarn, factors: what the model was first trained for
  double low_freq_factor = 1.0, high_freq_factor = 4;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;            // yarn
  bool truncate = true;                                // yarn: the ramp's ends are whole dims
  double amplitude = 1.0;                              // yarn, factors: cos and sin are multiplied by it
  // factors (R/2): each pair's frequency is divided by one; the long ones for contexts beyond original_context.
  std::vector<float> short_factors, long_factors;

  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  std::string family;  // "llama", ...: one small file each in models/
  std::string name;    // for people
  int64_t layers = 0, hidden = 0, ffn = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  int64_t context = 0;   // positions the model was trained for
  int64_t rope_dim = 0;  // dims of a head that are rotated; = head_dim but for some Phi 3
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  double rope_theta_windowed = 0;  // of windowed layers, which are not scaled then; 0: like the others
  double norm_eps = 1e-5;
  double norm_offset = 0;        // is added to every norm's weight as the file has it (Gemma keeps weights around 0)
  double query_scalar = 0;       // scores are divided by its square root; 0: head_dim
  bool tied_embeddings = false;  // the head is the embedding
  bool attention_bias = false;   // q, k and v have biases, and o if "...o_proj.bias" is there
  bool mlp_bias = false;         // gate, up and down have biases

  // A windowed layer's query sees the last `window` tokens, itself included; 0: there are none such. windowed: one flag
  // a layer; empty: all of them, if there is a window.
  int64_t window = 0;
  std::vector<uint8_t> windowed;

  int64_t window_of(int64_t layer) const { return windowed.empty() || windowed[size_t(layer)] != 0 ? window : 0; }

  bool operator==(const ModelConfig&) const = default;
};

}  // namespace quire
