#include "models/linear.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/convert.h"
#include "kernels/outliers.h"
#include "models/check_finite.h"

namespace quire {

Format activation_format(const Scheme& scheme, Format weight, const std::optional<Format>& stored) {
  if (!scheme.native_activation) return scheme.activation;
  if (stored) return *stored;
  const CodecInfo& codec = info(weight.codec);
  // Blocks whose groups are of 16 too: so that every block of a file reads the same activations.
  if (codec.integer && codec.group > 0) return {id<Int8>, std::max(32, codec.group)};
  return {id<F32>, 0};
}

namespace {

std::string short_name(const std::string& name) { return name.substr(name.rfind('.') + 1); }

std::vector<float> load_bias(SliceReader& reader, const std::vector<std::string>& names, int64_t n) {
  std::vector<float> bias;
  int64_t at = 0;
  for (const std::string& name : names) {
    if (reader.checkpoint().find(name + ".bias")) {
      bias.resize(size_t(n), 0.0f);
      const std::vector<float> values = reader.read_vector(name + ".bias");
      std::copy(values.begin(), values.end(), bias.begin() + at);
    }
    at += reader.checkpoint().listed(name + ".weight").tensor.rows;
  }
  return bias;
}

// Matrices one after the other as one in `problem.w` (rows that are in it already are copied bit for bit), a slice at a
// time: neither a converted matrix nor its source need be in memory whole beside the packed one.
PackedWeight pack_converted(SliceReader& reader, const PartPlan& plan) {
  const Context& ctx = reader.context();
  PackedWeight w = empty_weight(plan.problem, plan.layout, ctx.device);
  const int64_t rows = slice_rows(plan.problem.k);
  const OwnedTensor slice = make_tensor(plan.problem.w, rows, plan.problem.k, {.device = ctx.device});
  int64_t filled = 0, row0 = 0;
  for (const std::string& name : plan.names) {
    const int64_t total = reader.checkpoint().listed(name + ".weight").tensor.rows;
    for (int64_t r = 0, n = 0; r < total; r += n) {
      n = std::min(total - r, rows - filled);
      const Tensor in = reader.read_values(name + ".weight", r, n);
      convert(ctx, in, rows_of(slice, filled, n));
      reader.release(in);
      filled += n;
      if (filled < rows && row0 + filled < plan.problem.n) continue;
      pack_slice(ctx, rows_of(slice, 0, filled), row0, w);
      row0 += filled;
      filled = 0;
    }
  }
  return w;
}

// The same of matrices that are in the format already; each starts on a multiple of 64 rows.
PackedWeight pack_as_stored(SliceReader& reader, const PartPlan& plan) {
  const Context& ctx = reader.context();
  PackedWeight w = empty_weight(plan.problem, plan.layout, ctx.device);
  const int64_t rows = slice_rows(plan.problem.k);
  int64_t row0 = 0;
  for (const std::string& name : plan.names) {
    const int64_t total = reader.checkpoint().listed(name + ".weight").tensor.rows;
    for (int64_t r = 0; r < total; r += rows) {
      const Tensor in = reader.read(name + ".weight", r, std::min(rows, total - r));
      pack_slice(ctx, in, row0 + r, w);
      reader.release(in);
    }
    row0 += total;
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

LoadedOutliers load_outliers(const Context& ctx, const Checkpoint& checkpoint, const PartPlan& plan) {
  if (plan.outliers == 0) return {};
  SparseMatrix all;
  all.cols = plan.problem.k;
  for (const std::string& name : plan.names) all.append(checkpoint.outliers(name + ".weight"));
  LoadedOutliers there{all.view(), Buffer(all.begins.size() * 4, ctx.device),
                       Buffer(all.entries.size() * 4, ctx.device)};
  if (ctx.device == Device::cpu) {
    std::memcpy(there.begins.data(), all.begins.data(), there.begins.size());
    std::memcpy(there.entries.data(), all.entries.data(), there.entries.size());
  }
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      cuda::copy_async(there.begins.data(), all.begins.data(), there.begins.size(), ctx.stream);
      cuda::copy_async(there.entries.data(), all.entries.data(), there.entries.size(), ctx.stream);
      cuda::synchronize(ctx.stream);
    }
  }
  there.rows.begins = reinterpret_cast<const int32_t*>(there.begins.data());
  there.rows.entries = reinterpret_cast<const uint32_t*>(there.entries.data());
  return there;
}

// Weights of consecutive names that agree in format, packed together.
LinearPart load_part(SliceReader& reader, const PartPlan& plan) {
  const Context& ctx = reader.context();
  const Checkpoint& checkpoint = reader.checkpoint();
  LinearPart part;
  if (!checkpoint.dummy()) {
    for (const std::string& name : plan.names) {
      check_finite(ctx, checkpoint, name + ".weight");
    }
  }
  part.bias = load_bias(reader, plan.names, plan.problem.n);
  // What lies in host memory can be used as it lies, or be packed whole.
  const bool copied = std::any_of(plan.names.begin(), plan.names.end(),
                                  [&](const auto& name) { return checkpoint.copied_by_rows(name + ".weight"); });
  const bool slices = ctx.device == Device::cuda || checkpoint.dummy().has_value() || copied;
  if (!plan.stored || (slices && plan.layout && !plan.aligned)) {
    part.weight = pack_converted(reader, plan);  // layouts take multiples of 64 rows: others are copied together first
  } else if (slices || (plan.layout && plan.aligned)) {
    part.weight = pack_as_stored(reader, plan);
  } else {
    std::vector<Tensor> sources;
    for (const std::string& name : plan.names) sources.push_back(checkpoint.get(name + ".weight"));
    part.weight = pack_weight(ctx, sources, plan.problem.x, plan.layout);
  }
  part.outliers = load_outliers(ctx, checkpoint, plan);
  const bool used_as_it_lies = part.weight.data.size() == 0;
  for (const std::string& name : plan.names) {
    if (!used_as_it_lies) checkpoint.release(name + ".weight");
  }
  if (ctx.device == Device::cuda && !part.bias.empty()) {
    part.device_bias = Buffer(part.bias.size() * sizeof(float), Device::cuda);
    if constexpr (kCuda) {
      cuda::copy_async(part.device_bias.data(), part.bias.data(), part.device_bias.size(), ctx.stream);
    }
  }
  return part;
}

// On the context's device; 0: none.
Buffer static_scale(const Context& ctx, float scale) {
  if (scale == 0.0f) return {};
  Buffer buffer(sizeof(float), ctx.device);
  if (ctx.device == Device::cpu) std::memcpy(buffer.data(), &scale, sizeof(float));
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      cuda::copy_async(buffer.data(), &scale, sizeof(float), ctx.stream);
      cuda::synchronize(ctx.stream);
    }
  }
  return buffer;
}

