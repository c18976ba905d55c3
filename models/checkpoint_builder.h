// What the readers share: where a checkpoint is put together and checked. Internal to the readers.
#pragma once
#include <functional>
#include <unordered_map>

#include "base/mapped_file.h"
#include "models/checkpoint.h"
#include "quant/storage.h"

namespace quire {

struct Checkpoint::State {
  ModelConfig config;
  TokenizerData tokenizer;
  std::string container;
  std::optional<Scheme> stored_scheme;
  std::vector<CheckpointTensor> tensors;
  std::unordered_map<std::string, size_t> by_name;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<MappedFile> files;  // what views point into
  std::vector<Buffer> buffers;    // what had to be copied because it was misaligned
  // Tensors whose rows (of a vector: elements) come in another order than in the file: put together when asked for.
  struct Reordered {
    const std::byte* source;
    int64_t count, bytes;                      // rows, and of one row
    std::function<int64_t(int64_t)> place_of;  // where row r lies in the file
    Buffer buffer;
  };
  std::unordered_map<size_t, Reordered> reordered;  // by index in tensors

  void release(const std::byte* bytes, size_t size) const;  // if they lie in a file
};

class CheckpointBuilder {
 public:
  explicit CheckpointBuilder(std::string path);
  const std::string& path() const { return path_; }
  Checkpoint::State& state() { return *state_; }

  // A tensor whose rows lie one after the other at `bytes` (of a kept file); copied only if it is not aligned for its
  // type.
  void add(std::string name, std::string source_name, Codec codec, int64_t rows, int64_t cols, const std::byte* bytes);
  // The same with row r (of a vector: element r) taken from place_of(r) of the file.
  void add_reordered(std::string name, std::string source_name, Codec codec, int64_t rows, int64_t cols,
                     const std::byte* bytes, bool vector, std::function<int64_t(int64_t)> place_of);
  // Any tensor, whose planes point into kept files or at what aligned() gave.
  void add(std::string name, std::string source_name, const Tensor& t);
  // The bytes themselves, or a copy that is kept if they are not aligned.
  const std::byte* aligned(const std::byte* bytes, size_t size, size_t alignment);
  // Every tensor belongs to the network and has its shape, and none is missing. To be called before the tokenizer is
  // read: from here on the configuration's sizes are bounded by the file's.
  void check_tensors() const;
  // Checks the tokenizer against the configuration. The builder is empty afterwards.
  Checkpoint finish();

 private:
  static Tensor view(Codec codec, int64_t rows, int64_t cols, const std::byte* bytes);
  std::byte* own(size_t bytes);

  std::string path_;
  std::unique_ptr<Checkpoint::State> state_;
};

// What `quantize` appends to the name of a directory while it writes it: such a directory is never opened.
constexpr const char* kUnfinished = ".partial";

// Readers. The path is in every error.
Checkpoint open_gguf(const std::string& path);
Checkpoint open_hf_directory(const std::string& path);

}  // namespace quire
