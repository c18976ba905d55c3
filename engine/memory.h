// The memory plan: what the weights, the scratch and the cache take, and how many tokens the cache can hold within the
// limit.
#pragma once
#include "engine/engine.h"
#include "kvcache/kv_cache.h"

namespace quire {

// Whether its steps are large enough for cuBLAS to help.
bool wants_blas(const EngineOptions& options, const ModelConfig& config);

// Before loading: the longest sequence to prepare for, and limit and scratch of the plan.
KvCacheConfig plan_cache(const EngineOptions& options, const ModelConfig& config, const Scheme& scheme,
                         const Context& ctx, bool blas, MemoryPlan& plan);

// The cache that fits beside the plan's weights and scratch. Error, with the numbers and what would fit, if the context
// asked for does not.
KvCacheConfig fit_cache(const EngineOptions& options, KvCacheConfig cache, MemoryPlan& plan);

}  // namespace quire
