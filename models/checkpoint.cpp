#include "models/checkpoint.h"

#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/printable.h"
#include "models/checkpoint_builder.h"
#include "models/fused_tensors.h"
#include "models/network_tensors.h"

namespace quire {

Checkpoint Checkpoint::open(const std::string& path, bool tokenizer_needed) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check(std::filesystem::exists(status),
        "there is no model at '{}' (a .gguf file, or a directory with config.json and "
        "safetensors, is needed)",
        path);
  try {
    const bool directory = std::filesystem::is_directory(status);
    Checkpoint checkpoint = directory ? open_hf_directory(path) : open_gguf(path);
    const std::string& error = checkpoint.state_->tokenizer_error;
    if (tokenizer_needed && !error.empty()) fail(error);
    const bool unfinished = directory && checkpoint.stored_scheme() && !checkpoint.stored_scheme()->native &&
                            std::filesystem::canonical(path).extension() == kUnfinished;
    check(!unfinished, "'{}' is what an interrupted `quire quantize` left; run it again to finish it", path);
    return checkpoint;
  } catch (const std::filesystem::filesystem_error& e) {
    fail(fmt::format("'{}' cannot be read: {}", path, e.what()));
  }
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const ModelConfig& Checkpoint::config() const { return state_->config; }
const TokenizerData& Checkpoint::tokenizer() const { return state_->tokenizer; }
const std::string& Checkpoint::container() const { return state_->container; }
const std::optional<Scheme>& Checkpoint::stored_scheme() const { return state_->stored_scheme; }
const std::optional<uint64_t>& Checkpoint::dummy() const { return state_->dummy; }
const std::vector<KvScale>& Checkpoint::cache_scales() const { return state_->cache_scales; }
const std::vector<CheckpointTensor>& Checkpoint::list() const { return state_->tensors; }
const std::vector<CheckpointTensor>& Checkpoint::tensors() const {
  for (const auto& [index, made] : state_->made) find(state_->tensors[index].name);
  return state_->tensors;
}
const std::vector<std::pair<std::string, std::string>>& Checkpoint::metadata() const { return state_->metadata; }

const CheckpointTensor* Checkpoint::find(const std::string& name) const {
  const auto it = state_->by_name.find(name);
  if (it == state_->by_name.end()) return nullptr;
  CheckpointTensor& t = state_->tensors[it->second];
  const auto found = state_->made.find(it->second);
  if (found == state_->made.end() || found->second.buffer) return &t;
  Checkpoint::State::MadeRows& rows = found->second;
  Checkpoint::State::Made& made = *rows.whole;
  const Format format = format_of(made.shape);
  const auto place = [&](Buffer& at) { return place_tensor(at.data(), format, made.shape.rows, made.shape.cols); };
  auto buffer = made.buffer.lock();
  if (!buffer) {
    buffer = std::make_shared<Buffer>(size_t(storage_bytes(format, made.shape.rows, made.shape.cols)));
    made.fill(place(*buffer));
    for (const auto& source : made.sources) state_->release(source.data(), source.size());
    made.buffer = buffer;
  }
  t.tensor = rows_of(place(*buffer), rows.row0, t.tensor.rows);
  rows.buffer = std::move(buffer);
  return &t;
}

void Checkpoint::State::release(const std::byte* bytes, size_t size) const {
  for (const MappedFile& file : files) {
    const std::byte* begin = file.bytes().data();
    if (bytes >= begin && bytes < begin + file.bytes().size()) file.release(size_t(bytes - begin), size);
  }
}

void Checkpoint::release(const Tensor& view) const {
  for (const Plane* p : {&view.data, &view.high, &view.scale, &view.aux}) {
    if (p->ptr && p->pitch > 0) state_->release(p->ptr, size_t((view.rows + p->rows - 1) / p->rows * p->pitch));
  }
}

void Checkpoint::release(const std::string& name) const {
  const auto it = state_->by_name.find(name);
  if (it == state_->by_name.end()) return;
  Tensor& t = state_->tensors[it->second].tensor;
  const auto made = state_->made.find(it->second);
  if (made == state_->made.end()) return release(t);
  made->second.buffer = nullptr;
  t = place_tensor(nullptr, format_of(t), t.rows, t.cols);
}

const Tensor& Checkpoint::get(const std::string& name) const {
  listed(name);  // an Error if there is none
  return find(name)->tensor;
}

SparseMatrix Checkpoint::outliers(const std::string& name) const {
  const Tensor& t = listed(name).tensor;
  const auto found = state_->outliers.find(state_->by_name.at(name));
  if (found == state_->outliers.end()) return {t.cols, std::vector<int32_t>(size_t(t.rows + 1), 0), {}};
  SparseMatrix made = found->second.make();
  for (const auto& source : found->second.sources) state_->release(source.data(), source.size());
  return made;
}

bool Checkpoint::copied_by_rows(const std::string& name) const {
  const auto made = state_->made.find(state_->by_name.at(name));
  return made != state_->made.end() && made->second.whole->place_of && !made->second.buffer;
}

Tensor Checkpoint::rows(const std::string& name, int64_t row0, int64_t n) const {
  const Tensor& shape = listed(name).tensor;  // an Error if there is none
  if (!copied_by_rows(name)) return rows_of(get(name), row0, n);
  const Checkpoint::State::MadeRows& tensor = state_->made.at(state_->by_name.at(name));
  const Checkpoint::State::Made& made = *tensor.whole;
  const Format format = format_of(shape);
  const size_t bytes = size_t(storage_bytes(format, n, shape.cols));
  if (state_->piece.size() < bytes) {
    state_->piece = Buffer();  // never both at once
    state_->piece = Buffer(bytes);
  }
  const Tensor to = place_tensor(state_->piece.data(), format, n, shape.cols);
  const int64_t pitch = to.data.pitch;
  const std::byte* from = made.sources[0].data();
  for (int64_t r = 0; r < n; ++r)
    std::memcpy(to.data.row<std::byte>(r), from + made.place_of(tensor.row0 + row0 + r) * pitch, size_t(pitch));
  state_->release(from + (tensor.row0 + row0) * pitch, size_t(n * pitch));  // other rows are near
  return to;
}

bool Checkpoint::has(const std::string& name) const { return state_->by_name.count(name) > 0; }

const CheckpointTensor& Checkpoint::listed(const std::string& name) const {
  const auto it = state_->by_name.find(name);
  check(it != state_->by_name.end(), "the checkpoint has no tensor '{}' (it has {}; `quire inspect` lists them)", name,
        state_->tensors.size());
  return state_->tensors[it->second];
}

CheckpointBuilder::CheckpointBuilder(std::string path)
    : path_(std::move(path)), state_(std::make_unique<Checkpoint::State>()) {}

Tensor CheckpointBuilder::view(Codec codec, int64_t rows, int64_t cols, const std::byte* bytes) {
  Tensor t;
  t.codec = codec;
  t.group = info(codec).group;
  t.rows = rows;
  t.cols = cols;
  t.data.pitch = info(codec).row_bytes(cols, t.groups()).data;
  t.data.ptr = const_cast<std::byte*>(bytes);  // never written: a checkpoint gives const tensors
  return t;
}

void CheckpointBuilder::add(std::string name, std::string source_name, Codec codec, int64_t rows, int64_t cols,
                            const std::byte* bytes) {
  const uintptr_t needed = codec == id<F32> ? alignof(float) : alignof(uint16_t);  // blocks begin with an f16
  if (reinterpret_cast<uintptr_t>(bytes) % needed == 0) {
    add(std::move(name), std::move(source_name), view(codec, rows, cols, bytes));
  } else {
    add_reordered(std::move(name), std::move(source_name), codec, rows, cols, bytes, false,
                  [](int64_t r) { return r; });
  }
}

void CheckpointBuilder::add_reordered(std::string name, std::string source_name, Codec codec, int64_t rows,
                                      int64_t cols, const std::byte* bytes, bool vector,
                                      std::function<int64_t(int64_t)> place_of) {
  const int64_t count = vector ? cols : rows, row_bytes = tensor_bytes({codec, info(codec).group}, rows, cols) / count;
  const auto fill = [=](const Tensor& to) {
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(to.data.ptr + i * row_bytes, bytes + place_of(i) * row_bytes, size_t(row_bytes));
  };
  const size_t index = state_->tensors.size();
  add_made(std::move(name), std::move(source_name), {codec, info(codec).group}, rows, cols,
           {{bytes, size_t(count * row_bytes)}}, fill);
  if (!vector) state_->made.at(index).whole->place_of = std::move(place_of);
}

CheckpointTensor& CheckpointBuilder::add_made(std::string name, std::string source_name, Format format, int64_t rows,
                                              int64_t cols, std::vector<std::span<const std::byte>> sources,
                                              std::function<void(const Tensor& to)> fill) {
  const Tensor shape = place_tensor(nullptr, format, rows, cols);
  auto whole = std::make_shared<Checkpoint::State::Made>(
      Checkpoint::State::Made{shape, std::move(fill), std::move(sources), {}, {}});
  state_->made[state_->tensors.size()] = {std::move(whole), 0, nullptr};
  return add(std::move(name), std::move(source_name), shape);
}

void CheckpointBuilder::add_outliers(int64_t count, std::vector<std::span<const std::byte>> sources,
                                     std::function<SparseMatrix()> make) {
  state_->tensors.back().outliers = count;
  state_->outliers[state_->tensors.size() - 1] = {std::move(make), std::move(sources)};
}

CheckpointTensor& CheckpointBuilder::add(std::string name, std::string source_name, const Tensor& t) {
  return add(CheckpointTensor{std::move(name), std::move(source_name), t});
}

CheckpointTensor& CheckpointBuilder::add(CheckpointTensor t) {
  const bool is_new = state_->by_name.emplace(t.name, state_->tensors.size()).second;
  check(is_new, "'{}': tensor '{}' appears twice", path_, printable(t.name));
  state_->tensors.push_back(std::move(t));
  return state_->tensors.back();
}

void CheckpointBuilder::check_tensors() const {
  const Checkpoint::State& s = *state_;
  check_config(s.config, path_);
  for (const CheckpointTensor& t : s.tensors) {
    const std::optional<TensorShape> shape = network_tensor(s.config, t.name);
    check(shape.has_value(),
          "'{}': tensor '{}' is not part of a {} network of {} layers; without it the results would not be the model's",
          path_, printable(t.source_name), s.config.family, s.config.layers);
    check(t.tensor.rows == shape->rows && t.tensor.cols == shape->cols,
          "'{}': tensor '{}' is ({}, {}) where the configuration says ({}, {})", path_, printable(t.source_name),
          t.tensor.rows, t.tensor.cols, shape->rows, shape->cols);
    const Codec c = t.tensor.codec;
    check(shape->rows > 1 || c == id<F32> || c == id<F16> || c == id<BF16>,
          "'{}': tensor '{}' is a vector in {}; vectors must be f32, f16 or bf16", path_, printable(t.source_name),
          info(c).name);
  }
  // Layers without end need tensors without end: a bound before anything walks over them.
  check(s.config.layers <= int64_t(s.tensors.size()), "'{}': {} layers are announced, but there are only {} tensors",
        path_, s.config.layers, s.tensors.size());
  for_each_needed_tensor(s.config, [&](const std::string& name) {
    if (s.by_name.count(name) > 0) return;
    const auto fused = fused_matrix(s.config, name);
    fail(fmt::format("'{}': tensor '{}' is missing", path_, fused ? fused->name : name));
  });
}

void CheckpointBuilder::read_tokenizer(const std::function<TokenizerData()>& read) {
  try {
    state_->tokenizer = read();
    check_tokenizer(state_->tokenizer, state_->config, path_);
  } catch (const Error& error) {
    state_->tokenizer = {};
    state_->tokenizer_error = error.what();
  }
}

Checkpoint CheckpointBuilder::finish() {
  Checkpoint done{std::move(state_)};
  state_ = std::make_unique<Checkpoint::State>();
  return done;
}

}  // namespace quire
