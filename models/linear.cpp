#include "models/linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels/convert.h"

namespace quire {

Format activation_format(const Scheme& scheme, Format weight, const std::optional<Format>& stored) {
  if (!scheme.native_activation) return scheme.activation;
  if (stored) return *stored;
  const CodecInfo& codec = info(weight.codec);
  // Blocks whose groups are of 16 too: so that every block of a file reads the same activations.
  if (codec.integer && codec.group > 0) return {id<Int8>, std::max(32, codec.group)};
  return {id<F32>, 0};
}

OwnedTensor tensor_in(const Context& ctx, const Tensor& src, Format format) {
  OwnedTensor there;
  if (ctx.device == Device::cuda) there = tensor_on(Device::cuda, src, ctx.stream);
  if (ctx.device == Device::cuda && format_of(src) == format) return there;
  OwnedTensor out = make_tensor(format, src.rows, src.cols, {.device = ctx.device});
  convert(ctx, ctx.device == Device::cuda ? there.tensor : src, out);
  return out;
}

namespace {

// Rows that are converted and packed at once: a few megabytes, in whole blocks of any layout or shared scale.
int64_t slice_rows(int64_t k) {
  constexpr int64_t kValues = 1 << 20, kBlock = 256;
  return std::max<int64_t>(1, kValues / std::max<int64_t>(k, 1) / kBlock) * kBlock;
}

std::string short_name(const std::string& name) { return name.substr(name.rfind('.') + 1); }

std::vector<float> load_bias(const Checkpoint& checkpoint, const std::vector<std::string>& names, int64_t n) {
  std::vector<float> bias;
  int64_t at = 0;
  for (const std::string& name : names) {
    const int64_t rows = checkpoint.get(name + ".weight").rows;
    if (const CheckpointTensor* b = checkpoint.find(name + ".bias")) {
      bias.resize(size_t(n), 0.0f);
      info(b->tensor.codec).decode(b->tensor, 0, 0, rows, bias.data() + at);
    }
    at += rows;
  }
  return bias;
}

// A slice where the context computes.
struct Slice {
  Slice(const Context& ctx, const Tensor& host) : tensor(host) {
    if (ctx.device == Device::cpu) return;
    copy = tensor_on(ctx.device, host, ctx.stream);
    tensor = copy.tensor;
  }
  OwnedTensor copy;
  Tensor tensor;
};

// Matrices one after the other as one in `problem.w` (rows that are in it already are copied bit for bit), a slice at a
// time: neither a converted matrix nor its source need be in memory whole beside the packed one.
PackedWeight pack_converted(const Context& ctx, const Checkpoint& checkpoint, const std::vector<Tensor>& sources,
                            const MatmulProblem& problem, const WeightLayout* layout) {
  PackedWeight w = empty_weight(problem, layout, ctx.device);
  const int64_t rows = slice_rows(problem.k);
  const OwnedTensor slice = make_tensor(problem.w, rows, problem.k, {.device = ctx.device});
  int64_t filled = 0, row0 = 0;
  for (const Tensor& src : sources) {
    for (int64_t r = 0, n = 0; r < src.rows; r += n) {
      n = std::min(src.rows - r, rows - filled);
      convert(ctx, Slice(ctx, rows_of(src, r, n)).tensor, rows_of(slice, filled, n));
      checkpoint.release(rows_of(src, r, n));
      filled += n;
      if (filled < rows && row0 + filled < problem.n) continue;
      pack_slice(ctx, rows_of(slice, 0, filled), row0, w);
      row0 += filled;
      filled = 0;
    }
  }
  return w;
}

// The same of matrices that are in the format already; each starts on a multiple of 64 rows.
PackedWeight pack_as_stored(const Context& ctx, const Checkpoint& checkpoint, const std::vector<Tensor>& sources,
                            const MatmulProblem& problem, const WeightLayout* layout) {
  PackedWeight w = empty_weight(problem, layout, ctx.device);
  const int64_t rows = slice_rows(problem.k);
  int64_t row0 = 0;
  for (const Tensor& src : sources) {
    for (int64_t r = 0; r < src.rows; r += rows) {
      const Tensor slice = rows_of(src, r, std::min(rows, src.rows - r));
      pack_slice(ctx, Slice(ctx, slice).tensor, row0 + r, w);
      checkpoint.release(slice);
    }
    row0 += src.rows;
  }
  return w;
}

// Float activations become halfs where tensor cores can then multiply them with such weights.
Format halfs_on_gpu(const Context& ctx, MatmulProblem problem) {
  if (ctx.device == Device::cpu || problem.x.codec != id<F32>) return problem.x;
  for (const Codec half : {id<F16>, id<BF16>}) {
    problem.x = {half, 0};
    if (choose_layout(problem, ctx.isa, ctx.device)) return problem.x;
  }
  return {id<F32>, 0};
}

// Blocks of GGUF files carry their scales among their codes, so only whoever reads all of them meets a scale that would
// make every logit NaN. Scales that lie apart are checked by the reader.
void check_blocks(const Context& ctx, const Checkpoint& checkpoint, const Tensor& t, const std::string& name) {
  const CodecInfo& codec = info(t.codec);
  if (codec.group == 0) return;
  constexpr float kLargestCode = 128.0f;
  std::atomic<int64_t> bad{-1};
  const int64_t rows = slice_rows(t.cols);
  for (int64_t r0 = 0; r0 < t.rows && bad < 0; r0 += rows) {
    const Tensor slice = rows_of(t, r0, std::min(rows, t.rows - r0));
    ctx.parallel_for(slice.rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        bool finite = true;
        for (int64_t g = 0; g < slice.groups(); ++g) {
          const AffineParams a = codec.affine(slice, r, g);
          finite = finite && std::isfinite(a.scale * kLargestCode) && std::isfinite(a.offset);
        }
        if (!finite) bad = r0 + r;
      }
    });
    checkpoint.release(slice);
  }
  check(bad < 0, "tensor '{}' ({}) has a scale that is not finite in row {}", name, describe(t), bad.load());
}

