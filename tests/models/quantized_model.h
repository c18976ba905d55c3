// Quantized directories for tests: made, run, taken apart.
#pragma once
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "engine/engine.h"
#include "models/offline/write.h"
#include "tests/tiny_model.h"

namespace quire {

// Opens the source and writes it, in one thread of its own, so that a forked process can do it too.
inline WriteResult quantize(const std::string& source, const std::string& scheme, WriteOptions options) {
  const Checkpoint checkpoint = Checkpoint::open(source);
  options.source = source;
  ThreadPool pool(1);
  Scratch scratch;
  Context ctx;
  ctx.pool = &pool;
  ctx.scratch = &scratch;
  return write_quantized(ctx, checkpoint, parse_scheme(scheme), options);
}
inline WriteResult quantize(const std::string& source, const std::string& scheme, const std::string& output) {
  WriteOptions options;
  options.output = output;
  return quantize(source, scheme, options);
}

inline std::unique_ptr<Engine> open_small(const std::string& model, const std::string& scheme = "",
                                          const std::string& kv = "", const std::string& device = "") {
  EngineOptions options;
  options.model = model;
  options.scheme = scheme;
  options.kv = kv;
  options.device = device;
  options.threads = 1;
  options.memory_limit = 256 << 20;
  options.cache_tokens = 128;
  options.context = 128;
  options.max_batch = 1;
  return Engine::open(options);
}

// Every logit of a prompt and the tokens that follow it: equal only if the whole computation is, bit for bit.
struct Computed {
  std::vector<float> logits;
  std::vector<int32_t> tokens;
  bool operator==(const Computed& o) const {
    return tokens == o.tokens && logits.size() == o.logits.size() &&
           std::memcmp(logits.data(), o.logits.data(), logits.size() * sizeof(float)) == 0;
  }
};
inline Computed compute(Engine& engine) {
  Computed out;
  Request r;
  for (int32_t i = 0; i < 70; ++i) r.prompt.push_back(3 + i * 37 % 290);
  r.max_tokens = 12;
  r.ignore_eos = true;
  r.on_logits = [&](int64_t, std::span<const float> row) {
    out.logits.insert(out.logits.end(), row.begin(), row.end());
  };
  engine.submit(std::move(r));
  while (engine.busy()) {
    for (const Event& e : engine.step()) {
      for (const GeneratedToken& t : e.tokens) out.tokens.push_back(t.token);
    }
  }
  return out;
}

// Every file of a directory and what is in it.
inline std::map<std::string, std::string> contents_of(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_directory()) continue;
    files[std::filesystem::relative(entry.path(), directory).string()] = read_text_file(entry.path().string(), 1 << 28);
  }
  return files;
}

}  // namespace quire
