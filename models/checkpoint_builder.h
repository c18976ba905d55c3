// What the readers share: where a checkpoint is put together and checked. Internal to the readers.
#pragma once
#include <functional>
#include <span>
#include <unordered_map>

#include "base/mapped_file.h"
#include "models/checkpoint.h"
#include "quant/storage.h"

namespace quire {

struct Checkpoint::State {
  ModelConfig config;
  TokenizerData tokenizer;
  std::string tokenizer_error;  // why there is none
  std::string container;
  std::optional<Scheme> stored_scheme;
  std::optional<uint64_t> dummy;  // no tensor has data
  std::vector<KvScale> cache_scales;
  std::vector<CheckpointTensor> tensors;
  std::unordered_map<std::string, size_t> by_name;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<MappedFile> files;  // what views point into
  // What does not lie in the file as it is needed: made when a tensor of its rows is asked for, so that little is there
  // at once.
  struct Made {
    Tensor shape;                                     // without data
    std::function<void(const Tensor& to)> fill;       // its planes, as place_tensor lays them out, zeroed
    std::vector<std::span<const std::byte>> sources;  // what fill reads
    std::weak_ptr<Buffer> buffer;                     // there while a tensor holds it
    std::function<int64_t(int64_t)> place_of;         // where it is set row r is row place_of(r) of the one source
  };
  struct MadeRows {  // a tensor
    std::shared_ptr<Made> whole;
    int64_t row0;                    // its first row in that
    std::shared_ptr<Buffer> buffer;  // null until it is asked for
  };
  std::unordered_map<size_t, MadeRows> made;  // by index in tensors
  Buffer piece;                               // what Checkpoint::rows gave last

  struct Outliers {
    std::function<SparseMatrix()> make;
    std::vector<std::span<const std::byte>> sources;  // what it reads
  };
  std::unordered_map<size_t, Outliers> outliers;  // by index in tensors

  void release(const std::byte* bytes, size_t size) const;  // if they lie in a file
};

class CheckpointBuilder {
 public:
  explicit CheckpointBuilder(std::string path);
  const std::string& path() const { return path_; }
  Checkpoint::State& state() { return *state_; }

  // A tensor whose rows lie one after the other at `bytes` (of a kept file). One that is not aligned for its type is
  // copied when it is asked for.
  void add(std::string name, std::string source_name, Codec codec, int64_t rows, int64_t cols, const std::byte* bytes);
  // The same with row r (of a vector: element r) taken from place_of(r) of the file.
  void add_reordered(std::string name, std::string source_name, Codec codec, int64_t rows, int64_t cols,
                     const std::byte* bytes, bool vector, std::function<int64_t(int64_t)> place_of);
  // Any tensor, whose planes point into kept files, aligned. The reference holds until the next one.
  CheckpointTensor& add(std::string name, std::string source_name, const Tensor& t);
  CheckpointTensor& add(CheckpointTensor t);
  // A tensor that `fill` puts together from `sources` (of kept files) when it is asked for. Nothing may be left for it
  // to refuse.
  CheckpointTensor& add_made(std::string name, std::string source_name, Format format, int64_t rows, int64_t cols,
                             std::vector<std::span<const std::byte>> sources,
                             std::function<void(const Tensor& to)> fill);
  // Values beside the tensor that was added last: `make` gives so many entries.
  void add_outliers(int64_t count, std::vector<std::span<const std::byte>> sources, std::function<SparseMatrix()> make);
  // Every tensor belongs to the network and has its shape, and none is missing. To be called before the tokenizer is
  // read: from here on the configuration's sizes are bounded by the file's.
  void check_tensors() const;
  // Calls `read` and checks what it gives against the configuration; what is wrong with it is kept for
  // Checkpoint::open.
  void read_tokenizer(const std::function<TokenizerData()>& read);
  Checkpoint finish();  // the builder is empty afterwards

 private:
  static Tensor view(Codec codec, int64_t rows, int64_t cols, const std::byte* bytes);

  std::string path_;
  std::unique_ptr<Checkpoint::State> state_;
};

// What `quantize` appends to the name of a directory while it writes it: such a directory is never opened.
constexpr const char* kUnfinished = ".partial";

// Readers. The path is in every error.
Checkpoint open_gguf(const std::string& path);
Checkpoint open_hf_directory(const std::string& path);

}  // namespace quire
