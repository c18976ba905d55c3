// Attention on tensor cores against the exact softmax over what the cache holds, within a derived bound.
#include <gtest/gtest.h>

#include "tests/kv_steps.h"

namespace quire {
namespace {

// One query head over the cache, in double. mass: sum of |weight * value|, codes and offsets apart; widest: the largest
// sum of |q * key| of a token.
struct Exact {
  std::vector<double> out, mass;
  double widest = 0.0;
};

Tensor part_at(const KvView& view, const Batch& batch, size_t sequence, int64_t token, int64_t position, int64_t head,
               bool keys) {
  const BatchSequence& s = batch.sequences[sequence];
  const int64_t page = token / kPageTokens;
  const bool open = view.layout.sealed() && page == position / kPageTokens;
  std::byte* block = open ? view.open_block(int64_t(sequence), s, page, head) : view.block(s.slot, page, head);
  const KvLayout& layout = open ? view.open_layout : view.layout;
  return keys ? kv_keys(block, layout, &view.k_scale) : kv_values(block, layout, &view.v_scale);
}

// Calls fn(channel, scale * code, offset) for each channel of a row.
template <class Fn>
void each_term(const Tensor& part, int64_t row, Fn&& fn) {
  std::vector<float> codes(size_t(part.cols));
  info(part.codec).values(part, row, 0, part.cols, codes.data());
  for (int64_t c = 0; c < part.cols; ++c) {
    const AffineParams a = info(part.codec).affine(part, row, part.group_of(c));
    fn(size_t(c), double(a.scale) * double(codes[size_t(c)]), double(a.offset));
  }
}

Exact exact(const KvView& view, const Batch& batch, size_t sequence, int64_t position, int64_t kv_head,
            const float* q) {
  const size_t channels = size_t(view.layout.head_dim);
  Exact e{std::vector<double>(channels), std::vector<double>(channels), 0.0};
  std::vector<double> p;
  for (int64_t i = 0; i <= position; ++i) {
    double score = 0.0, wide = 0.0;
    each_term(part_at(view, batch, sequence, i, position, kv_head, true), i % kPageTokens,
              [&](size_t c, double coded, double offset) {
                const double x = double(q[c]) / std::sqrt(double(channels));
                score += x * (coded + offset);
                wide += std::fabs(x) * (std::fabs(coded) + std::fabs(offset));
              });
    p.push_back(score);
    e.widest = std::max(e.widest, wide);
  }
  const double peak = *std::max_element(p.begin(), p.end());
  double total = 0.0;
  for (double& x : p) total += x = std::exp(x - peak);
  for (int64_t i = 0; i <= position; ++i) {
    each_term(part_at(view, batch, sequence, i, position, kv_head, false), i % kPageTokens,
              [&](size_t c, double coded, double offset) {
                e.out[c] += p[size_t(i)] / total * (coded + offset);
                e.mass[c] += p[size_t(i)] / total * (std::fabs(coded) + std::fabs(offset));
              });
  }
  return e;
}

// What a result may be away from the exact one, times its mass.
double tolerance(const Exact& e, int64_t position) {
  constexpr double kF32 = 0x1.0p-24, kF16 = 0x1.0p-11;
  const double channels = double(e.out.size()), tokens = double(position + 1);
  // q is rounded to f16, q times a channel's scale once more: a score is off by 2 * 2^-11 of its terms, the ratio of a
  // weight to the total by the exponential of twice that. A weight is rounded to f16 with its value's scale, and where
  // a page is decoded to f16 the value too.
  const double halves = std::expm1(2.0 * 2.0 * kF16 * e.widest) + 2.0 * kF16;
  // f32: C products and C sums of a score, sixteen roundings beside them; exp2 is within 2^-21; the chain over the
  // tokens.
  const double floats =
      std::expm1(2.0 * (2.0 * channels + 16.0) * kF32 * e.widest + 0x1.0p-20) + (2.0 * tokens + 16.0) * kF32;
  return halves + 2.0 * floats;
}

class AttentionMma : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  }
  Machines machines_;
  Rng rng_{33};

