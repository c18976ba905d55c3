// Packed weights hold what was packed, in no more room than they need.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "kernels/matmul.h"
#include "tests/random_blocks.h"

namespace quire {
namespace {

std::set<const WeightLayout*> layouts() {
  std::set<const WeightLayout*> all;
  for (const MatmulKernel& k : matmul_kernels()) {
    if (k.layout) all.insert(k.layout);
  }
  return all;
}

OwnedTensor random_weight(std::mt19937& rng, Format format, int64_t rows, int64_t cols) {
  OwnedTensor t = make_tensor(format, rows, cols);
  const CodecInfo& codec = info(format.codec);
  if (!codec.encode) {
    fill_random_blocks(rng, t);
    return t;
  }
  for (int64_t i = 0; i < codec.table_bytes / 4 * (codec.table_shared ? 1 : cols); ++i) {
    t.tensor.table.row<float>(0)[i] = float(i % 16) * 0.05f - 0.3f;
  }
  std::normal_distribution<float> draw(0.2f, 0.5f);
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (float& x : row) x = draw(rng);
    info(format.codec).encode(t.tensor, r, 1, row.data(), cols, ScaleSource::found);
  }
  return t;
}

void expect_rows(const PackedWeight& packed, int64_t row0, const Tensor& source) {
  std::vector<float> expected(static_cast<size_t>(source.cols)), got(expected);
  for (int64_t r = 0; r < source.rows; ++r) {
    info(source.codec).decode(source, r, 0, source.cols, expected.data());
    packed.layout->unpack(packed.data.data(), packed.problem, row0 + r, got.data());
    EXPECT_EQ(std::memcmp(expected.data(), got.data(), expected.size() * 4), 0)
        << packed.layout->name << " " << describe(source) << " row " << r;
  }
}

const Format kActivations[] = {{id<F32>}, {id<Int8>}, {id<Int8>, 32}, {id<Int8>, 64}};

struct Case {
  const WeightLayout* layout;
  Format w, x;
};
// Every layout with every codec and group that it takes.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const WeightLayout* layout : layouts()) {
    for (int codec = 0; codec < Codecs::kSize; ++codec) {
      const int fixed = info(Codec(codec)).group;
      for (const int group : {0, 32, 20, 128}) {
        if (fixed && group != 32) continue;  // one case for each
        for (const Format& x : kActivations) {
          const Format w{Codec(codec), fixed ? fixed : group};
          if (layout->supports({w, x, 16, 96})) all.push_back({layout, w, x});
        }
      }
    }
  }
  return all;
}

TEST(MatmulLayout, UnpackGivesWhatWasPacked) {
  std::mt19937 rng(1);
  ThreadPool pool(2);
  Context ctx;
  ctx.pool = &pool;
  std::set<Codec> seen;
  for (const Case& c : cases()) {
    seen.insert(c.w.codec);
    const OwnedTensor w = random_weight(rng, c.w, 1 + int64_t(rng() % 90), 1 + int64_t(rng() % 150));
    expect_rows(pack_weight(ctx, {w}, c.x, c.layout), 0, w);
  }
  for (int codec = 0; codec < Codecs::kSize; ++codec) {  // only codebooks with an offset or many tables are left out
    const bool lattice = Codec(codec) == id<E8pRvq3> || Codec(codec) == id<E8pRvq4>;  // their table is one factor
    const bool panels = info(Codec(codec)).table_bytes == 0 || info(Codec(codec)).linear || lattice;
    EXPECT_EQ(seen.count(Codec(codec)) == 1, panels) << info(Codec(codec)).name;
  }
}

// Parts on multiples of 64 rows lie as if each was packed alone; others hold the same rows.
TEST(MatmulLayout, FusedPartsArePackedAsTheyAreApart) {
  std::mt19937 rng(2);
  ThreadPool pool(2);
  Context ctx;
  ctx.pool = &pool;
  for (const Case& c : cases()) {
    const int64_t odd = info(c.w.codec).span > 1 ? 3 * info(c.w.codec).span : 17;  // views are of whole spans
    const OwnedTensor a = random_weight(rng, c.w, 64, 96), b = random_weight(rng, c.w, 128, 96),
                      d = random_weight(rng, c.w, odd, 96);
    const PackedWeight fused = pack_weight(ctx, {a, b, d}, c.x, c.layout);
    size_t at = 0;
    for (const OwnedTensor* part : {&a, &b, &d}) {
      const PackedWeight apart = pack_weight(ctx, {*part}, c.x, c.layout);
      ASSERT_LE(at + apart.data.size(), fused.data.size());
      EXPECT_EQ(std::memcmp(fused.data.data() + at, apart.data.data(), apart.data.size()), 0)
          << c.layout->name << " " << to_string(c.w);
      at += apart.data.size();
    }
    EXPECT_EQ(at, fused.data.size());
    const PackedWeight ragged = pack_weight(ctx, {d, a}, c.x, c.layout);
    expect_rows(ragged, 0, d);
    expect_rows(ragged, odd, a);
  }
}