// Parts of a matrix whose outputs are transformed as one: all of its rows, in its order.
void order_by_output(PartPlan& part) {
  std::vector<size_t> order(part.names.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return part.segments[a].from < part.segments[b].from; });
  PartPlan sorted = part;
  int64_t row = 0;
  bool whole = true;
  part.aligned = true;
  for (size_t i = 0; i < order.size(); ++i) {
    part.names[i] = sorted.names[order[i]];
    part.segments[i] = sorted.segments[order[i]];
    whole = whole && part.segments[i].from == row;
    part.aligned = part.aligned && row % 64 == 0;
    row += part.segments[i].count;
  }
  check(whole && row == int64_t(part.output->diagonal.size()),
        "'{}' is a part of a matrix of {} rows whose outputs are transformed together (QuIP#): it cannot run without "
        "the others",
        part.names[0], part.output->diagonal.size());
}

// Activations in scratch; with one static scale unless it is empty.
Tensor scratch_for(const Context& ctx, Format format, int64_t rows, int64_t cols, std::byte* scale) {
  const StorageOptions options{.row_align = 64, .sums = format.codec == id<Int8>, .device = ctx.device};
  Tensor t = place_tensor(ctx.scratch->take_bytes(size_t(storage_bytes(format, rows, cols, options))), format, rows,
                          cols, options);
  if (scale) t.scale = {scale, 0, 1};
  return t;
}

}  // namespace

