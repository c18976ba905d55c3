#include "models/hf_config.h"

#include <cmath>

#include "base/error.h"
#include "base/printable.h"
#include "models/neutral_key.h"

namespace quire {

namespace {

// What LlamaForCausalLM itself does not know has no effect there and none here.
constexpr NeutralKey kNeutralKeys[] = {
    {"sliding_window", {0, 0}},
    {"num_experts", {0, 0}},
    {"num_local_experts", {0, 0}},
    {"n_routed_experts", {0, 0}},
    {"num_experts_per_tok", {0, 0}},
    {"attn_logit_softcapping", {0, 0}},
    {"final_logit_softcapping", {0, 0}},
    {"embedding_multiplier", {1, 1}},
    {"attention_multiplier", {0, 0}},
    {"residual_multiplier", {1, 1}},
    {"logits_scaling", {1, 1}},
    {"logit_scale", {1, 1}},
    {"partial_rotary_factor", {1, 1}},
    {"query_pre_attn_scalar", {0, 0}},
    {"rope_interleaved", {0, 0}},
    {"use_qk_norm", {0, 0}},
    {"qk_norm", {0, 0}},
    {"clip_qkv", {0, 0}},
    {"alibi", {0, 0}},
    {"is_encoder_decoder", {0, 0}},
    {"use_parallel_residual", {0, 0}},
    {"parallel_residual", {0, 0}},
    {"scale_embeddings", {0, 0}},
};

void check_architecture(const JsonObject& o) {
  const Json* architectures = o.array("architectures");
  const std::string type = o.text("model_type").value_or("");
  const bool named = architectures && architectures->size() == 1 && (*architectures)[0] == "LlamaForCausalLM";
  check(named || (!architectures && type == "llama"),
        "{}: architecture {} (model_type '{}') is not supported; LlamaForCausalLM is", o.where(),
        architectures ? printable_json(*architectures) : "unnamed", printable(type));
  check(type == "llama" || type.empty(), "{}: model_type '{}' is not supported; 'llama' is", o.where(),
        printable(type));
  check(!o.find("auto_map"), "{}: 'auto_map' asks for the model's own Python code, which cannot run here", o.where());
  if (const auto quantization = o.object("quantization_config")) {
    const std::string method = quantization->text("quant_method").value_or("unnamed");
    check(method == "quire",
          "{}: weights quantized by '{}' cannot be read yet; f16, bf16 and f32 directories, GGUF files and what "
          "`quire quantize` writes can",
          o.where(), printable(method));
  }
}

void check_neutral(const JsonObject& o) {
  for (const NeutralKey& n : kNeutralKeys) {
    const Json* v = o.find(std::string(n.key));
    if (!v) continue;
    const double x = v->is_boolean() ? double(v->get<bool>()) : v->is_number() ? v->get<double>() : NAN;
    check(n.allows(x), "{}: '{}' = {} changes the network in a way that is not supported", o.where(), n.key,
          printable_json(*v));
  }
  const std::string act = o.text("hidden_act").value_or("silu");
  check(act == "silu" || act == "swish", "{}: hidden_act '{}' is not supported; 'silu' is", o.where(), printable(act));
  if (const Json* types = o.array("layer_types")) {
    for (const Json& type : *types) {
      check(type == "full_attention", "{}: a layer of type {} is not supported; \"full_attention\" is", o.where(),
            printable_json(type));
    }
  }
}

// rope_scaling (older) or rope_parameters (newer, which holds rope_theta too).
double read_rope(const JsonObject& o) {
  double theta = o.number("rope_theta").value_or(10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = o.object(key);
    if (!rope) continue;
    const std::string type = rope->text("rope_type").value_or(rope->text("type").value_or("default"));
    check(type == "default", "{}: rope scaling '{}' is not supported", rope->where(), printable(type));
    const double part = rope->number("partial_rotary_factor").value_or(1.0);
    check(part == 1.0, "{}: rotating {} of a head is not supported", rope->where(), part);
    if (const auto inner = rope->number("rope_theta")) {
      check(!o.find("rope_theta") || *inner == theta, "{}: rope_theta is {} here and {} outside", rope->where(), *inner,
            theta);
      theta = *inner;
    }
  }
  return theta;
}

}  // namespace

ModelConfig read_hf_config(const JsonObject& o) {
  check_architecture(o);
  check_neutral(o);
  ModelConfig c;
  c.family = "llama";
  c.name = o.text("_name_or_path").value_or("");
  c.hidden = o.needed_integer("hidden_size");
  c.ffn = o.needed_integer("intermediate_size");
  c.layers = o.needed_integer("num_hidden_layers");
  c.heads = o.needed_integer("num_attention_heads");
  c.vocab = o.needed_integer("vocab_size");
  c.kv_heads = o.integer("num_key_value_heads").value_or(c.heads);
  check(c.heads > 0, "{}: num_attention_heads is {}", o.where(), c.heads);
  const auto head_dim = o.integer("head_dim");
  check(head_dim || c.hidden % c.heads == 0, "{}: {} dimensions do not divide into {} heads", o.where(), c.hidden,
        c.heads);
  c.head_dim = c.rope_dim = head_dim ? *head_dim : c.hidden / c.heads;
  // The defaults are those of transformers' LlamaConfig.
  c.context = o.integer("max_position_embeddings").value_or(2048);
  c.norm_eps = o.number("rms_norm_eps").value_or(1e-6);
  c.tied_embeddings = o.boolean("tie_word_embeddings").value_or(false);
  c.attention_bias = o.boolean("attention_bias").value_or(false);
  c.mlp_bias = o.boolean("mlp_bias").value_or(false);
  c.rope_theta = read_rope(o);
  return c;
}

}  // namespace quire
