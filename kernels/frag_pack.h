// Packing into frag8 / frag16 (frag_layout.h) on the host: the reference of the device's packing, and its shape.
#pragma once
#include <optional>

#include "kernels/frag_layout.h"
#include "quant/formats.h"

namespace quire {

// How a weight (N, K) in format w lies for activations in format x; none if there is no such kernel.
std::optional<FragShape> frag_shape(Format w, Format x, int64_t n, int64_t k);

[[noreturn]] void no_frag_layout(Codec codec);  // Error

// Calls fn(SomeCodec{}) for a codec that can be packed, as visit() does for any.
template <class Fn>
void visit_frag(Codec codec, Fn&& fn) {
  if (codec == id<Int8>) return fn(Int8{});
  if (codec == id<Int4>) return fn(Int4{});
  if (codec == id<Int4Z>) return fn(Int4Z{});
  if (codec == id<UInt4O>) return fn(UInt4O{});
  if (codec == id<TwoLevel4>) return fn(TwoLevel4{});
  if (codec == id<Q8_0>) return fn(Q8_0{});
  if (codec == id<Q5_0>) return fn(Q5_0{});
  if (codec == id<IQ4_NL>) return fn(IQ4_NL{});
  if (codec == id<IQ4_XS>) return fn(IQ4_XS{});
  if (codec == id<MXFP4>) return fn(MXFP4{});
  if (codec == id<Q4_0>) return fn(Q4_0{});
  if (codec == id<Q4_1>) return fn(Q4_1{});
  if (codec == id<E4M3>) return fn(E4M3{});
  if (codec == id<F16>) return fn(F16{});
  if (codec == id<BF16>) return fn(BF16{});
  no_frag_layout(codec);
}

// Rows row0.. (a multiple of 64) of the packed weight from canonical src (rows, K).
void frag_pack(const FragShape& shape, const Tensor& src, int64_t row0, std::byte* dst);

}  // namespace quire
