// Prefill attention: chunks of a prompt against the same pages as decode. A tile is up to 64 rows = consecutive tokens
// of one page x the query heads of a kv head; a page of keys and values becomes f16 numbers in shared memory once for
// it.
#include "kernels/cuda/attention_tile.cuh"

namespace quire::cuda {

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16 * kWarps, kPage = int(kPageTokens);
constexpr int kBlocks = 3;  // of a multiprocessor

// Rows of C f16 in shared memory, 16-byte chunks exchanged so that eight rows of one chunk lie in different banks.
template <int C>
__device__ inline int swizzled(int row, int c) {
  return row * C + ((c / 8) ^ (row % 8)) * 8 + c % 8;
}
__device__ inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
__device__ inline void load_matrices(const __half* p, uint32_t (&out)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(p)));
}
__device__ inline void load_matrices_transposed(const __half* p, uint32_t (&out)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(p)));
}

__device__ inline uint32_t pack_finite(float lo, float hi) {
  const __half2 limit = __float2half2_rn(65504.0f);
  return as_word(__hmax2(__hmin2(__floats2half2_rn(lo, hi), limit), __hneg2(limit)));
}

// The 2 * kPer numbers of one word of codes, in the order they lie.
template <class F>
__device__ inline void word_values(uint32_t word, uint32_t high, float* out) {
  uint32_t pairs[F::kPer];
  F::unpack(word, high, pairs);
#pragma unroll
  for (int i = 0; i < F::kPer; ++i) {
    const float unit = power_of_two(F::kExponent - F::shift(i));
    const __half2 h = as_half2(pairs[i]);
    out[i] = __low2float(h) * unit;
    out[i + F::kPer] = __high2float(h) * unit;
  }
}

