// Directories that other programs quantized, damaged: what they wrote themselves, and what their layouts say.
#include "tests/decode_all.h"
#include "tests/fuzz/target.h"
#include "tests/models/fused_model.h"
#include "tests/models/golden_quantized.h"
#include "tests/models/quantized_model.h"
#include "tests/models/quantized_values.h"
#include "tests/models/quip_directory.h"

namespace quire::fuzz {

namespace {

// Opens the directory and decodes every row; its tokenizer is too small to encode with.
bool run_quantized(std::string_view input) {
  const std::string directory = put_bundle(input);
  return accepted([&] {
    const Checkpoint checkpoint = Checkpoint::open(directory);
    decode_all(checkpoint);
    promise(
        checkpoint.cache_scales().empty() || int64_t(checkpoint.cache_scales().size()) == checkpoint.config().layers,
        "each layer has its cache scales");
  });
}

std::vector<std::string> seeds_of(std::initializer_list<const char*> names) {
  const TempDir dir;
  std::vector<std::string> seeds;
  for (const char* name : names) seeds.push_back(bundle_directory(GoldenQuantized::get().write(name, dir.file(name))));
  return seeds;
}
std::vector<std::string> compressed_seeds() {
  return seeds_of({"w8a8-static", "w8a8-asym", "w4a16", "w4a8", "w3a16", "fp8-block", "fp8-kv"});
}
std::vector<std::string> fp8_seeds() { return seeds_of({"deepseek-fp8", "modelopt-fp8"}); }
std::vector<std::string> bitsandbytes_seeds() { return seeds_of({"bnb-int8", "bnb-nf4-double", "bnb-fp4"}); }

std::vector<std::string> quip_seeds() {
  const TempDir dir;
  const TinyModel model = make_tiny_model(
      {.layers = 1, .hidden = 64, .ffn = 64, .heads = 4, .kv_heads = 4, .embedding = id<F16>, .matrices = id<F16>});
  std::vector<std::string> seeds;
  for (const int bits : {2, 3, 4}) {
    QuipWriter(model, {bits}).write(dir.file(std::to_string(bits)));
    seeds.push_back(bundle_directory(dir.file(std::to_string(bits))));
  }
  return seeds;
}

std::vector<std::string> written_words() {
  return {"\"quantization_config\"",
          "\"config_groups\"",
          "\"compressed-tensors\"",
          "\"num_bits\"",
          "\"group_size\"",
          "\"strategy\"",
          "\"block_structure\"",
          "\"channel\"",
          "\"kv_cache_scheme\"",
          "\"pack-quantized\"",
          "\"re:.*\"",
          "(a*)*",
          "\"ignore\"",
          "\"symmetric\"",
          "\"actorder\"",
          "\"weight_block_size\"",
          "\"quant_algo\"",
          "weight_packed",
          "weight_scale",
          "weight_zero_point",
          "weight_g_idx",
          "input_scale",
          "k_scale",
          "SCB",
          "absmax",
          "nested_absmax",
          "quant_map",
          "blocksize",
          "F8_E4M3",
          "\"quip_params\"",
          "\"codebook_version\"",
          "\"resid_scale_override\"",
          "\"E8P12RVQ4B\"",
          "upgate_proj",
          "Qidxs",
          "fuse_scales",
          "I64",
          "I32",
          "false",
          "null"};
}

// ---- Written here, by their layouts

std::vector<std::string> quantized_words() {
  std::vector<std::string> words = directory_words();
  for (const char* word : {"\"quant_method\"", "\"bits\"",     "\"group_size\"", "\"checkpoint_format\"",
                           "\"dynamic\"",      "\"desc_act\"", "\"gptq\"",       "\"gptq_v2\"",
                           "\"awq\"",          "\"version\"",  "\"qserve\"",     "\"s2_order\"",
                           "\"spqr\"",         "\"I32\"",      "\"I64\"",        "qweight",
                           "qzeros",           "scales",       "g_idx",          "in_perm",
                           "had_rem_dim",      "row_offsets"})
    words.emplace_back(word);
  return words;
}

// Of what other programs quantize.
const TinyModelOptions kSmallestTiled{.layers = 1,
                                      .hidden = 32,
                                      .ffn = 32,
                                      .heads = 2,
                                      .kv_heads = 2,
                                      .context = 64,
                                      .embedding = id<F16>,
                                      .matrices = id<F16>};
TinyModel smallest_tiled() { return make_tiny_model(kSmallestTiled); }

// Phi 3's modules are fused.
std::string fused_seed() {
  const TempDir dir;
  const TinyModel model = make_fused_model(kSmallestTiled);
  nlohmann::ordered_json config = phi3_config(model);
  config["quantization_config"] = {
      {"quant_method", "gptq"}, {"bits", 4}, {"group_size", 16}, {"checkpoint_format", "gptq_v2"}};
  Draw draw;
  write_directory(model, dir.file("q"), config,
                  [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
                    write_gptq(w, module, draw_matrix(draw, rows, cols, {4, 16, false, true}), 0, true);
                    return std::vector<float>(size_t(rows * cols));
                  });
  return bundle_directory(dir.file("q"));
}

std::vector<std::string> gptq_seeds() {
  const TempDir dir;
  std::vector<std::string> seeds;
  for (const int bits : {4, 3, 8}) {
    const DrawOptions o{bits, 16, bits == 8, bits == 3};
    const nlohmann::ordered_json config = {{"quant_method", "gptq"},
                                           {"bits", bits},
                                           {"group_size", 16},
                                           {"checkpoint_format", "gptq_v2"},
                                           {"dynamic", {{"-:lm_head", nlohmann::ordered_json::object()}}}};
    const std::string path = dir.file(std::to_string(bits));
    write_quantized_hf(
        smallest_tiled(), path, config, [&](const std::string&) { return o; },
        [](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
          write_gptq(w, module, m, 0, true);
        });
    seeds.push_back(bundle_directory(path));
  }
  seeds.push_back(fused_seed());
  return seeds;
}

std::vector<std::string> awq_seeds() {
  const TempDir dir;
  const DrawOptions o{4, 32, false, false};
  std::vector<std::string> seeds;
  for (const char* version : {"gemm", "gemv"}) {
    const nlohmann::ordered_json config = {
        {"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"version", version}};
    const bool gemv = std::string(version) == "gemv";
    write_quantized_hf(
        smallest_tiled(), dir.file(version), config, [&](const std::string&) { return o; },
        [&](SafetensorsWriter& w, const std::string& module, const DrawnMatrix& m) {
          gemv ? write_awq_gemv(w, module, m, 4) : write_awq_gemm(w, module, m);
        });
    seeds.push_back(bundle_directory(dir.file(version)));
  }
  return seeds;
}

struct ValuesKind {
  nlohmann::ordered_json config;  // beside what tiny_hf_config() gives
  WriteValues put;
};
std::vector<std::string> values_seeds(const std::vector<ValuesKind>& kinds) {
  const TempDir dir;
  const TinyModel model = smallest_tiled();
  std::vector<std::string> seeds;
  for (const ValuesKind& kind : kinds) {
    nlohmann::ordered_json config = tiny_hf_config(model);
    config.update(kind.config);
    const std::string path = dir.file(std::to_string(seeds.size()));
    write_directory(model, path, config, kind.put);
    seeds.push_back(bundle_directory(path));
  }
  return seeds;
}

std::vector<std::string> qserve_seeds() {
  Draw draw;
  ValuesKind groups, channels, bytes;
  groups.config = nlohmann::ordered_json::object();
  groups.put = [&](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
    return put_groups(w, m, rows, cols, draw, false);
  };
  channels.config["quantization_config"]["quant_method"] = "qserve";
  channels.put = [&](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
    return put_channels(w, m, rows, cols, draw);
  };
  bytes.config = nlohmann::ordered_json::object();
  bytes.put = [&](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
    return put_bytes(w, m, rows, cols, draw);
  };
  return values_seeds({groups, channels, bytes});
}

std::vector<std::string> quarot_seeds() {
  Draw draw;
  ValuesKind kind;
  kind.config["model_type"] = "llama_quarot";
  kind.config["architectures"] = {"QuarotLlamaForCausalLM"};
  kind.put = [&](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
    const bool down = m.ends_with("down_proj"), o = m.ends_with("o_proj");
    return put_quarot(w, m + (down ? ".2" : o ? ".1" : ""), rows, cols, draw);
  };
  return values_seeds({kind});
}

std::vector<std::string> spqr_seeds() {
  Draw draw;
  std::vector<ValuesKind> kinds;
  for (const bool interleaved : {false, true}) {
    ValuesKind kind;
    kind.config["quantization_config"]["quant_method"] = "spqr";
    kind.put = [&draw, interleaved](SafetensorsWriter& w, const std::string& m, int64_t rows, int64_t cols) {
      return put_spqr(w, m, rows, cols, draw, {interleaved, interleaved});
    };
    kinds.push_back(kind);
  }
  return values_seeds(kinds);
}

}  // namespace

std::vector<Target> quantized_targets() {
  constexpr size_t kHeap = 16 << 20;
  return {{"compressed_tensors", run_quantized, compressed_seeds, written_words(), 1000, kHeap},
          {"fp8", run_quantized, fp8_seeds, written_words(), 500, kHeap},
          {"bitsandbytes", run_quantized, bitsandbytes_seeds, written_words(), 700, kHeap},
          {"gptq", run_directory, gptq_seeds, quantized_words(), 500, kHeap},
          {"awq", run_directory, awq_seeds, quantized_words(), 500, kHeap},
          {"qserve", run_directory, qserve_seeds, quantized_words(), 500, kHeap},
          {"quarot", run_directory, quarot_seeds, quantized_words(), 500, kHeap},
          {"spqr", run_directory, spqr_seeds, quantized_words(), 500, kHeap},
          {"quip", run_quantized, quip_seeds, written_words(), 500, kHeap}};
}

}  // namespace quire::fuzz