std::vector<PartPlan> plan_linear(const Context& ctx, const Checkpoint& checkpoint,
                                  const std::vector<std::string>& names, const Scheme& scheme, Format format) {
  std::vector<PartPlan> parts;
  std::optional<Format> activation;  // of the last part, before halfs
  for (const std::string& name : names) {
    const CheckpointTensor& t = checkpoint.listed(name + ".weight");
    const Format weight = scheme.native ? format_of(t.tensor) : format;
    const float input_scale = scheme.native_activation ? t.input_scale : 0.0f;
    // In other weights floats take the place of int8 with outliers.
    const bool takes_outliers = t.outlier_threshold > 0.0f && scheme.native_activation;
    const bool can_take = weight == Format{id<Int8>, 0};
    const float threshold = takes_outliers && can_take ? t.outlier_threshold : 0.0f;
    const Format wanted =
        takes_outliers && !can_take ? Format{id<F32>, 0} : activation_format(scheme, weight, t.activation);
    if (parts.empty() || !parts.back().can_hold(weight, t, input_scale, threshold) || !(activation == wanted)) {
      parts.emplace_back();
      parts.back().problem = {weight, wanted, 0, t.tensor.cols};
      parts.back().input = t.input;
      parts.back().input_scale = input_scale;
      parts.back().outlier_threshold = threshold;
      parts.back().output = t.output;
      activation = wanted;
    }
    PartPlan& part = parts.back();
    part.names.push_back(name);
    if (t.output) part.segments.push_back({t.output_row, part.problem.n, t.tensor.rows});
    part.stored = part.stored && format_of(t.tensor) == weight;
    part.aligned = part.aligned && part.problem.n % 64 == 0;
    part.problem.n += t.tensor.rows;
    part.outliers += t.outliers;
    part.bias = part.bias || checkpoint.has(name + ".bias");
  }
  for (PartPlan& part : parts) {
    if (!part.stored) part.outliers = 0;  // what is converted has them in it
    if (part.output) order_by_output(part);
    part.problem.x = halfs_on_gpu(ctx, part.problem);
    part.layout = choose_layout(part.problem, ctx.isa, ctx.device);
  }
  return parts;
}

bool PartPlan::can_hold(Format weight, const CheckpointTensor& t, float scale, float threshold) const {
  return problem.w == weight && input_scale == scale && outlier_threshold == threshold && output == t.output &&
         (input == t.input || (input && t.input && *input == *t.input));
}

int64_t PartPlan::bytes() const {
  return (layout ? layout->bytes(problem) : tensor_bytes(problem.w, problem.n, problem.k)) +
         sparse_bytes(problem.n, outliers) + (bias ? problem.n * int64_t(sizeof(float)) : 0) +
         (input ? input->bytes() : 0) + (output ? output->bytes() : 0);
}

std::string PartPlan::description() const {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : "+") + short_name(name);
  text = fmt::format("{}: {} x {} in {}", text, to_string(problem.w), to_string(problem.x),
                     layout ? layout->name : "rows");
  if (outliers > 0) text += " and outliers";
  if (outlier_threshold > 0) text += fmt::format(", x from {:g} in halfs", outlier_threshold);
  if (input_scale != 0.0f) text += " (static scale)";
  if (input) text += fmt::format(" ({})", describe(*input));
  return output ? text + fmt::format(" ({})", describe(*output)) : text;
}

Tensor Linear::input_tensor(const Context& ctx, int64_t rows) const {
  return scratch_for(ctx, input_, rows, k_, static_input_ ? parts_[0].input_scale.data() : nullptr);
}

Linear Linear::load(const Context& ctx, const Checkpoint& checkpoint, const std::vector<std::string>& names,
                    const Scheme& scheme, Format format) {
  SliceReader reader(ctx, checkpoint);
  return load(reader, names, scheme, format);
}

Linear Linear::load(SliceReader& reader, const std::vector<std::string>& names, const Scheme& scheme, Format format) {
  Linear linear;
  for (const PartPlan& plan : plan_linear(reader.context(), reader.checkpoint(), names, scheme, format)) {
    LinearPart part = load_part(reader, plan);
    part.transform = LoadedTransform(reader.context(), plan.input, plan.problem.k);
    part.outlier_threshold = plan.outlier_threshold;
    part.output = LoadedOutput(reader.context(), plan.output, plan.segments);
    part.input_scale = static_scale(reader.context(), plan.input_scale);
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
    const bool apart = &part != &linear.parts_[0] && (part.input_scale.data() || linear.parts_[0].input_scale.data());
    if (part.transform || part.outlier_threshold > 0 || apart || !(part.weight.problem.x == linear.input_))
      linear.input_ = {id<F32>, 0};
  }
  linear.static_input_ = linear.parts_[0].input_scale.data() && linear.input_ == linear.parts_[0].weight.problem.x;
  return linear;
}