// The first `valid` rows of one part of a page as f16 (64, C), zeros below; nothing below is read.
template <class Side, int C>
__device__ void expand(const std::byte* block, const KvPart& part, float static_scale, int valid, __half* out) {
  using F = typename Side::F;
  constexpr int kValues = 32 / F::kData, kWordsARow = C / kValues, kStep = kThreads / kWordsARow;
  const int thread = int(threadIdx.x);
  if constexpr (F::kData == 16) {
    for (int i = thread; i < kPage * C / 8; i += kThreads) {
      const int row = i / (C / 8), c = i % (C / 8) * 8;
      uint32_t words[4];
      load<16>(block + part.codes + row * C * 2 + c * 2, row < valid, words);
      *reinterpret_cast<uint4*>(out + swizzled<C>(row, c)) = {words[0], words[1], words[2], words[3]};
    }
    return;
  } else {
    const int word = thread % kWordsARow;
    float scale[kValues], offset[kValues];
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      scale[i] = static_scale;
      offset[i] = 0.0f;
    }
    for (int base = 0; base < kPage; base += kStep) {
      const int row = base + thread / kWordsARow;
      const bool there = row < valid;
      uint32_t codes[1], high[1] = {};
      load<4>(block + part.codes + (row * kWordsARow + word) * 4, there, codes);
      if constexpr (F::kHigh > 0)
        load<kValues / 8>(block + part.high + (row * kWordsARow + word) * (kValues / 8), there, high);
      if constexpr (Side::kPerChannel) {
        static_assert(Side::kSpan % kStep == 0, "a step of rows within a span");
        if (base % Side::kSpan == 0) {
          const std::byte* meta = block + part.meta + base / Side::kSpan * part.meta_pitch + word * kValues * 4;
#pragma unroll
          for (int i = 0; i < kValues; i += 4) {
            uint32_t m[4];
            load<16>(meta + i * 4, true, m);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
              scale[i + j] = __low2float(as_half2(m[j]));
              offset[i + j] = __high2float(as_half2(m[j]));
            }
          }
        }
      } else if constexpr (Side::kMeta && Side::kGroup == 0) {
        uint32_t m[1];
        load<4>(block + part.meta + row * 4, there, m);
#pragma unroll
        for (int i = 0; i < kValues; ++i) {
          scale[i] = __low2float(as_half2(m[0]));
          offset[i] = __high2float(as_half2(m[0]));
        }
      } else if constexpr (Side::kMeta) {
        constexpr int kGroups = C / Side::kGroup;
        static_assert(Side::kOrder == Order::value_tiles, "groups of values lie in tiles");
#pragma unroll
        for (int i = 0; i < kValues; i += 2) {
          const int dim = (word * kValues + i) % (C / 8) / 2 * 16;
          uint32_t m[1];
          load<4>(block + part.meta + (row * kGroups + dim / Side::kGroup) * 4, there, m);
          scale[i] = scale[i + 1] = __low2float(as_half2(m[0]));
          offset[i] = offset[i + 1] = __high2float(as_half2(m[0]));
        }
      }
      float x[kValues];
      word_values<F>(codes[0], F::kHigh > 0 ? (high[0] & 0xffu) | (high[0] & 0xff00u) << 8 : 0u, x);
      uint32_t pairs[kValues / 2];
#pragma unroll
      for (int i = 0; i < kValues; i += 2) {
        pairs[i / 2] = pack_finite(fmaf(x[i], scale[i], offset[i]), fmaf(x[i + 1], scale[i + 1], offset[i + 1]));
        if (Side::kPerChannel && !there) pairs[i / 2] = 0;
      }
      if constexpr (Side::kOrder == Order::value_tiles) {
#pragma unroll
        for (int i = 0; i < kValues; i += 2) {
          const int place = word * kValues + i, dim = place % (C / 8) / 2 * 16 + place / (C / 8) * 2;
          *reinterpret_cast<uint32_t*>(out + swizzled<C>(row, dim)) = pairs[i / 2];
        }
      } else if constexpr (kValues == 4) {
        *reinterpret_cast<uint2*>(out + swizzled<C>(row, word * 4)) = {pairs[0], pairs[1]};
      } else {
#pragma unroll
        for (int i = 0; i < kValues; i += 8) {
          *reinterpret_cast<uint4*>(out + swizzled<C>(row, word * kValues + i)) = {pairs[i / 2], pairs[i / 2 + 1],
                                                                                   pairs[i / 2 + 2], pairs[i / 2 + 3]};
        }
      }
    }
  }
}

// One warp's 16 rows: row g and g + 8 of lane 4 g + t.
template <int C>
struct RowTile {
  uint32_t q[C / 16][4];
  float acc[C / 8][4];
  float peak[2], total[2];

  // row(i): where row i's query lies, or null. Queries are already scaled in f16 by `scale`.
  template <class Row>
  __device__ void start(Row row, float scale) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float* x = row(g + 8 * i);
#pragma unroll
      for (int k = 0; k < C / 16; ++k) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int c = k * 16 + h * 8 + 2 * t;
          q[k][i + 2 * h] = x ? pack_half2(x[c] * scale, x[c + 1] * scale) : 0u;
        }
      }
      peak[i] = kNothing;
      total[i] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < C / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[j][i] = 0.0f;
    }
  }

  // A page: rows g and g + 8 see its first seen[0] and seen[1] keys (at least one page before was seen whole, or these
  // are positive).
  __device__ void take(const __half* keys, const __half* values, const int (&seen)[2]) {
    const int lane = int(threadIdx.x) % 32, t = lane % 4;
    float s[kPage / 8][4] = {};
#pragma unroll
    for (int n = 0; n < kPage / 8; n += 2) {
#pragma unroll
      for (int k = 0; k < C / 16; ++k) {
        // Matrices: tokens 8n.., dims 16k..; the same, dims + 8; tokens + 8; both.
        uint32_t b[4];
        load_matrices(keys + swizzled<C>(n * 8 + lane % 8 + lane / 16 * 8, k * 16 + lane / 8 % 2 * 8), b);
        mma(s[n], q[k][0], q[k][1], q[k][2], q[k][3], b[0], b[1]);
        mma(s[n + 1], q[k][0], q[k][1], q[k][2], q[k][3], b[2], b[3]);
      }
    }
    float rescale[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = kNothing;
#pragma unroll
      for (int n = 0; n < kPage / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (n * 8 + 2 * t + e >= seen[i]) s[n][2 * i + e] = kNothing;
          top = fmaxf(top, s[n][2 * i + e]);
        }
      }
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      top = fmaxf(top, peak[i]);
      rescale[i] = peak[i] == kNothing ? 0.0f : exp2_fast(peak[i] - top);
      peak[i] = top;
      // Weights up to 2^12: even small ones are normal f16 numbers. The total has the same factor.
      const float base = top == kNothing ? 0.0f : top - float(kWeightShift);
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < kPage / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) sum += s[n][2 * i + e] = exp2_fast(s[n][2 * i + e] - base);
      }
      total[i] = fmaf(total[i], rescale[i], sum);
    }
