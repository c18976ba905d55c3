#include "engine/memory.h"

#include <algorithm>

#include "base/machine.h"
#include "engine/decode_steps.h"
#include "kernels/attention.h"
#include "kernels/convert.h"
#include "kernels/cuda/matmul_blas.h"
#include "kernels/cuda/matmul_choice.h"
#include "models/family.h"
#include "models/rope_scaling.h"

namespace quire {

namespace {

std::string mib(int64_t bytes) { return fmt::format("{:.0f} MiB", double(bytes) / (1 << 20)); }

int64_t available_memory(Device device) {
  if constexpr (kCuda) {
    if (device == Device::cuda) return cuda::free_memory();
  }
  return machine_memory().available;
}

// Besides weights and cache: activations of one block (twice for conversions), logits, and the rope table.
int64_t scratch_bytes(const EngineOptions& options, const ModelConfig& c, const KvCacheConfig& cache, bool blas) {
  const int64_t qkv = (c.heads + 2 * c.kv_heads) * c.head_dim;
  const bool post_norms = find_family(c.family).attention_post_norm != nullptr;  // products wait beside the residual
  const int64_t rope_tables = c.rope_theta_windowed > 0 ? 2 : 1;
  const int64_t row = (post_norms ? 6 : 4) * c.hidden + qkv + 2 * c.heads * c.head_dim + 4 * c.ffn;
  const int64_t tokens = options.chunk + options.max_batch, logits = kMaxLogitsRows + options.max_batch;
  const int64_t bytes = (tokens * row + logits * c.vocab + cache.max_tokens * c.rope_dim * rope_tables) * 4 +
                        KvCache::step_bytes(cache, tokens);
  const KvLayout layout = kv_layout(cache.scheme.k, cache.scheme.v, c.head_dim);
  if (cache.device == Device::cpu) {
    const int threads = options.threads > 0 ? options.threads : hardware_threads();
    return bytes + attention_scratch(layout, c.heads, c.kv_heads, tokens, cache.max_tokens, threads);
  }
  // On a GPU also what convert puts rows in, the cuts of attention, what cuBLAS needs, and the batch.
  const int64_t library = blas ? cuda::kBlasScratch + cuda::Blas::kWorkspaceBytes : 0;
  return bytes + library + 4 * std::min(kConvertFloats, c.vocab * c.hidden) +
         gpu_attention_scratch(layout, c.heads, c.kv_heads) + 64 * tokens + DecodeSteps::state_bytes(options.max_batch);
}

}  // namespace

bool wants_blas(const EngineOptions& options, const ModelConfig& config) {
  return !options.deterministic && options.chunk + options.max_batch >= cuda::kBlasRows &&
         2 * config.ffn * config.hidden >= cuda::kBlasValues;
}

KvCacheConfig plan_cache(const EngineOptions& options, const ModelConfig& config, const Scheme& scheme,
                         const Context& ctx, bool blas, MemoryPlan& plan) {
  KvCacheConfig cache;
  cache.layers = config.layers;
  cache.kv_heads = config.kv_heads;
  cache.head_dim = config.head_dim;
  cache.scheme = scheme.kv;
  cache.slots = options.max_batch;
  cache.max_tokens = options.context > 0 ? options.context : usual_context(config);
  cache.device = ctx.device;
  cache.stream = ctx.stream;
  plan.limit = options.memory_limit > 0 ? options.memory_limit : available_memory(ctx.device) / 10 * 9;
  plan.scratch = scratch_bytes(options, config, cache, blas);
  const bool graphs = ctx.device == Device::cuda && !options.eager;
  plan.graphs = graphs ? DecodeSteps::graph_bytes(options.max_batch, config.layers) : 0;
  plan.bytes_per_token = KvCache::page_bytes(cache) / kPageTokens;
  return cache;
}

namespace {

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Settings with which a cache of `tokens` fits in `room` bytes, to type.
std::string what_would_fit(const EngineOptions& options, const KvCacheConfig& cache, int64_t room, int64_t tokens) {
  std::string ways;
  const int64_t longest = std::max<int64_t>(0, room / KvCache::page_bytes(cache)) * kPageTokens;
  if (longest > 0 && options.cache_tokens > 0 && options.max_batch > 1) {
    const int64_t each = pages_for(tokens) / options.max_batch;
    const int64_t sequences = each > 0 ? longest / kPageTokens / each : 0;
    if (sequences > 0) ways += fmt::format("{} sequences instead of {}, ", sequences, options.max_batch);
  }
  if (longest > 0) ways += fmt::format("--context {}, ", longest);
  KvCacheConfig smaller = cache;
  for (const char* word : {"kv8", "kv4", "kv2"}) {
    if (cache.head_dim % 32 != 0) break;  // kv2 has groups of 32 channels
    smaller.scheme = parse_kv(word);
    const bool is_smaller = KvCache::page_bytes(smaller) < KvCache::page_bytes(cache);
    if (!is_smaller || pages_for(tokens) * KvCache::page_bytes(smaller) > room) continue;
    ways += fmt::format("a smaller cache (--kv {}), ", word);
    break;
  }
  return ways + "a larger memory limit, or smaller weights (--scheme w4a16)";
}

}  // namespace

KvCacheConfig fit_cache(const EngineOptions& options, KvCacheConfig cache, MemoryPlan& plan) {
  const int64_t page = KvCache::page_bytes(cache), stage = KvCache::stage_bytes(cache);
  const int64_t room = plan.limit > 0 ? plan.limit - plan.weights - plan.scratch - plan.graphs - stage : INT64_MAX;
  const int64_t fits = std::max<int64_t>(0, room / page);  // pages
  const std::string budget = fmt::format(
      "the limit of {} less weights ({}), scratch ({}) and open pages ({}) leaves room for {} tokens at {} bytes each",
      mib(plan.limit), mib(plan.weights), mib(plan.scratch + plan.graphs), mib(stage), fits * kPageTokens,
      plan.bytes_per_token);
  const int64_t whole = pages_for(cache.max_tokens);
  const auto would_fit = [&](int64_t tokens) { return what_would_fit(options, cache, room, tokens); };
  if (fits <= 0) fail(fmt::format("out of memory: {}; what would fit: {}", budget, would_fit(kPageTokens)));
  if (options.cache_tokens > 0) {
    cache.pages = pages_for(options.cache_tokens);
    if (cache.pages > fits) {
      fail(fmt::format("out of memory: a cache of {} tokens was asked for, but {}; what would fit: {}",
                       options.cache_tokens, budget, would_fit(options.cache_tokens)));
    }
  } else {
    // Room for every sequence at its longest, where it fits. On the CPU untouched pages take no memory; on a GPU they
    // do, and what is not taken here is of no use to anyone: --max-batch and --memory-limit are how to take less.
    cache.pages = std::min(fits, whole * cache.slots);
    if (options.context > 0 && whole > fits) {
      fail(fmt::format("out of memory: a context of {} was asked for, but {}; what would fit: {}", options.context,
                       budget, would_fit(options.context)));
    }
  }
  if (cache.pages < whole && options.context == 0) {
    cache.max_tokens = cache.pages * kPageTokens;
    if (options.log) options.log(fmt::format("the context is cut to {} tokens: {}", cache.max_tokens, budget));
  }
  plan.cache = cache.pages * page + stage;
  plan.cache_tokens = cache.pages * kPageTokens;
  return cache;
}

}  // namespace quire