namespace {
// Tensor cores that multiply such weights and activations.
OpUnit unit_of(const MatmulProblem& p) {
  if (p.x.codec == id<Int8>) return info(p.w.codec).integer ? OpUnit::int8 : OpUnit::none;
  if (p.x.codec == id<E4M3>) return OpUnit::e4m3;
  return p.x.codec == id<F16> || p.x.codec == id<BF16> ? OpUnit::f16 : OpUnit::none;
}
}  // namespace

void Linear::run(const Context& ctx, const Tensor& x, const Tensor& y, const float* residual) const {
  const ProfileScope scope(ctx.profile, label_, [&] {
    return OpCost{bytes() + tensor_bytes(x) + (residual ? 2 : 1) * tensor_bytes(y), 2 * x.rows * n_ * k_,
                  unit_of(parts_[0].weight.problem)};
  });
  for (const LinearPart& part : parts_) {
    const Scratch::Scope scratch(*ctx.scratch);
    const Format wanted = part.weight.problem.x;
    Tensor in = part.transform ? part.transform.apply(ctx, x) : x;
    TokenOutliers taken;  // elements of x that are not quantized
    if (part.outlier_threshold > 0) {
      const Tensor from = in;
      in = scratch_for(ctx, wanted, x.rows, x.cols, nullptr);
      taken = take_outliers(ctx, from, part.outlier_threshold, in);
    } else if (!(format_of(in) == wanted)) {
      const Tensor from = in;
      in = scratch_for(ctx, wanted, x.rows, x.cols, part.input_scale.data());
      convert(ctx, from, in);
    }
    Epilogue epilogue;
    if (!part.bias.empty()) epilogue.bias = part.bias.data();
    if (part.device_bias.data()) epilogue.bias = reinterpret_cast<const float*>(part.device_bias.data());
    if (residual) epilogue.residual = residual + part.begin;
    const int64_t n = part.weight.problem.n;
    const Tensor out = cols_of(y, part.begin, n);
    const Tensor product = part.output ? scratch_for(ctx, {id<F32>, 0}, x.rows, n, nullptr) : out;
    matmul(ctx, in, part.weight, product, part.output ? Epilogue{} : epilogue);
    if (part.outliers.rows.count > 0) add_sparse(ctx, in, part.outliers.rows, product);
    if (part.outlier_threshold > 0) add_outliers(ctx, taken, part.weight, product);
    if (part.output) part.output.apply(ctx, product, out, epilogue);
  }
}

void Linear::decode_row(int64_t row, float* out) const {
  for (const LinearPart& part : parts_) {
    if (row >= part.begin + part.weight.problem.n) continue;
    check(!part.output, "linear: the rows of '{}' are mixed by a transform of its outputs; none can be taken alone",
          label_);
    const PackedWeight& w = part.weight;
    if (w.layout) {
      w.layout->unpack(w.data.data(), w.problem, row - part.begin, out);
    } else {
      info(w.rows.codec).decode(w.rows, row - part.begin, 0, k_, out);
    }
    if (part.outliers.rows.count > 0) add_sparse_row(part.outliers.rows, row - part.begin, out);
    return;
  }
  fail(fmt::format("linear: row {} of {}", row, n_));
}

int64_t Linear::bytes() const {
  int64_t total = 0;
  for (const LinearPart& part : parts_) {
    const PackedWeight& w = part.weight;
    total += w.layout ? w.layout->bytes(w.problem) : tensor_bytes(w.problem.w, w.problem.n, w.problem.k);
    total += sparse_bytes(w.problem.n, part.outliers.rows.count) + int64_t(part.bias.size() * sizeof(float)) +
             part.transform.bytes() + part.output.bytes();
  }
  return total;
}

}  // namespace quire