// Weights of consecutive names that agree in format, packed together.
LinearPart load_part(const Context& ctx, const Checkpoint& checkpoint, const std::vector<std::string>& names,
                     Format weight, Format activation) {
  LinearPart part;
  std::vector<Tensor> sources;
  MatmulProblem problem{weight, activation, 0, 0};
  bool stored = true, aligned = true;
  for (const std::string& name : names) {
    const Tensor& src = checkpoint.get(name + ".weight");
    check_blocks(ctx, checkpoint, src, name + ".weight");
    stored = stored && format_of(src) == weight;
    aligned = aligned && problem.n % 64 == 0;
    sources.push_back(src);
    problem.n += src.rows;
    problem.k = src.cols;
    part.names += (part.names.empty() ? "" : "+") + short_name(name);
  }
  problem.x = halfs_on_gpu(ctx, problem);
  part.bias = load_bias(checkpoint, names, problem.n);
  const bool gpu = ctx.device == Device::cuda;
  const WeightLayout* const layout = choose_layout(problem, ctx.isa, ctx.device);
  if (!stored || (gpu && layout && !aligned)) {  // layouts take multiples of 64 rows: others are copied together first
    part.weight = pack_converted(ctx, checkpoint, sources, problem, layout);
  } else if (gpu || (layout && aligned)) {
    part.weight = pack_as_stored(ctx, checkpoint, sources, problem, layout);
  } else {
    part.weight = pack_weight(ctx, sources, problem.x, layout);
  }
  const bool used_as_it_lies = part.weight.data.size() == 0;
  for (const std::string& name : names) {
    if (!used_as_it_lies) checkpoint.release(name + ".weight");
  }
  if (gpu && !part.bias.empty()) {
    part.device_bias = Buffer(part.bias.size() * sizeof(float), Device::cuda);
    if constexpr (kCuda) {
      cuda::copy_async(part.device_bias.data(), part.bias.data(), part.device_bias.size(), ctx.stream);
    }
  }
  return part;
}

}  // namespace