TEST(MatmulLayout, SlicesInAnyOrderArePackedAsTheWhole) {
  std::mt19937 rng(4);
  ThreadPool pool(2);
  Context ctx;
  ctx.pool = &pool;
  for (const Case& c : cases()) {
    const OwnedTensor whole = random_weight(rng, c.w, 150, 96);
    const PackedWeight expected = pack_weight(ctx, {whole}, c.x, c.layout);
    PackedWeight w = empty_weight(expected.problem, c.layout);
    for (const auto& [row0, rows] : {std::pair(128, 22), {0, 64}, {64, 64}})
      pack_slice(ctx, rows_of(whole, row0, rows), row0, w);
    ASSERT_EQ(w.data.size(), expected.data.size());
    EXPECT_EQ(std::memcmp(w.data.data(), expected.data.data(), w.data.size()), 0)
        << c.layout->name << " " << to_string(c.w);
    EXPECT_THROW(pack_slice(ctx, whole, 64, w), Error);
  }
}

TEST(MatmulLayout, CanonicalPartsAreConcatenated) {
  std::mt19937 rng(3);
  ThreadPool pool(1);
  Scratch scratch;
  Context ctx;
  ctx.pool = &pool;
  for (int codec = 0; codec < Codecs::kSize; ++codec) {
    const Format format{Codec(codec), info(Codec(codec)).group};
    const int64_t span = info(format.codec).span, first = 5 * span, all = 8 * span;
    const OwnedTensor a = random_weight(rng, format, first, 64), b = random_weight(rng, format, all - first, 64);
    const PackedWeight w = pack_weight(ctx, {a, b}, {id<F32>}, nullptr);
    ASSERT_EQ(w.rows.rows, all);
    std::vector<float> expected(64), got(64);
    for (int64_t r = 0; r < all; ++r) {
      info(format.codec).decode(r < first ? a.tensor : b.tensor, r < first ? r : r - first, 0, 64, expected.data());
      info(format.codec).decode(w.rows, r, 0, 64, got.data());
      EXPECT_EQ(std::memcmp(expected.data(), got.data(), 256), 0) << to_string(format) << " row " << r;
    }
  }
}

// Bytes of a row as panels may take them. Blocks of GGUF whose codes fit neither 4 nor 8 bits are widened, and the 4 or
// 6 bits of their inner scales too: to whole bytes.
int64_t row_bytes(Format w, int64_t k) {
  return visit(w.codec, [&]<class C>(C) {
    int64_t bytes = tensor_bytes(w, 1, k);
    if (C::kBits == 5 && C::kGroup == 32) bytes += k / 8 * 3;
    if constexpr (requires { typename C::Block; }) {
      using B = typename C::Block;
      const int64_t scales = B::kOffset ? 2 : 1, groups = k / B::kGroup;
      bytes = k * B::kField / 8;
      if constexpr (B::kSuper > 0) bytes += groups * scales + groups / B::kSuper * scales * 2;
      if constexpr (B::kSuper == 0) bytes += groups * (B::kHalf ? 2 : 4);
    }
    return bytes;
  });
}

TEST(MatmulLayout, PackedBytesAreThoseOfTheFormat) {
  const MatmulProblem spqr{{id<Spqr3>, 16}, {id<F32>, 0}, 64, 768};
  if (const WeightLayout* layout = choose_layout(spqr, default_isa())) {
    EXPECT_EQ(layout->bytes(spqr), tensor_bytes(spqr.w, 64, 768));
  }
  for (const Case& c : cases()) {
    if (c.w.group == 20 || info(c.w.codec).bits < 4) continue;  // padded; run as 4 bits
    if (c.layout->pack_on_gpu) continue;                        // scales are f32 there, whatever they were
    const int64_t n = 64, k = 768, panels = n / 16;
    const int64_t table = info(c.w.codec).table_bytes;  // a panel has its own
    EXPECT_LE(c.layout->bytes({c.w, c.x, n, k}), n * row_bytes(c.w, k) + panels * (63 + table))
        << c.layout->name << " " << to_string(c.w);
  }
}

}  // namespace
}  // namespace quire