  struct Caches {
    KvCache here, there;
  };
  Caches caches(const KvShape& shape, int64_t pages, int64_t slots, int64_t tokens) {
    KvCacheConfig config = kv_config(shape, GetParam(), pages, slots, tokens);
    KvCacheConfig on_gpu = config;
    on_gpu.device = Device::cuda;
    on_gpu.stream = machines_.gpu().stream;
    return {KvCache(config), KvCache(on_gpu)};
  }

  // The same step in both caches; some rows of each sequence are compared with the exact result.
  void step(const KvShape& shape, Caches& c, const std::vector<KvPiece>& pieces, const char* kernel) {
    const Batch batch = kv_batch(c.here, pieces);
    kv_step(machines_.context(), shape, c.here, pieces);
    const std::vector<float> got = kv_step(machines_.gpu(), shape, c.there, pieces, kernel);
    const KvView view = c.here.view(0);
    const int64_t wide = shape.heads * shape.channels;
    for (size_t i = 0; i < pieces.size(); ++i) {
      const BatchSequence& s = batch.sequences[i];
      for (int64_t t = 0; t < s.count; ++t) {
        if (t > 1 && t + 1 < s.count && rng_() % 23 != 0) continue;
        const int64_t position = s.position + t;
        for (int64_t head = 0; head < shape.heads; ++head) {
          const float* q = pieces[i].sequence->q.data() + position * wide + head * shape.channels;
          const Exact e = exact(view, batch, i, position, head / (shape.heads / shape.kv_heads), q);
          const float* out = got.data() + (s.first + t) * wide + head * shape.channels;
          for (size_t ch = 0; ch < e.out.size(); ++ch) {
            ASSERT_NEAR(double(out[ch]), e.out[ch], tolerance(e, position) * e.mass[ch])
                << kernel << ": sequence " << i << ", position " << position << ", head " << head << ", channel " << ch;
          }
        }
      }
    }
  }
};

TEST_P(AttentionMma, NearTheExactSoftmax) {
  for (const char* kernel : {"mma", "mma_fixed", "mma_prefill"}) {
    for (const KvShape& shape : {KvShape{8, 2, 128}, KvShape{6, 2, 64}, KvShape{4, 4, 64}, KvShape{12, 1, 128}}) {
      constexpr int64_t kTokens = 300;
      Caches c = caches(shape, 5 * 5, 5, kTokens);
      std::vector<KvSequence> data;
      std::vector<int32_t> slots;
      for (int i = 0; i < 5; ++i) {
        data.push_back(random_sequence(rng_, shape, kTokens));
        slots.push_back(c.here.open());
        ASSERT_EQ(c.there.open(), slots.back());
      }
      for (int round = 0; round < 9; ++round) {
        std::vector<KvPiece> pieces;
        for (size_t i = 0; i < data.size(); ++i) {
          const int64_t length = c.here.length(slots[i]), left = kTokens - length;
          int64_t n = round == 0 ? between(rng_, 1, 200) : rng_() % 4 == 0 ? between(rng_, 2, 90) : 1;
          if (round == 3 && i % 2 == 1) n = kPageTokens - length % kPageTokens;  // up to the end of a page
          if (round > 0 && rng_() % 6 == 0) continue;
          if (std::min(n, left) > 0) pieces.push_back({slots[i], &data[i], std::min(n, left)});
        }
        ASSERT_NO_FATAL_FAILURE(step(shape, c, pieces, kernel));
      }
    }
  }
}

