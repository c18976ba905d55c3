// Sequences of random keys, values and queries, appended to a cache and attended to in steps, as a decoder does it.
#pragma once
#include "kernels/attention.h"
#include "kvcache/kv_cache.h"
#include "tests/op_test.h"

namespace quire {

inline constexpr const char* kCacheWords[] = {"kvf16", "kv8",    "kvfp8",  "k8v4",  "kv4",
                                              "kv2",   "kv4row", "kv3row", "kv2row"};

struct KvShape {
  int64_t heads = 6, kv_heads = 2, channels = 64, layers = 1;
  int64_t window = 0;
};

struct KvSequence {
  std::vector<int32_t> tokens;  // (N)
  std::vector<float> q, k, v;   // (N, heads * C), (N, kv_heads * C) twice
  int64_t length() const { return int64_t(tokens.size()); }
};

inline KvSequence random_sequence(Rng& rng, const KvShape& s, int64_t length) {
  KvSequence out;
  for (int64_t i = 0; i < length; ++i) out.tokens.push_back(int32_t(rng() % 1000));
  out.q = normal(rng, length * s.heads * s.channels, 2.0f);
  out.k = normal(rng, length * s.kv_heads * s.channels);
  out.v = normal(rng, length * s.kv_heads * s.channels, 1.0f, 0.25f);
  for (size_t i = 0; i < out.k.size(); ++i) out.k[i] += i % 16 == 5 ? 4.0f : 0.0f;  // keys have channels that stick out
  return out;
}

inline KvCacheConfig kv_config(const KvShape& s, const char* word, int64_t pages, int64_t slots, int64_t max_tokens) {
  KvCacheConfig c;
  c.layers = s.layers;
  c.kv_heads = s.kv_heads;
  c.head_dim = s.channels;
  c.scheme = parse_kv(word);
  c.pages = pages;
  c.slots = slots;
  c.max_tokens = max_tokens;
  return c;
}

struct KvPiece {
  int32_t slot;
  const KvSequence* sequence;
  int64_t count;  // the sequence's next tokens
};

inline Batch kv_batch(const KvCache& cache, const std::vector<KvPiece>& pieces) {
  Batch batch;
  for (const KvPiece& p : pieces) {
    const int64_t position = cache.length(p.slot);
    batch.sequences.push_back({p.slot, batch.size(), p.count, position});
    for (int64_t i = 0; i < p.count; ++i) {
      batch.tokens.push_back(p.sequence->tokens[size_t(position + i)]);
      batch.positions.push_back(int32_t(position + i));
    }
  }
  return batch;
}

// One step. Returns what attention gives, (layers, T, heads * C); odd layers have keys and values exchanged.
inline std::vector<float> kv_step(const Context& ctx, const KvShape& s, KvCache& cache,
                                  const std::vector<KvPiece>& pieces, std::string_view kernel = {}) {
  Batch batch = kv_batch(cache, pieces);
  for (const KvPiece& p : pieces) check(cache.reserve(p.slot, p.count), "no pages for slot {}", p.slot);
  cache.begin_step(batch);
  const int64_t wide = s.heads * s.channels, narrow = s.kv_heads * s.channels;
  // Columns of one matrix, as they come from the fused projection.
  std::vector<float> qkv(size_t(batch.size() * (wide + 2 * narrow)));
  float* to = qkv.data();
  for (size_t i = 0; i < pieces.size(); ++i) {
    const KvSequence& sequence = *pieces[i].sequence;
    for (int64_t p = batch.sequences[i].position; p < batch.sequences[i].position + pieces[i].count; ++p) {
      to = std::copy_n(sequence.q.data() + p * wide, wide, to);
      to = std::copy_n(sequence.k.data() + p * narrow, narrow, to);
      to = std::copy_n(sequence.v.data() + p * narrow, narrow, to);
    }
  }
  OnGpu gpu(ctx);
  Tensor all = f32_view(qkv, batch.size(), wide + 2 * narrow);
  const bool there = ctx.device == Device::cuda;
  if (there) {
    ctx.scratch->reset();
    all = gpu.in(all);
    upload_batch(ctx, batch);
  }
  const Tensor q = cols_of(all, 0, wide), k = cols_of(all, wide, narrow), v = cols_of(all, wide + narrow, narrow);
  std::vector<float> out(size_t(s.layers * batch.size() * wide));
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    cache.append(ctx, layer, batch, layer % 2 == 0 ? k : v, layer % 2 == 0 ? v : k);
    const Tensor result = f32_view(out.data() + layer * batch.size() * wide, batch.size(), wide);
    const Tensor y = there ? gpu.out(result) : result;
    attention(ctx, q, cache.view(layer), batch, {s.heads, s.window}, y, kernel);
    if (there) copy_tensor(gpu.back(y), result);
  }
  cache.end_step(batch);
  return out;
}

// The whole of one sequence in pieces of `chunk` tokens (0: all at once), into a slot that may already hold its
// beginning. Returns the outputs of the tokens appended here, layer by layer.
inline std::vector<float> kv_run(const Context& ctx, const KvShape& s, KvCache& cache, int32_t slot,
                                 const KvSequence& sequence, int64_t chunk = 0, int64_t until = -1) {
  const int64_t end = until < 0 ? sequence.length() : until, begin = cache.length(slot), row = s.heads * s.channels;
  std::vector<float> out(size_t(s.layers * (end - begin) * row));
  for (int64_t at = begin; at < end;) {
    const int64_t n = chunk > 0 ? std::min(chunk, end - at) : end - at;
    const std::vector<float> part = kv_step(ctx, s, cache, {{slot, &sequence, n}});
    for (int64_t layer = 0; layer < s.layers; ++layer) {
      std::copy_n(part.data() + layer * n * row, n * row, out.data() + (layer * (end - begin) + at - begin) * row);
    }
    at += n;
  }
  return out;
}

// The bytes of one page of a sequence, all layers and heads.
inline std::string page_bytes_of(KvCache& cache, int32_t slot, int64_t page_index) {
  std::string bytes;
  for (int64_t layer = 0; layer < cache.config().layers; ++layer) {
    const KvView view = cache.view(layer);
    for (int64_t h = 0; h < view.kv_heads; ++h) {
      const std::byte* block = cache.block(layer, slot, page_index, h);
      const size_t at = bytes.size(), size = size_t(view.layout.bytes);
      bytes.resize(at + size);
      if constexpr (kCuda) {
        if (cache.config().device == Device::cuda) {
          cuda::copy_async(bytes.data() + at, block, size, cache.config().stream);
          cuda::synchronize(cache.config().stream);
          continue;
        }
      }
      std::memcpy(bytes.data() + at, block, size);
    }
  }
  return bytes;
}

}  // namespace quire