Linear Linear::load(const Context& ctx, const Checkpoint& checkpoint, const std::vector<std::string>& names,
                    const Scheme& scheme, Format format) {
  Linear linear;
  struct Kind {  // what decides whether matrices can be one
    Format weight, activation;
    std::shared_ptr<const InputTransform> input;
    bool operator==(const Kind& o) const {
      return weight == o.weight && activation == o.activation &&
             (input == o.input || (input && o.input && *input == *o.input));
    }
  };
  const auto kind_of = [&](const std::string& name) {
    checkpoint.get(name + ".weight");  // Error if it is missing
    const CheckpointTensor& t = *checkpoint.find(name + ".weight");
    const Format weight = scheme.native ? format_of(t.tensor) : format;
    return Kind{weight, activation_format(scheme, weight, t.activation), t.input};
  };
  for (size_t i = 0; i < names.size();) {
    const Kind kind = kind_of(names[i]);
    std::vector<std::string> together;
    while (i < names.size() && kind_of(names[i]) == kind) together.push_back(names[i++]);
    LinearPart part = load_part(ctx, checkpoint, together, kind.weight, kind.activation);
    part.transform = LoadedTransform(ctx, kind.input, part.weight.problem.k);
    part.begin = linear.n_;
    linear.n_ += part.weight.problem.n;
    linear.k_ = part.weight.problem.k;
    linear.parts_.push_back(std::move(part));
  }
  for (const std::string& name : names) {
    std::string word = short_name(name);
    if (const size_t end = word.rfind("_proj"); end != std::string::npos) word.resize(end);
    linear.label_ += (linear.label_.empty() ? "matmul " : "+") + word;
  }
  linear.input_ = linear.parts_[0].weight.problem.x;
  for (const LinearPart& part : linear.parts_) {
    if (part.transform || !(part.weight.problem.x == linear.input_)) linear.input_ = {id<F32>, 0};
  }
  return linear;
}

void Linear::run(const Context& ctx, const Tensor& x, const Tensor& y, const float* residual) const {
  const ProfileScope scope(ctx.profile, label_, [&] {
    return OpCost{bytes() + tensor_bytes(x) + (residual ? 2 : 1) * tensor_bytes(y), 2 * x.rows * n_ * k_};
  });
  for (const LinearPart& part : parts_) {
    const Format wanted = part.weight.problem.x;
    Tensor in = part.transform ? part.transform.apply(ctx, x) : x;
    if (!(format_of(in) == wanted)) {
      const bool sums = wanted.codec == id<Int8>;
      const StorageOptions options{.row_align = 64, .sums = sums, .device = ctx.device};
      const Tensor from = in;
      in = place_tensor(ctx.scratch->take_bytes(size_t(storage_bytes(wanted, x.rows, x.cols, options))), wanted, x.rows,
                        x.cols, options);
      convert(ctx, from, in);
    }
    Epilogue epilogue;
    if (!part.bias.empty()) epilogue.bias = part.bias.data();
    if (part.device_bias.data()) epilogue.bias = reinterpret_cast<const float*>(part.device_bias.data());
    if (residual) epilogue.residual = residual + part.begin;
    matmul(ctx, in, part.weight, cols_of(y, part.begin, part.weight.problem.n), epilogue);
  }
}

void Linear::decode_row(int64_t row, float* out) const {
  for (const LinearPart& part : parts_) {
    if (row >= part.begin + part.weight.problem.n) continue;
    const PackedWeight& w = part.weight;
    if (w.layout) {
      w.layout->unpack(w.data.data(), w.problem, row - part.begin, out);
    } else {
      info(w.rows.codec).decode(w.rows, row - part.begin, 0, k_, out);
    }
    return;
  }
  fail(fmt::format("linear: row {} of {}", row, n_));
}

int64_t Linear::bytes() const {
  int64_t total = 0;
  for (const LinearPart& part : parts_) {
    const PackedWeight& w = part.weight;
    total += w.layout ? w.layout->bytes(w.problem) : tensor_bytes(w.problem.w, w.problem.n, w.problem.k);
    total += int64_t(part.bias.size() * sizeof(float));
  }
  return total;
}

std::string Linear::description() const {
  std::string text;
  for (const LinearPart& part : parts_) {
    text += fmt::format("{}{}: {} x {} in {}", text.empty() ? "" : ", ", part.names, to_string(part.weight.problem.w),
                        to_string(part.weight.problem.x), part.weight.layout ? part.weight.layout->name : "rows");
    if (part.transform) text += fmt::format(" ({})", part.transform.description());
  }
  return text;
}

}  // namespace quire
