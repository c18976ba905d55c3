// A model file or directory, opened: configuration, tokenizer and tensors as views of mapped memory, under HuggingFace
// names
// ("model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
// whatever the container. Codes and scales are the file's, bit for bit; only where they lie may change (GGUF's q
// and k, other writers' packings). Not thread safe: tensors that do not lie in the file as they are needed are made
// when they are asked for.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/sink.h"
#include "kernels/sparse.h"
#include "models/config.h"
#include "models/tokenizer_data.h"
#include "quant/scheme.h"

namespace quire {

// What its writer does to x (T, K) before it meets the tensor's columns: they are put in another order (GPTQ's
// act-order, where columns of one group do not lie together), then multiplied one by one (QuIP#), then every `hadamard`
// of them are transformed (QuaRot, QuIP#).
struct InputTransform {
  std::vector<int32_t> order;   // column c of the tensor belongs to column order[c] of x; empty: as they are
  std::vector<float> diagonal;  // (K), in the tensor's order of columns; empty: all 1
  int64_t hadamard = 0;         // order of the transform; 0: none
  bool transposed = false;      // by the transposed matrix
  std::vector<int8_t> signs;    // its K x K factor as the file gives it; empty: that of kernels/hadamard.h
  int64_t bytes() const { return int64_t(order.size() * sizeof(int32_t) + diagonal.size() * sizeof(float)); }
  bool operator==(const InputTransform&) const = default;
};

// What its writer does to the product (T, N) of a matrix, of which tensors may be parts (QuIP#'s q, k and v): a
// Hadamard transform over all N outputs, then each is multiplied. So the parts can only run together.
struct OutputTransform {
  std::vector<float> diagonal;  // (N)
  int64_t bytes() const { return int64_t(diagonal.size() * sizeof(float)); }
};

struct CheckpointTensor {
  std::string name;         // HuggingFace name
  std::string source_name;  // as in the file
  Tensor tensor;            // (rows, cols); vectors are (1, n)
  // What the method that quantized it makes of x; empty: what the format suggests (linear.h, activation_format).
  std::optional<Format> activation = {};
  float input_scale = 0.0f;                          // of activations whose scale is static; 0: found at run time
  float outlier_threshold = 0.0f;                    // int8 activations this large stay halfs (LLM.int8()); 0: none do
  std::shared_ptr<const InputTransform> input = {};  // null: x as it is
  std::shared_ptr<const OutputTransform> output = {};  // null: the product as it is; one for all parts of a matrix
  int64_t output_row = 0;                              // the tensor's first row in that matrix
  int64_t outliers = 0;                                // f16 values that are added to its own: Checkpoint::outliers
};

class Checkpoint {
 public:
  // path: a .gguf file, or a directory with config.json and safetensors. Error says what is wrong with it and where; of
  // its tokenizer too, unless it is opened to be looked at.
  static Checkpoint open(const std::string& path, bool tokenizer_needed = true);
  Checkpoint(Checkpoint&&) noexcept;
  ~Checkpoint();

  const ModelConfig& config() const;
  const TokenizerData& tokenizer() const;
  const std::string& container() const;  // "GGUF v3", "safetensors"
  // What the directory was made for: by `quire quantize`, its weight formats and the activations and cache it should
  // run with; by others that name a cache, a native scheme with that cache.
  const std::optional<Scheme>& stored_scheme() const;
  // Set if there are no data: the seed that a SliceReader makes them from (dummy.h). Views then point nowhere.
  const std::optional<uint64_t>& dummy() const;
  const std::vector<KvScale>& cache_scales() const;  // of a static cache, by layer; empty: none are known
  const std::vector<CheckpointTensor>& tensors() const;
  const std::vector<CheckpointTensor>& list() const;  // the same, for names, formats and shapes only: may have no data
  const CheckpointTensor* find(const std::string& name) const;  // null if absent
  const Tensor& get(const std::string& name) const;             // Error names what is missing
  SparseMatrix outliers(const std::string& name) const;         // made anew; one without entries where there are none
  // Rows row0.. of it, good until the next call. Where they have to be copied (misaligned in the file, in another order
  // there) only these are, while get() would copy all.
  Tensor rows(const std::string& name, int64_t row0, int64_t n) const;
  bool copied_by_rows(const std::string& name) const;
  bool has(const std::string& name) const;
  // For its format and shape only: may have no data. Error names what is missing.
  const CheckpointTensor& listed(const std::string& name) const;
  // These bytes need not stay in memory: what lies in a mapped file is read from it again when it is needed.
  void release(const Tensor& view) const;
  // The same for a whole tensor, also if it had to be made: views of it are invalid from then on, and get() makes it
  // again.
  void release(const std::string& name) const;
  const std::vector<std::pair<std::string, std::string>>& metadata() const;  // key, printable value (long ones cut)

 private:
  friend class CheckpointBuilder;
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace quire
