// Times of attention on a GPU: decode by cache format, batch and depth beside the memory's read ceiling; prompts;
// append.
//   bench_attention [--heads 32] [--kv-heads 8] [--dim 128] [--caches kvf16,kv8,...] [--batches 1,16,64]
//                   [--depths 1024,8192,32768,131072] [--prompts 1024,4096,8192] [--kernels mma,mma_fixed]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "kernels/attention.h"
#include "kernels/cuda/ceilings.h"
#include "kvcache/kv_cache.h"

namespace quire {
namespace {

constexpr int64_t kChunk = 8192, kMaxSets = 64, kBeyondCaches = int64_t(600) << 20;

struct Options {
  int64_t heads = 32, kv_heads = 8, dim = 128;
  std::vector<std::string> caches = {"kvf16", "kv8", "kvfp8", "k8v4", "kv4", "kv2", "kv4row", "kv3row", "kv2row"};
  std::vector<int64_t> batches = {1, 16, 64}, depths = {1024, 8192, 32768, 131072}, prompts = {1024, 4096, 8192};
  std::vector<std::string> kernels = {"mma", "mma_fixed"};
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}
std::vector<int64_t> numbers(const std::string& text) {
  std::vector<int64_t> list;
  for (const std::string& part : split(text)) list.push_back(std::stoll(part));
  return list;
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    check(i + 1 < argc, "bench_attention: {} has no value", name);
    const std::string value = argv[i + 1];
    if (name == "--heads")
      o.heads = std::stoll(value);
    else if (name == "--kv-heads")
      o.kv_heads = std::stoll(value);
    else if (name == "--dim")
      o.dim = std::stoll(value);
    else if (name == "--caches")
      o.caches = split(value);
    else if (name == "--batches")
      o.batches = numbers(value);
    else if (name == "--depths")
      o.depths = numbers(value);
    else if (name == "--prompts")
      o.prompts = numbers(value);
    else if (name == "--kernels")
      o.kernels = split(value);
    else
      fail(fmt::format("bench_attention: {} is no option; the first lines of its source list them", name));
  }
  return o;
}

Tensor f32_rows(const Buffer& data, int64_t rows, int64_t cols) {
  Tensor t;
  t.codec = id<F32>;
  t.device = Device::cuda;
  t.rows = rows;
  t.cols = cols;
  t.data = {data.data(), cols * 4, 1};
  return t;
}

class Bench {
 public:
  explicit Bench(const Options& o) : o_(o), info_(cuda::device_info(cuda::current_device())) {
    ctx_.device = Device::cuda;
    ctx_.pool = &pool_;
    ctx_.scratch = &scratch_;
    ctx_.stream = stream_.get();
    q_ = random(kChunk * o.heads * o.dim, 1);
    k_ = random(kChunk * o.kv_heads * o.dim, 2);
    v_ = random(kChunk * o.kv_heads * o.dim, 3);
    out_ = Buffer(q_.size(), Device::cuda);
    budget_ = std::min<int64_t>(cuda::free_memory() - (int64_t(3) << 30), int64_t(36) << 30);
  }
  void run();

 private:
  const Options& o_;
  const cuda::DeviceInfo& info_;
  ThreadPool pool_{1};
  Scratch scratch_{Device::cuda};
  cuda::Stream stream_;
  Context ctx_;
  Buffer q_, k_, v_, out_;
  int64_t budget_;
  double ceiling_ = 0.0;  // bytes a second

  Buffer random(int64_t count, uint32_t seed) const {
    std::vector<float> x(static_cast<size_t>(count));
    for (float& y : x) {
      seed = seed * 1664525u + 1013904223u;
      y = float(int32_t(seed)) * 0x1.0p-30f;
    }
    Buffer there(x.size() * 4, Device::cuda);
    cuda::copy_async(there.data(), x.data(), x.size() * 4, ctx_.stream);
    return there;
  }

  // Median of five, microseconds a call of run(i).
  template <class Fn>
  double time(Fn&& run) const {
    const auto measured = [&](int n) {
      stream_.synchronize();
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < n; ++i) run(i);
      stream_.synchronize();
      return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / n;
    };
    measured(3);
    const int n = std::clamp(int(15000.0 / measured(3)), 3, 1000);
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) times.push_back(measured(n));
    std::sort(times.begin(), times.end());
    return times[2];
  }

  KvCacheConfig config(const std::string& word, int64_t slots, int64_t tokens) const {
    KvCacheConfig c;
    c.layers = 1;
    c.kv_heads = o_.kv_heads;
    c.head_dim = o_.dim;
    c.scheme = parse_kv(word);
    c.slots = slots;
    c.pages = slots * ((tokens + kPageTokens - 1) / kPageTokens);
    c.max_tokens = tokens;
    c.device = Device::cuda;
    c.stream = ctx_.stream;
    return c;
  }
  Batch batch_of(const KvCache& cache, int64_t first_slot, int64_t sequences, int64_t count) const {
    Batch b;
    for (int64_t i = 0; i < sequences; ++i) {
      const int64_t position = cache.length(int32_t(first_slot + i));
      b.sequences.push_back({int32_t(first_slot + i), b.size(), count, position});
      for (int64_t t = 0; t < count; ++t) {
        b.tokens.push_back(int32_t((position + t) * 31 + first_slot + i));
        b.positions.push_back(int32_t(position + t));
      }
    }
    return b;
  }
  void append(KvCache& cache, const Batch& batch) {
    const int64_t width = o_.kv_heads * o_.dim;
    cache.append(ctx_, 0, batch, f32_rows(k_, batch.size(), width), f32_rows(v_, batch.size(), width));
  }
  void attend(KvCache& cache, const Batch& batch, const std::string& kernel) {
    const int64_t width = o_.heads * o_.dim;
    attention(ctx_, f32_rows(q_, batch.size(), width), cache.view(0), batch, o_.heads,
              f32_rows(out_, batch.size(), width), kernel);
  }
  // Sequences of `tokens`, page by page among each other as after some time of serving.
  void fill(KvCache& cache, int64_t slots, int64_t tokens) {
    for (int64_t i = 0; i < slots; ++i) cache.open();
    const int64_t step = std::min<int64_t>(slots, 16), piece = kChunk / step;
    for (int64_t at = 0; at < tokens; at += piece) {
      for (int64_t first = 0; first < slots; first += step) {
        Batch batch = batch_of(cache, first, std::min(step, slots - first), std::min(piece, tokens - at));
        upload_batch(ctx_, batch);
        for (const BatchSequence& s : batch.sequences) cache.reserve(s.slot, s.count);
        cache.begin_step(batch);
        append(cache, batch);
        cache.end_step(batch);
        scratch_.reset();
      }
    }
  }

  void decode(const std::string& word, int64_t batch, int64_t depth);
  void prompt(const std::string& word, int64_t tokens);
};

