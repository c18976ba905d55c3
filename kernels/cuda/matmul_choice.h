// Which tile a tensor-core matmul takes, by M and by how many panels of 64 rows there are a multiprocessor. Measured on
// an H100 and an H200 (132 multiprocessors) at the layers of Llama-3-8B (N, K: 6144, 4096; 4096, 4096; 28672, 4096;
// 4096, 14336) with `bench_matmul best`: one of the fastest there, mostly within 5 %.
#pragma once
#include "kernels/cuda/matmul_mma.h"

namespace quire::cuda {

struct ChoiceSize {
  bool many, one_wave;  // panels: two a multiprocessor and more; at most half a one
  bool long_k;
  int64_t large_tiles;  // of 128 rows and 128 tokens
};
inline ChoiceSize choice_size(const FragShape& s, int64_t m, int64_t multiprocessors) {
  return {s.panels() >= 2 * multiprocessors, 2 * s.panels() <= multiprocessors, s.k > 8192,
          (s.panels() + 1) / 2 * ((m + 127) / 128)};
}

// Sums of whole rows.
inline MmaForce choose_rows(const FragShape& s, int64_t m, int64_t multiprocessors) {
  const auto [many, one_wave, long_k, large_tiles] = choice_size(s, m, multiprocessors);
  const bool affine = s.code == FragCode::nibble_affine, nibbles = s.bits() == 4 && !affine;
  if (m <= 8) return {8, many ? 32 : 16, 0, 0};
  if (m <= 16) {
    if (s.bits() == 4 && one_wave) return {8, 32, 0, 0};
    return {16, !many ? 16 : nibbles ? 64 : 32, 0, 0};
  }
  if (m <= 32) {
    if (one_wave || affine) return {16, 32, 0, 0};
    return nibbles ? MmaForce{16, 64, 0, 0} : MmaForce{32, 64, 0, 0};
  }
  // Weights are read from L2 again for every tile of tokens, which pays while large tiles leave multiprocessors idle.
  if (!many && m <= (long_k ? 64 : 128)) {
    if (affine) return {m <= 64 && !one_wave ? 16 : 32, 32, 0, 0};
    return nibbles ? MmaForce{16, 64, 0, 0} : MmaForce{32, 64, 0, 0};
  }
  if (m > 64 && 2 * large_tiles >= 3 * multiprocessors) return {256, 0, 0, 0};  // wgmma
  if (long_k && m > 512) return {128, 0, 0, 0};
  const int64_t tiles = (s.panels() + 1) / 2 * ((m + 63) / 64);
  return {64, 0, 0, long_k || 2 * tiles < 3 * multiprocessors ? 1 : 0};
}

// Sums folded by segment. With rows = 64 a warp has all of k for its rows and folds where the sums are; the kernel for
// few tokens folds in shared memory, but its blocks are smaller.
inline MmaForce choose_segments(const FragShape& s, int64_t m, int64_t multiprocessors) {
  const auto [many, one_wave, long_k, large_tiles] = choice_size(s, m, multiprocessors);
  const bool several = s.segment < kFragCols;  // folds a tile of k
  const bool e4m3 = s.code == FragCode::e4m3, halfs = s.code == FragCode::half_float;
  const bool nibbles = s.bits() == 4 && !s.half();
  if (m <= 8) {
    if (several && many) return {8, 64, 0, 0};
    if (several && !one_wave) return {s.half() ? 8 : 16, 16, 0, 0};
    return {8, s.code == FragCode::half_nibble && !many ? 16 : 32, 0, 0};
  }
  if (!several && !many && m <= 32) {
    if (halfs) return {16, 32, 0, 0};
    if (e4m3 && one_wave) return {m <= 16 ? 8 : 32, 16, 0, 0};
    if (e4m3) return {16, 16, 0, 0};
    if (s.code == FragCode::half_nibble) return {8, m <= 16 ? 16 : 64, 0, 0};
    return {8, 32, 0, 0};
  }
  if (several && !many && m <= 16) return {8, 32, 0, 0};
  if (!several && !many && m <= 64) {
    if (nibbles) return {8, 32, 0, 0};
    if (e4m3 && one_wave) return {32, 16, 0, 0};
  }
  if ((halfs && m > 64 && 10 * large_tiles >= 7 * multiprocessors) || (several && m > 512)) return {128, 0, 0, 0};
  if (halfs && m > 32) return {64, 0, 0, 0};  // their weights are large: not to be read again for more tiles of tokens
  // The fewest tokens a tile with which four blocks a multiprocessor hold all tiles.
  for (const int tokens : {8, 16, 32}) {
    if (tokens == 8 && m > 32) continue;
    if (s.panels() * ((m + tokens - 1) / tokens) <= 4 * multiprocessors) return {tokens, 64, 0, 0};
  }
  return {64, 0, 0, 0};
}

// Through cuBLAS: unpacking the weight must be worth it, and small matrices are bound by launches. kBlasRows: fewer
// never.
constexpr int64_t kBlasRows = 64, kBlasValues = int64_t(4) << 20;
inline bool blas_is_faster(const FragShape& s, int64_t m, int64_t multiprocessors) {
  if (m < kBlasRows || s.n * s.k < kBlasValues) return false;
  const auto [many, one_wave, long_k, large_tiles] = choice_size(s, m, multiprocessors);
  if (!s.half()) return m >= 256 && (m >= 1024 || 2 * large_tiles < 3 * multiprocessors);
  const bool as_it_is = s.code == FragCode::half_float;
  return m >= 256 || (m >= 128 && (one_wave || (as_it_is && !many))) || (one_wave && as_it_is);
}

// What `force` leaves open, filled in.
inline MmaForce mma_choose(const FragShape& s, int64_t m, int64_t multiprocessors, MmaForce force) {
  if (force.tokens == 0) {
    const MmaForce best = s.segment > 0 ? choose_segments(s, m, multiprocessors) : choose_rows(s, m, multiprocessors);
    force.tokens = best.tokens;
    if (force.rows == 0) force.rows = best.rows;
    if (force.split < 0) force.split = best.split;
  }
  if (force.rows == 0) force.rows = 32;
  if (force.split < 0) force.split = 0;
  return force;
}

}  // namespace quire::cuda