TEST_P(AttentionMma, LongSequencesAreCutAndMerged) {
  const KvShape shape{8, 2, 128};
  Caches c = caches(shape, 50, 2, 1600);
  const KvSequence a = random_sequence(rng_, shape, 1600), b = random_sequence(rng_, shape, 1600);
  const int32_t first = c.here.open(), second = c.here.open();
  ASSERT_EQ(c.there.open(), first);
  ASSERT_EQ(c.there.open(), second);
  ASSERT_NO_FATAL_FAILURE(step(shape, c, {{first, &a, 1500}, {second, &b, 700}}, "mma"));
  for (const char* kernel : {"mma", "mma_fixed", "mma"}) {
    ASSERT_NO_FATAL_FAILURE(step(shape, c, {{first, &a, 1}, {second, &b, 1}}, kernel));
  }
}

// Cut by its own length, a sequence gives the same bits alone and beside others.
TEST_P(AttentionMma, FixedCutsDoNotSeeTheBatch) {
  const KvShape shape{8, 2, 64};
  const KvSequence a = random_sequence(rng_, shape, 1100), b = random_sequence(rng_, shape, 400);
  Caches alone = caches(shape, 18, 1, 1100), beside = caches(shape, 40, 4, 1100);
  const Context gpu = machines_.gpu();
  const int32_t only = alone.there.open(), x = beside.there.open(), y = beside.there.open(), z = beside.there.open();
  kv_step(gpu, shape, alone.there, {{only, &a, 1090}}, "mma_fixed");
  kv_step(gpu, shape, beside.there, {{x, &b, 333}, {y, &a, 1090}, {z, &b, 64}}, "mma_fixed");
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> expected = kv_step(gpu, shape, alone.there, {{only, &a, 1}}, "mma_fixed");
    std::vector<float> got =
        kv_step(gpu, shape, beside.there, {{x, &b, 1}, {y, &a, 1}, {z, &b, i == 1 ? 30 : 1}}, "mma_fixed");
    got.erase(got.begin(), got.begin() + shape.heads * shape.channels);
    got.resize(expected.size());
    EXPECT_EQ(first_difference(got, expected), "") << i;
  }
}

// In one kernel and uncut, a token's bits depend neither on the batch nor on how its sequence was cut.
TEST_P(AttentionMma, PrefillAloneSeesNeitherBatchNorChunks) {
  const KvShape shape{8, 2, 64};
  const KvSequence a = random_sequence(rng_, shape, 300), b = random_sequence(rng_, shape, 400);
  Caches alone = caches(shape, 6, 1, 300), beside = caches(shape, 20, 3, 400);
  const Context gpu = machines_.gpu();
  const int32_t only = alone.there.open(), x = beside.there.open(), y = beside.there.open();
  const std::vector<float> expected = kv_step(gpu, shape, alone.there, {{only, &a, 300}}, "mma_prefill");
  std::vector<float> got;
  for (const int64_t n : {1, 1, 61, 1, 70, 2, 90, 74}) {
    const std::vector<float> both = kv_step(gpu, shape, beside.there, {{x, &b, n % 40 + 1}, {y, &a, n}}, "mma_prefill");
    got.insert(got.end(), both.begin() + (n % 40 + 1) * shape.heads * shape.channels, both.end());
  }
  EXPECT_EQ(first_difference(got, expected), "");
}

INSTANTIATE_TEST_SUITE_P(Kinds, AttentionMma, testing::ValuesIn(kCacheWords));

TEST(AttentionKernels, ForcedByName) {
  Machines machines;
  const KvShape shape{4, 2, 64};
  KvCache cache(kv_config(shape, "kv8", 2, 1, 64));
  Rng rng(5);
  const KvSequence s = random_sequence(rng, shape, 10);
  const int32_t slot = cache.open();
  EXPECT_THROW(kv_step(machines.context(), shape, cache, {{slot, &s, 1}}, "mma"), Error) << "on the CPU";
  KvCache other(kv_config(shape, "kv8", 2, 1, 64));
  EXPECT_EQ(kv_step(machines.context(), shape, other, {{other.open(), &s, 5}}, "generic").size(), 5u * 4 * 64);
}

}  // namespace
}  // namespace quire
