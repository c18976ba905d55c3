#include "models/slice_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "kernels/convert.h"
#include "kernels/random.h"

namespace quire {

namespace {

constexpr float kDummyDeviation = 0.02f;  // what networks of this kind begin their training with

uint64_t seed_of(uint64_t seed, const std::string& name) {  // FNV-1a
  for (const char c : name) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return seed;
}

void grow(Buffer& buffer, int64_t bytes, Device device) {
  if (int64_t(buffer.size()) >= bytes) return;
  buffer = Buffer();  // never both at once
  buffer = Buffer(size_t(bytes), device);
}

// From a mapped file, whose pages may still have to be read: all threads.
void gather(const Context& ctx, const Tensor& from, const Tensor& to) {
  constexpr int64_t kPiece = 256 << 10;
  const auto source = plane_memory(from), target = plane_memory(to);
  for (size_t i = 0; i < source.size(); ++i) {
    ctx.parallel_for(int64_t(source[i].size()), kPiece, [&](int64_t begin, int64_t end) {
      std::memcpy(target[i].data() + begin, source[i].data() + begin, size_t(end - begin));
    });
  }
}

}  // namespace

struct SliceReader::Slot {
  std::shared_ptr<cuda::PinnedBuffer> pinned;
  int64_t size = 0;
  Buffer there;
  std::shared_ptr<cuda::Event> copied, used;  // pinned may be written; `there` may be
};

int64_t slice_rows(int64_t k) {
  constexpr int64_t kValues = 1 << 20, kBlock = 256;
  return std::max<int64_t>(1, kValues / std::max<int64_t>(k, 1) / kBlock) * kBlock;
}

SliceReader::SliceReader(const Context& ctx, const Checkpoint& checkpoint) : ctx_(ctx), checkpoint_(checkpoint) {
  if constexpr (kCuda) {
    if (ctx.device == Device::cpu || checkpoint.dummy()) return;
    copies_ = std::make_shared<cuda::Stream>();
    for (auto& slot : slots_) {
      slot = std::make_shared<Slot>();
      slot->copied = std::make_shared<cuda::Event>();
      slot->used = std::make_shared<cuda::Event>();
    }
  }
}

SliceReader::~SliceReader() {
  if constexpr (kCuda) {
    if (ctx_.device == Device::cpu) return;
    try {
      if (copies_) copies_->synchronize();
      cuda::synchronize(ctx_.stream);  // engines on other streams may use the weights
    } catch (const Error&) {           // whoever waits for the weights next meets it again
    }
  }
}

Tensor SliceReader::make_dummy(const Tensor& t, uint64_t seed, int64_t row0) {
  const Format f32{id<F32>, 0}, format = format_of(t);
  const StorageOptions options{.device = ctx_.device};
  grow(values_, storage_bytes(f32, t.rows, t.cols, options), ctx_.device);
  const Tensor values = place_tensor(values_.data(), f32, t.rows, t.cols, options);
  fill_normal(ctx_, seed, row0 * t.cols, kDummyDeviation, values);
  if (format == f32) return values;
  grow(made_, storage_bytes(format, t.rows, t.cols, options), ctx_.device);
  const Tensor made = place_tensor(made_.data(), format, t.rows, t.cols, options);
  convert(ctx_, values, made);
  return made;
}

Tensor SliceReader::to_device(const Tensor& host) {
  Tensor there;
  if constexpr (kCuda) {
    Slot& before = *slots_[size_t(turn_)];
    before.used->record(ctx_.stream);  // all that reads it is enqueued by now
    turn_ = 1 - turn_;
    Slot& slot = *slots_[size_t(turn_)];
    slot.copied->synchronize();
    const int64_t bytes = planes_bytes(host);
    if (slot.size < bytes) {
      cuda::synchronize(ctx_.stream);  // kernels may still read the old one
      slot.pinned.reset();
      slot.pinned = std::make_shared<cuda::PinnedBuffer>(size_t(bytes));
      slot.size = bytes;
      grow(slot.there, bytes, Device::cuda);
    }
    gather(ctx_, host, planes_at(host, slot.pinned->data(), Device::cpu));
    slot.used->hold(copies_->get());
    cuda::copy_async(slot.there.data(), slot.pinned->data(), size_t(bytes), copies_->get());
    slot.copied->record(copies_->get());
    slot.copied->hold(ctx_.stream);
    there = planes_at(host, slot.there.data(), Device::cuda);
  }
  checkpoint_.release(host);
  return there;
}

Tensor SliceReader::read(const std::string& name, int64_t row0, int64_t rows) {
  if (checkpoint_.dummy()) {
    Tensor shape = checkpoint_.get(name);
    shape.rows = rows;
    return make_dummy(shape, seed_of(*checkpoint_.dummy(), name), row0);
  }
  const Tensor host = checkpoint_.rows(name, row0, rows);
  return ctx_.device == Device::cuda ? to_device(host) : host;
}

Tensor SliceReader::read_values(const std::string& name, int64_t row0, int64_t rows) {
  if (checkpoint_.listed(name).outliers == 0) return read(name, row0, rows);
  if (outliers_of_ != name) outliers_ = checkpoint_.outliers(name);
  outliers_of_ = name;
  const Tensor dense = rows_of(checkpoint_.get(name), row0, rows);
  const Format f32{id<F32>, 0};
  grow(summed_, storage_bytes(f32, rows, dense.cols), Device::cpu);
  const Tensor values = place_tensor(summed_.data(), f32, rows, dense.cols);
  ctx_.parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      info(dense.codec).decode(dense, r, 0, dense.cols, values.data.row<float>(r));
      add_sparse_row(outliers_.view(), row0 + r, values.data.row<float>(r));
    }
  });
  return ctx_.device == Device::cuda ? to_device(values) : values;
}

void SliceReader::release(const Tensor& read) const {
  if (ctx_.device == Device::cpu) checkpoint_.release(read);
}

OwnedTensor SliceReader::load(const std::string& name, Format format) {
  const Tensor& shape = checkpoint_.listed(name).tensor;
  const bool stored = format_of(shape) == format;
  if (stored && !checkpoint_.dummy() && !checkpoint_.copied_by_rows(name)) {
    OwnedTensor same = tensor_on(ctx_.device, checkpoint_.get(name), ctx_.stream);
    checkpoint_.release(name);
    return same;
  }
  OwnedTensor whole = make_tensor(format, shape.rows, shape.cols, {.device = ctx_.device});
  const int64_t step = slice_rows(shape.cols);
  for (int64_t r = 0; r < shape.rows; r += step) {
    const int64_t n = std::min(step, shape.rows - r);
    const Tensor in = read_values(name, r, n);
    convert(ctx_, in, rows_of(whole, r, n));
    release(in);
  }
  return whole;
}

std::vector<float> SliceReader::read_vector(const std::string& name) {
  const Tensor& t = checkpoint_.get(name);
  std::vector<float> values(size_t(t.cols), 1.0f);
  if (!checkpoint_.dummy()) {
    info(t.codec).decode(t, 0, 0, t.cols, values.data());
    for (size_t i = 0; i < values.size(); ++i)
      check(std::isfinite(values[i]), "tensor '{}' has a value that is not finite at {}", printable(name), i);
  } else if (name.ends_with(".bias")) {  // norms stay 1
    const uint64_t seed = seed_of(*checkpoint_.dummy(), name);
    for (size_t i = 0; i < values.size(); ++i) values[i] = normal_at(seed, i) * kDummyDeviation;
  }
  return values;
}

}  // namespace quire
