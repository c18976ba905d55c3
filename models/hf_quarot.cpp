// QuaRot as its converter writes it (model_type "llama_quarot", no quantization_config). Of a module: weight U8 (O, I /
// 2), the even input in the low nibble, in two's complement; weight_scales (O, 1). The rotated network transforms x
// before two of them: down_proj (here "down_proj.2", after a Hadamard over all inputs) and o_proj ("o_proj.1", after
// one over the heads, channel by channel). A stored matrix "had_rem_dim" must be the one of kernels/hadamard.h. Norms
// have no weights: those of the layers are folded into the matrices, and only model.norm's is in the file. Q and k are
// rotated after rope in the writer's own runtime, for its 4-bit cache, which does not change their products. Its
// activations are int4 per token; here they are int8 per token.
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "kernels/hadamard.h"
#include "models/hf_quantized.h"

namespace quire {

namespace {

using Bytes = std::span<const std::byte>;

struct Stored {
  std::string name;     // of the module in the file
  std::string rotator;  // of the module that transforms x; empty: x as it is
  int64_t order = 0;    // of its transform
};

Stored stored_as(const QuantizedSource& source, const std::string& module, int64_t cols) {
  constexpr std::string_view kLinear = "o_proj";
  if (module.ends_with(".mlp.down_proj")) return {module + ".2", module + ".0", cols};
  if (!module.ends_with(".self_attn.o_proj")) return {module, ""};
  const std::string layer = module.substr(0, module.size() - kLinear.size());
  return {module + ".1", layer + "o_proj_hadamard", source.network().heads};
}

// Orders that are no power of two have a K x K factor in the file.
std::shared_ptr<const InputTransform> rotation(const QuantizedSource& source, const Stored& stored, int64_t cols) {
  if (stored.rotator.empty()) return nullptr;
  const std::string name = stored.rotator + ".had_rem_dim";
  auto input = std::make_shared<InputTransform>();
  input->hadamard = stored.order;
  if ((stored.order & (stored.order - 1)) != 0) {
    constexpr int64_t kMost = 256;  // QuaRot's own are up to 172
    const SafetensorsTensor& t = source.entries.take(name);
    const FloatValues signs(t, source.path());
    check(t.shape.size() == 2 && t.shape[0] == t.shape[1] && t.shape[0] <= kMost,
          "'{}': tensor '{}' is {}, no square matrix of at most {}", source.path(), printable(name),
          printable_json(t.shape), kMost);
    for (int64_t i = 0; i < signs.size(); ++i)
      input->signs.push_back(signs[i] == 1.0f ? 1 : signs[i] == -1.0f ? -1 : 0);
    try {
      Hadamard(stored.order, input->signs);
    } catch (const Error& e) {
      fail(fmt::format("'{}': tensor '{}': {}", source.path(), printable(name), e.what()));
    }
  }
  // Over the heads: one block for each channel.
  const int64_t channels = cols / stored.order;
  for (int64_t c = 0; channels > 1 && c < cols; ++c)
    input->order.push_back(int32_t(c % stored.order * channels + c / stored.order));
  return input;
}

void add_module(const QuantizedSource& source, const std::string& module, TensorShape shape) {
  const Stored stored = stored_as(source, module, shape.cols);
  const std::string name = stored.name + ".weight";
  check(shape.cols % 2 == 0, "'{}': '{}' has {} inputs, which two to a byte cannot be", source.path(),
        printable(module), shape.cols);
  const Bytes weight = source.entries.take(name, "U8", {shape.rows, shape.cols / 2});
  const SafetensorsTensor& scales = source.entries.take(stored.name + ".weight_scales");
  const FloatValues scale = finite_values(scales, source.path());
  check(scale.size() == shape.rows, "'{}': tensor '{}' has {} scales for {} outputs", source.path(),
        printable(scales.name), scale.size(), shape.rows);
  const auto input = rotation(source, stored, shape.cols);
  const auto fill = [=](const Tensor& to) {
    std::vector<uint8_t> row(static_cast<size_t>(to.cols));
    for (int64_t r = 0; r < to.rows; ++r) {
      const std::byte* in = weight.data() + r * to.cols / 2;
      const bool moved = input && !input->order.empty();
      for (int64_t c = 0; c < to.cols; ++c) {
        const int64_t k = moved ? input->order[size_t(c)] : c;
        row[size_t(c)] = uint8_t((int(in[k / 2]) >> (k % 2 * 4) & 15) ^ 8);  // two's complement to code + 8
      }
      Int4::Planes::write(to, r, 0, to.cols, row.data());
      *to.scale.row<float>(r) = scale[r];
    }
  };
  CheckpointTensor& t = source.builder.add_made(module + ".weight", name, {id<Int4>, 0}, shape.rows, shape.cols,
                                                {weight, scales.bytes}, fill);
  t.activation = Format{id<Int8>, 0};
  t.input = input;
}

}  // namespace

std::string add_quarot_tensors(const QuantizedSource& source) {
  const ModelConfig& c = source.network();
  source.for_each_matrix([&](const std::string& module, TensorShape shape) {
    if (module.starts_with("model.layers.")) add_module(source, module, shape);
  });
  for_each_needed_tensor(c, [&](const std::string& name) {
    const TensorShape shape = *network_tensor(c, name);
    if (shape.rows > 1 || source.entries.has(name) || name.ends_with(".bias")) return;
    const auto ones = [](const Tensor& to) {
      for (int64_t i = 0; i < to.cols; ++i) to.data.row<float>(0)[i] = 1.0f;
    };
    source.builder.add_made(name, "(folded into the matrices)", {id<F32>, 0}, 1, shape.cols, {}, ones);
  });
  return "QuaRot, 4 bits, one scale a row, online Hadamard transforms";
}

}  // namespace quire
