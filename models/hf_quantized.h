// Weights that other programs quantized, in HuggingFace directories: which method a directory names, and what the
// readers of methods share. Each method is one file (hf_gptq.cpp, hf_awq.cpp, ...) with one function, in the table of
// hf_quantized.cpp. It adds the matrices its method packed, codes and scales bit for bit; the frame takes fused ones
// apart, adds what is left (norms, biases, matrices in floats) and refuses what is no part of the network.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "models/checkpoint_builder.h"
#include "models/entries.h"
#include "models/json_file.h"
#include "models/network_tensors.h"

namespace quire {

// What says that a directory is quantized, and how.
struct Quantization {
  std::string method;                   // "gptq"
  std::unique_ptr<const Json> own;      // what `json` lies in, if that is not part of config.json
  const Json* json;                     // an object; where there is no configuration, an empty one
  std::string where;                    // begins errors: "'DIR/config.json', 'quantization_config'"
  std::vector<std::string> rule_names;  // the keys of its 'dynamic', in the order of the file
};
// From config.json, the side files of older writers, or the tensors' names; empty if nothing says so. Error if the
// method is unknown, naming those that are known. `config` must outlive it.
std::optional<Quantization> find_quantization(const std::string& path, const JsonObject& config,
                                              const Entries& entries);

struct QuantizedSource {
  CheckpointBuilder& builder;
  const JsonObject& config;   // config.json
  const JsonObject& options;  // Quantization::json
  Entries& entries;
  const std::vector<std::string>& rule_names;  // Quantization::rule_names

  const ModelConfig& network() const { return builder.state().config; }
  const std::string& path() const { return builder.path(); }
  // f(module, shape) for every matrix of the network as the family's files have them: "lm_head",
  // "model.layers.0.self_attn.q_proj" (of Phi 3: qkv_proj, with the rows of all three), ..., the embedding too.
  void for_each_matrix(const std::function<void(const std::string& module, TensorShape shape)>& f) const;
  // A tensor as floats, as it lies. Used as an entry.
  void add_plain(const std::string& name) const;
};

// Every tensor of the network. `container` is completed with what the weights are.
void add_quantized_tensors(CheckpointBuilder& builder, const JsonObject& config, const Quantization& quantization,
                           Entries& entries);
// One entry as floats, if it belongs to the network: what is the same with and without quantization.
void add_plain_tensor(CheckpointBuilder& builder, const SafetensorsTensor& t);

// The methods: each adds its matrices and says in a few words what they are ("GPTQ, 4 bits, groups of 128").
std::string add_gptq_tensors(const QuantizedSource& source);
std::string add_awq_tensors(const QuantizedSource& source);
std::string add_qserve_tensors(const QuantizedSource& source);
std::string add_quarot_tensors(const QuantizedSource& source);
std::string add_spqr_tensors(const QuantizedSource& source);
std::string add_quip_tensors(const QuantizedSource& source);
bool has_qserve_tensors(const Entries& entries);  // which say it alone: QServe writes no configuration
std::string add_compressed_tensors(const QuantizedSource& source);
std::string add_fp8_tensors(const QuantizedSource& source);
std::string add_modelopt_tensors(const QuantizedSource& source);
std::string add_bitsandbytes_tensors(const QuantizedSource& source);

// ---- Shared by methods -------------------------------------------------------------------------------------------

// Numbers in an entry of type F16, BF16 or F32, however aligned.
class FloatValues {
 public:
  FloatValues(const SafetensorsTensor& t, const std::string& path);  // Error if it is of another type
  float operator[](int64_t i) const;
  int64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {bytes_, size_t(size_ * info(codec_).bits / 8)}; }

 private:
  const std::byte* bytes_;
  Codec codec_;
  int64_t size_;
};

// The same. Error also if a value is not finite.
FloatValues finite_values(const SafetensorsTensor& t, const std::string& path);
// Takes an entry of floats, of any type that they can be read from. Error unless it has this shape.
FloatValues take_values(const QuantizedSource& source, const std::string& name, const std::vector<int64_t>& shape);
// The same. Error also if a value is not finite.
FloatValues take_finite_values(const QuantizedSource& source, const std::string& name,
                               const std::vector<int64_t>& shape);
// Entries::take of an entry of floats that must be finite.
std::span<const std::byte> take_finite(const QuantizedSource& source, const std::string& name, const std::string& dtype,
                                       const std::vector<int64_t>& shape);

// A matrix of unsigned codes, value = scale * (code - zero), however its writer packs it.
struct GroupedCodes {
  int64_t rows, cols;                                              // outputs, inputs
  int bits = 8;                                                    // 2, 3, 4 or 8
  int64_t group = 0;                                               // inputs that share a scale; 0: all of a row
  std::function<void(int64_t r0, int64_t n, uint8_t* out)> codes;  // rows [r0, r0 + n), out (n, cols); of kept files
  std::function<float(int64_t r, int64_t g)> scale;
  std::function<int(int64_t r, int64_t g)> zero;
  std::vector<std::span<const std::byte>> sources;  // what these read
  int64_t block = 1;                                // rows that `codes` reads best at once
};
// Takes "MODULE.weight", I8 (rows, cols), as codes with zeros in the middle.
void set_int8_codes(const QuantizedSource& source, const std::string& module, GroupedCodes& codes);
// As the tensor "MODULE.weight": in a symmetric format if every zero is the middle, else with zeros. `input`: the order
// of columns the groups are of (`codes` are in the file's). Error if a scale is not finite or a zero out of range.
CheckpointTensor& add_grouped_codes(const QuantizedSource& source, const std::string& module, GroupedCodes codes,
                                    std::shared_ptr<const InputTransform> input = {});

// The order of inputs in which the groups of the entry `name` (the group of each input) lie together, as many in each;
// null where they do as they are. `last`: of the matrix before, given again if it is the same, since q, k and v (gate
// and up) of one writer share their order and so can share their x.
std::shared_ptr<const InputTransform> group_order(const QuantizedSource& source, const std::string& name,
                                                  int64_t inputs, int64_t group,
                                                  std::shared_ptr<const InputTransform>& last);

// Code i of a stream of `bits`-bit codes, lowest bits of 32-bit words first; word(w) gives word w.
template <class Word>
int stream_code(int64_t i, int bits, Word&& word) {
  const int64_t bit = i * bits, w = bit / 32;
  const int shift = int(bit % 32);
  uint32_t v = word(w) >> shift;
  if (shift + bits > 32) v |= word(w + 1) << (32 - shift);
  return int(v & ((1u << bits) - 1));
}
uint32_t load_word(const std::byte* words, int64_t i);  // 32-bit word i, however aligned

}  // namespace quire
