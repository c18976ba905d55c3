// The rows of a checkpoint's tensors, some at a time, where the context computes: on the CPU as they lie in the file;
// on a GPU through two pinned buffers, so that the next rows are on their way while kernels still work on these. Those
// of a dummy are made there.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "models/checkpoint.h"

namespace quire {

// Rows of k values that are converted and packed at once: a few megabytes, in whole blocks of any layout or shared
// scale.
int64_t slice_rows(int64_t k);

class SliceReader {
 public:
  SliceReader(const Context& ctx, const Checkpoint& checkpoint);
  ~SliceReader();
  SliceReader(const SliceReader&) = delete;
  SliceReader& operator=(const SliceReader&) = delete;

  const Context& context() const { return ctx_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }

  // Rows row0.. of the tensor, in its format; row0 where a shared scale begins. Good for what is enqueued before the
  // next call (on a GPU: on the context's stream).
  Tensor read(const std::string& name, int64_t row0, int64_t rows);
  // The same for what is to be converted: of a tensor with outliers, f32 rows to which they are added.
  Tensor read_values(const std::string& name, int64_t row0, int64_t rows);
  void release(const Tensor& read) const;                   // is in no use any more
  std::vector<float> read_vector(const std::string& name);  // (1, n), on the host
  // The whole tensor in `format`, made a slice at a time.
  OwnedTensor load(const std::string& name, Format format);

 private:
  Tensor make_dummy(const Tensor& t, uint64_t seed, int64_t row0);
  Tensor to_device(const Tensor& host);

  struct Slot;  // one of the two buffers
  Context ctx_;
  const Checkpoint& checkpoint_;
  Buffer values_, made_;  // a dummy's rows, in f32 and in their format
  Buffer summed_;         // rows with their outliers, on the host
  std::string outliers_of_;
  SparseMatrix outliers_;  // of that tensor
  std::array<std::shared_ptr<Slot>, 2> slots_;
  std::shared_ptr<cuda::Stream> copies_;
  int turn_ = 0;
};

}  // namespace quire
