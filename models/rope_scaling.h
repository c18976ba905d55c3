// Frequencies of the rotary embedding for models whose context was stretched.
#pragma once
#include "models/config.h"

namespace quire {

// (R/2) for a context of so many positions. linear: position interpolation (arXiv 2306.15595); llama3: Llama 3.1 (arXiv
// 2407.21783; low frequencies divided by `factor`, high ones kept); yarn: arXiv 2309.00071; factors: LongRoPE (arXiv
// 2402.13753). LongRoPE's choice between its two lists is made once, by the context a model is run with, so that a
// token's rotation does not change while its sequence grows.
std::vector<float> scaled_rope_frequencies(const RopeScaling& scaling, int64_t rope_dim, double theta, int64_t context);

// YaRN's amplitude for a factor, where a file names none.
double yarn_amplitude(double factor, double scale = 1.0);
// LongRoPE's.
double longrope_amplitude(double factor, int64_t original_context);

// LongRoPE's factors are chosen once, for a context, and the long ones cost accuracy in short texts: the context that
// is used where none is asked for is the original one.
bool has_longer_rope(const ModelConfig& config);
int64_t usual_context(const ModelConfig& config);

}  // namespace quire
