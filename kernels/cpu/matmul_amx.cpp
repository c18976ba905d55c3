// int8 x times byte and nibble panels with AMX: 16 chunks of a byte panel, [k / 4][row][4], are a tile as they lie, and
// so are 16 rows of x. Its sums are the exact integers of every other kernel, so nothing else differs.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "kernels/cpu/matmul_simd.h"
#include "kernels/cpu/target.h"

QUIRE_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-int8")
namespace quire::cpu {
namespace amx {
namespace {
#include "kernels/cpu/lanes_avx512.inl"
// After the lanes that they are written in.
#include "kernels/cpu/int_meta.inl"

constexpr int64_t kTile = 16;  // rows of a tile

// Tiles 0..3 hold sums, 4 and 5 rows of x, 6 and 7 panels; `chunks` of them.
struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
Config config_of(int64_t chunks) {
  Config c;
  for (int i = 0; i < 8; ++i) {
    c.rows[i] = uint8_t(i < 6 ? kTile : chunks);
    c.row_bytes[i] = uint16_t(i == 4 || i == 5 ? 4 * chunks : 64);
  }
  return c;
}

// The compiler does not know that tile loads read memory and the configuration.
QUIRE_INLINE void memory_is_written() { asm volatile("" ::: "memory"); }

// c[32][32] = two tiles of rows of x (or one) times two panels (or one), over `chunks` in steps of a tile.
void products(const int8_t* x, int64_t ldx, bool two_rows, const std::byte* w, int64_t stride, bool two_panels,
              int64_t chunks, int64_t step, int32_t* c) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t q = 0; q < chunks; q += step) {
    _tile_loadd(4, x + q * 4, ldx);
    _tile_loadd(6, w + q * 64, 64);
    _tile_dpbsud(0, 4, 6);
    if (two_panels) {
      _tile_loadd(7, w + stride + q * 64, 64);
      _tile_dpbsud(1, 4, 7);
    }
    if (!two_rows) continue;
    _tile_loadd(5, x + kTile * ldx + q * 4, ldx);
    _tile_dpbsud(2, 5, 6);
    if (two_panels) _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, c, 128);
  _tile_stored(1, c + kTile, 128);
  _tile_stored(2, c + kTile * 32, 128);
  _tile_stored(3, c + kTile * 33, 128);
  memory_is_written();
}

// Panels whose every field has a byte of its own.
struct Bytes {
  const std::byte* data;
  int64_t stride, sub;  // bytes of a panel, of a sub
};

template <int P>
void columns(const IntBlock& b, int64_t rows, int64_t p0, const Bytes& bytes, int64_t step) {
  constexpr int kRows = 8;
  const IntPanels& s = *b.shape;
  const std::byte* w = b.w + p0 * s.panel_bytes;
  alignas(64) int32_t c[2 * kTile][32], total[2 * kTile][P][kPanel];
  for (int64_t m0 = 0; m0 < rows; m0 += 2 * kTile) {
    const int64_t count = rows - m0 < 2 * kTile ? kTile : 2 * kTile;
    float* part = b.part + m0 * b.ld_part + p0 * kPanel;
    for (int64_t i = 0; i < s.subs; ++i) {
      const int64_t chunks = s.chunks(i) * s.chunk / 4;
      products(b.x.codes + m0 * b.x.ld + i * bytes.sub / 16, b.x.ld, count > kTile,
               bytes.data + p0 * bytes.stride + i * bytes.sub, bytes.stride, P == 2, chunks, step, c[0]);
      for (int64_t r = 0; r < count; r += kRows) {
        const int32_t* sums = b.x.sums + (m0 + r) * s.subs + i;
        Ints acc[kRows][P];
        QUIRE_UNROLL
        for (int m = 0; m < kRows; ++m) {
          QUIRE_UNROLL
          for (int p = 0; p < P; ++p) {
            const Ints sum = load(c[r + m] + p * kPanel);
            acc[m][p] = s.bias ? sub(sum, all(s.bias * sums[m * s.subs])) : sum;
          }
        }
        end_sub<kRows, P>(b, m0 + r, w, i, acc, total + r, part + r * b.ld_part);
      }
    }
    for (int64_t r = 0; r < count; r += kRows) end_tile<kRows, P>(b, m0 + r, part + r * b.ld_part);
  }
}

// Chunks of 4 columns in a tile: as many as divide every sub. 0: too few to be worth it.
int64_t tile_chunks(const IntPanels& s) {
  const int64_t first = s.chunks(0) * s.chunk / 4, last = s.chunks(s.subs - 1) * s.chunk / 4;
  for (const int64_t step : {16, 8}) {
    if (first % step == 0 && last % step == 0) return step;
  }
  return 0;
}

Bytes spread(const IntBlock& b, std::vector<std::byte>& out) {
  const IntPanels& s = *b.shape;
  const int64_t sub = s.sub_chunks() * s.chunk * 16;
  if (s.chunk == 4) return {b.w, s.panel_bytes, sub};
  const int64_t stride = s.padded_k() * 16;
  out.resize(size_t(b.panels * stride));
  for (int64_t p = 0; p < b.panels; ++p) {
    const std::byte* panel = b.w + p * s.panel_bytes;
    for (int64_t i = 0; i < s.subs; ++i) {
      const std::byte* upper = panel + s.upper_at + i * s.upper_chunks(s.sub_chunks()) * 64;
      std::byte* to = out.data() + p * stride + i * sub;
      for (int64_t q = 0; q < s.chunks(i) * 2; ++q) {
        _mm512_storeu_si512(to + q * 64, load_quad(s, panel + i * s.sub_chunks() * 64, upper, q).v);
      }
    }
  }
  return {out.data(), stride, sub};
}

void int_block(const IntBlock& b) {
  thread_local std::vector<std::byte> buffer;
  const int64_t step = tile_chunks(*b.shape), rows = step == 0 ? 0 : b.m / kTile * kTile;
  if (rows > 0) {
    const Bytes bytes = spread(b, buffer);
    const Config config = config_of(step);
    memory_is_written();
    _tile_loadconfig(&config);
    int64_t p = 0;
    for (; p + 2 <= b.panels; p += 2) columns<2>(b, rows, p, bytes, step);
    if (p < b.panels) columns<1>(b, rows, p, bytes, step);
    _tile_release();
  }
  if (rows == b.m) return;
  IntBlock rest = b;  // rows that fill no tile
  rest.m -= rows;
  rest.x.codes += rows * b.x.ld;
  rest.x.sums += rows * b.shape->subs;
  rest.x.scales += rows * b.x.scales_a_row;
  rest.part += rows * b.ld_part;
  kMatmulAvx512.int_block(rest);
}
}  // namespace
}  // namespace amx
}  // namespace quire::cpu
QUIRE_TARGET_END

namespace quire::cpu {

bool amx_works() {
  static const bool works = [] {
    constexpr unsigned kTileBit = 1u << 24, kInt8Bit = 1u << 25;
    constexpr long kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTileBit) == 0 || (d & kInt8Bit) == 0) return false;
    return syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
  }();
  return works;
}

void int_block_amx(const IntBlock& block) { amx::int_block(block); }

}  // namespace quire::cpu