#pragma unroll
    for (int j = 0; j < C / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[j][i] *= rescale[i / 2];
    }
#pragma unroll
    for (int k = 0; k < kPage / 16; ++k) {
      const uint32_t p[4] = {pack_half2(s[2 * k][0], s[2 * k][1]), pack_half2(s[2 * k][2], s[2 * k][3]),
                             pack_half2(s[2 * k + 1][0], s[2 * k + 1][1]),
                             pack_half2(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int j = 0; j < C / 8; j += 2) {
        // Matrices: tokens 16k.., dims 8j..; tokens + 8; dims + 8; both.
        uint32_t b[4];
        load_matrices_transposed(values + swizzled<C>(k * 16 + lane % 16, j * 8 + lane / 16 * 8), b);
        mma(acc[j], p[0], p[1], p[2], p[3], b[0], b[1]);
        mma(acc[j + 1], p[0], p[1], p[2], p[3], b[2], b[3]);
      }
    }
  }

  template <class Row>
  __device__ void give(Row row) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = total[i];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      float* out = row(g + 8 * i);
      if (!out) continue;
      const float inverse_total = 1.0f / sum;
#pragma unroll
      for (int j = 0; j < C / 8; ++j) {
        const float2 x = {acc[j][2 * i] * inverse_total, acc[j][2 * i + 1] * inverse_total};
        *reinterpret_cast<float2*>(out + j * 8 + 2 * t) = x;
      }
    }
  }
};

__host__ __device__ inline int tile_tokens(int group) {
  int tokens = 1;
  while (tokens * 2 * group <= kRows) tokens *= 2;
  return tokens;
}
// Tiles of a sequence: blocks of `tokens` positions, whatever its chunk; none if decode takes it.
__device__ inline int prefill_tiles(const BatchSequence& s, int tokens, bool alone) {
  if (s.slot < 0 || s.count <= (alone ? 0 : 1)) return 0;
  return int((s.position % tokens + s.count + tokens - 1) / tokens);
}