// Sets of sequences take turns, so that nothing is in a cache of the GPU.
void Bench::decode(const std::string& word, int64_t batch, int64_t depth) {
  const int64_t set_bytes = batch * KvCache::page_bytes(config(word, 1, depth)) * ((depth + 63) / 64);
  const int64_t sets = std::clamp<int64_t>(kBeyondCaches / set_bytes + 1, 1, kMaxSets);
  std::printf("%-8s %3d x %6d", word.c_str(), int(batch), int(depth));
  if (set_bytes > budget_) {
    std::printf("   its %.0f GB do not fit\n", double(set_bytes) / 1e9);
    return;
  }
  KvCache cache(config(word, batch * sets, depth));
  fill(cache, batch * sets, depth - 1);
  scratch_.reset();
  std::vector<Batch> turns;
  for (int64_t set = 0; set < sets; ++set) {
    turns.push_back(batch_of(cache, set * batch, batch, 1));
    upload_batch(ctx_, turns.back());
    for (const BatchSequence& s : turns.back().sequences) cache.reserve(s.slot, 1);
  }
  for (Batch& turn : turns) {  // every set has its last token; the last step's open pages stand for all sets'
    cache.begin_step(turn);
    append(cache, turn);
  }
  for (const std::string& kernel : o_.kernels) {
    const double us = time([&](int i) { attend(cache, turns[size_t(i % sets)], kernel); });
    std::printf("   %s %9.1f us %3.0f %%", kernel.c_str(), us, 100.0 * double(set_bytes) / (us * 1e-6) / ceiling_);
  }
  std::printf("   append %6.1f us\n", time([&](int) { append(cache, turns.back()); }));
}

void Bench::prompt(const std::string& word, int64_t tokens) {
  check(tokens <= kChunk, "bench_attention: prompts have at most {} tokens", kChunk);
  KvCache cache(config(word, 1, tokens));
  cache.open();
  cache.reserve(0, tokens);
  scratch_.reset();
  Batch batch = batch_of(cache, 0, 1, tokens);
  upload_batch(ctx_, batch);
  cache.begin_step(batch);
  append(cache, batch);
  const double us = time([&](int) { attend(cache, batch, o_.kernels.front()); });
  const double operations = 2.0 * double(tokens) * double(tokens) * double(o_.heads * o_.dim);  // half of a square
  std::printf("%-8s prompt of %5d   %s %9.1f us %5.0f TFLOPS   append %7.1f us\n", word.c_str(), int(tokens),
              o_.kernels.front().c_str(), us, operations / us / 1e6, time([&](int) { append(cache, batch); }));
}

void Bench::run() {
  {
    const int64_t bytes = int64_t(4) << 30;
    const Buffer big(size_t(bytes), Device::cuda), sink(4, Device::cuda);
    for (int blocks = 4 * info_.multiprocessors; blocks <= 16 * info_.multiprocessors; blocks *= 2) {
      uint32_t* there = reinterpret_cast<uint32_t*>(sink.data());
      const double us = time([&](int) { cuda::read_all(big.data(), bytes, blocks, there, ctx_.stream); });
      ceiling_ = std::max(ceiling_, double(bytes) / (us * 1e-6));
    }
  }
  std::printf("%s, %d multiprocessors, reads %.0f GB/s; %d heads on %d kv heads of %d\n", info_.name.c_str(),
              info_.multiprocessors, ceiling_ / 1e9, int(o_.heads), int(o_.kv_heads), int(o_.dim));
  std::printf("decode: batch x depth, a call's time and the cache's bytes over it in %% of what the GPU reads\n");
  for (const std::string& word : o_.caches) {
    for (const int64_t batch : o_.batches) {
      for (const int64_t depth : o_.depths) decode(word, batch, depth);
    }
    for (const int64_t tokens : o_.prompts) prompt(word, tokens);
  }
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    const quire::Options options = quire::parse(argc, argv);
    quire::check(quire::cuda::device_count() > 0, "bench_attention: no GPU ({})", quire::cuda::why_no_device());
    quire::Bench(options).run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
