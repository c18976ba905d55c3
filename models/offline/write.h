// A quantized model as a directory: what models/stored.h describes, complete with tokenizer and template, whatever the
// source was.
//
// The directory is made as `output` + ".partial", which no reader opens, and renamed when it is whole. Each file
// appears under its name only when all of it is on the disk, so a run that was killed goes on where it was: the same
// options and source give the same bytes, whether it was interrupted or not. Other options begin anew.
#pragma once
#include <string>

#include "base/sink.h"
#include "kernels/context.h"
#include "models/checkpoint.h"

namespace quire {

struct WriteOptions {
  std::string source;  // where the checkpoint was opened
  std::string output;  // the directory to make
  bool force = false;  // replace a directory that an earlier run wrote
  int64_t shard_bytes = int64_t(256) << 20;
  Progress progress;  // in bytes of tensors; also called before every step that the disk sees
  Log log;
};

struct WriteResult {
  int64_t bytes = 0, tensors = 0, files = 0;  // of tensors
  int64_t resumed_files = 0;                  // of those, what an earlier run had finished
};

// Rounds every matrix to the scheme's formats, exactly as Decoder::load does. Error names what is in the way: a scheme
// that has no weight formats of its own, an output that exists, a full disk.
WriteResult write_quantized(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme,
                            const WriteOptions& options);

}  // namespace quire