template <class Pair, int C>
__global__ void __launch_bounds__(kThreads, kBlocks) attention_prefill_kernel(const __grid_constant__ AttentionArgs a) {
  extern __shared__ __align__(128) unsigned char memory[];
  __half* keys = reinterpret_cast<__half*>(memory);
  __half* values = keys + kPage * C;
  int* prefix = reinterpret_cast<int*>(values + kPage * C);
  const int n = min(*a.sequence_count, kMaxSequencesOnGpu), kv_heads = int(a.kv.kv_heads), group = a.heads / kv_heads;
  const int tokens = tile_tokens(group), warp = int(threadIdx.x) / 32, g = int(threadIdx.x) % 32 / 4;
  prefix_sums(n, prefix, [&](int i) { return prefill_tiles(a.sequences[i], tokens, a.prefill_alone) * kv_heads; });
  __syncthreads();
  const int items = prefix[n];
  for (int item = items - 1 - int(blockIdx.x); item >= 0; item -= int(gridDim.x)) {  // the longest first
    const int index = find_interval(prefix, n, item), head = (item - prefix[index]) % kv_heads;
    const BatchSequence s = a.sequences[index];
    const int first = int(s.position) / tokens * tokens + (item - prefix[index]) / kv_heads * tokens;
    const int end = min(first + tokens, int(s.position + s.count)), own = first / kPage;
    // Row r of the tile is head r % group of the token at first + r / group.
    const auto place = [&](int r, int64_t stride) -> int64_t {
      const int position = first + r / group;
      if (r >= tokens * group || position < s.position || position >= end) return -1;
      return (s.first + position - s.position) * stride + int64_t(head * group + r % group) * C;
    };
    RowTile<C> tile;
    tile.start(
        [&](int i) {
          const int64_t at = place(warp * 16 + i, a.q_stride);
          return at < 0 ? nullptr : a.q + at;
        },
        1.44269504f * rsqrtf(float(C)));
    for (int page = 0; page <= own; ++page) {
      const int valid = min(kPage, end - page * kPage);
      const bool open = Pair::kSealed && page == own;
      __syncthreads();  // the page before has been read
      if (open) {
        const int64_t row = s.first + max(first, int(s.position)) - s.position;  // the tile's first
        const std::byte* block = a.kv.open_block_of_row(row, s.slot, head);
        expand<KvSide<F16>, C>(block, a.kv.open_layout.k, 1.0f, valid, keys);
        expand<KvSide<F16>, C>(block, a.kv.open_layout.v, 1.0f, valid, values);
      } else {
        const std::byte* block = a.kv.block(s.slot, page, head);
        expand<typename Pair::Key, C>(block, a.kv.layout.k, a.kv.k_scale, valid, keys);
        expand<typename Pair::Value, C>(block, a.kv.layout.v, a.kv.v_scale, valid, values);
      }
      __syncthreads();
      int seen[2];
      for (int i = 0; i < 2; ++i) {
        const int position = min(first + (warp * 16 + g + 8 * i) / group, end - 1);
        seen[i] = min(kPage, position + 1 - page * kPage);
      }
      tile.take(keys, values, seen);
    }
    tile.give([&](int i) {
      const int64_t at = place(warp * 16 + i, a.out_stride);
      return at < 0 ? nullptr : a.out + at;
    });
  }
}

template <class Pair, int C>
void launch(const AttentionArgs& a, int multiprocessors, StreamHandle stream) {
  constexpr int kBytes = kPage * C * 2 * 2 + (kMaxSequencesOnGpu + 1) * 4;
  if (kBytes > 48 * 1024) {
    check_status(
        cudaFuncSetAttribute(attention_prefill_kernel<Pair, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "shared memory of attention_prefill_kernel");
  }
  attention_prefill_kernel<Pair, C><<<kBlocks * multiprocessors, kThreads, kBytes, stream>>>(a);
  check_launch("attention_prefill_kernel");
}

template <int C, class... Pairs>
bool choose(KvPairList<Pairs...>, const AttentionArgs& a, int multiprocessors, StreamHandle stream) {
  return ((Pairs::is(a.kv.layout) ? (launch<Pairs, C>(a, multiprocessors, stream), true) : false) || ...);
}

}  // namespace

bool attention_prefill(const AttentionArgs& a, int multiprocessors, StreamHandle stream) {
  static_assert(kMaxMmaGroup <= kRows, "a tile holds one token's query heads");
  switch (a.kv.layout.head_dim) {
    case 64:
      return choose<64>(KvPairs{}, a, multiprocessors, stream);
    case 128:
      return choose<128>(KvPairs{}, a, multiprocessors, stream);
    default:
      return false;
  }
}

}  // namespace quire::cuda
