// The inner loops of matmul that exist once an instruction set: matmul_avx2.cpp and matmul_avx512.cpp compile the same
// bodies (*.inl) over their own 16-lane vectors. The drivers around them are portable.
#pragma once
#include "kernels/cpu/panels.h"

namespace quire::cpu {

// part(m, 16 * panels) = or += x(m, k) times panels of f32, k in order: a chain of fma an element.
struct FloatBlock {
  const float* x;  // (m, k)
  int64_t ldx, m, k;
  const float* w;  // panels of [k][16]
  int64_t panel_stride, panels;
  float* part;  // (m, 16 * panels)
  int64_t ld_part;
  bool first;  // part is not read
};

enum class PanelSource : uint8_t { f32, f16, bf16, codes, spqr, e8, canonical };

// part(m, 16 * panels) = x(m, k) times panels of floats, or of those codes that can_stream, decoded on the way; m <=
// kStreamM.
constexpr int kStreamM = 4;
struct FloatStream {
  PanelSource source;
  const IntPanels* shape;  // of codes
  const float* x;          // (m, k)
  int64_t ldx, m, k;
  const std::byte* w;
  int64_t panel_bytes, panels;
  float* part;  // (m, 16 * panels)
  int64_t ld_part;
};
// value = scale * (field - zero) [+ offset]
inline bool can_stream(const IntPanels& s) {
  return s.second != Second::steps && s.small.bits == 0 && s.upper_at == 0 && s.table_at == 0 && !s.leveled;
}

// An int8 activation as the panels want it: codes padded like theirs, the sum of the codes of each sub, scales.
struct IntRows {
  const int8_t* codes;  // (m, padded k)
  int64_t ld;
  const int32_t* sums;  // (m, subs)
  const float* scales;  // (m, scales_a_row)
  int64_t scales_a_row;
};
struct IntBlock {
  const IntPanels* shape;
  IntRows x;
  int64_t m;
  const std::byte* w;  // panels
  int64_t panels;
  float* part;  // (m, 16 * panels)
  int64_t ld_part;
};

struct MatmulSimd {
  void (*float_block)(const FloatBlock& block);
  void (*float_stream)(const FloatStream& block);
  void (*int_block)(const IntBlock& block);
  // Columns [k0, k1) of one panel as f32 [k][16], while what lies `ahead` bytes on is fetched.
  void (*decode_f16)(const uint16_t* panel, int64_t k0, int64_t k1, int64_t ahead, float* out);
  void (*decode_bf16)(const uint16_t* panel, int64_t k0, int64_t k1, int64_t ahead, float* out);
  // k0 of codes lies on a chunk of its sub.
  void (*decode_codes)(const IntPanels& shape, const std::byte* panel, int64_t k0, int64_t k1, int64_t ahead,
                       float* out);
  // k0 lies on a tile.
  void (*decode_spqr)(const std::byte* panel, int64_t k0, int64_t k1, int64_t ahead, float* out);
  // k0 is a multiple of 8; out has place for as many columns.
  void (*decode_e8)(const E8Panels& shape, const std::byte* panel, int64_t k0, int64_t k1, int64_t ahead, float* out);
};
extern const MatmulSimd kMatmulAvx2, kMatmulAvx512;

bool amx_works();  // this machine has AMX for int8, and the system lets this process use it
void int_block_amx(const IntBlock& block);

void matmul_float(const MatmulSimd& simd, const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                  const Epilogue& epilogue);
void matmul_int(const MatmulSimd& simd, const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                const Epilogue& epilogue);

}  // namespace quire::cpu
