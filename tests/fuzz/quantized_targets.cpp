// Directories that other programs quantized: what they wrote themselves, damaged.
#include "tests/fuzz/target.h"
#include "tests/models/golden_quantized.h"

namespace quire::fuzz {

namespace {

// Opens the directory and decodes every row; its tokenizer is too small to encode with.
bool run_quantized(std::string_view input) {
  const std::string directory = put_bundle(input);
  return accepted([&] {
    const Checkpoint checkpoint = Checkpoint::open(directory);
    std::vector<float> row;
    for (const CheckpointTensor& t : checkpoint.tensors()) {
      row.resize(size_t(t.tensor.cols));
      for (int64_t r = 0; r < t.tensor.rows; ++r)
        info(t.tensor.codec).decode(t.tensor, r, 0, t.tensor.cols, row.data());
    }
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

std::vector<std::string> words() {
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
          "I32",
          "false",
          "null"};
}

}  // namespace

std::vector<Target> quantized_targets() {
  constexpr size_t kHeap = 16 << 20;
  return {{"compressed_tensors", run_quantized, compressed_seeds, words(), 1000, kHeap},
          {"fp8", run_quantized, fp8_seeds, words(), 500, kHeap},
          {"bitsandbytes", run_quantized, bitsandbytes_seeds, words(), 700, kHeap}};
}

}  // namespace quire::fuzz
