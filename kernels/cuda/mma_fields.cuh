// How a lane turns packed weights into fragments: one struct a kind of code.
//   kStepCols  columns of an MMA; kRowBytes of x in a tile; two MMA steps are a pair
//   load       what the lane needs for a pair of steps, from its block of the tile
//   frag       the A operand of step s of the pair
//   value      the accumulator as a float, exact
#pragma once
#include "kernels/cuda/mma.cuh"

namespace quire::cuda {

struct NoSecond {
  __device__ void load(uint32_t, int) {}
};

// Integer accumulators of segments begin at the bits of 12582912.0f: as long as |sum| <= 2^22 they stay, read as a
// float, that number plus the sum. Converting is then a subtraction, not the quarter-rate I2F.
constexpr int kMagic = 0x4B400000;

struct IntMath {
  using Acc = int;
  static constexpr bool kOffset = false;  // entries have an offset beside the scale
  static constexpr int kStepCols = 32, kRowBytes = 128;
  __device__ static void mma(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma_s8(d, a, b0, b1); }
  __device__ static int segment_zero() { return kMagic; }
  __device__ static float segment_value(int acc) { return __fsub_rn(__int_as_float(acc), 12582912.0f); }
  __device__ static int row_value(int acc) { return acc; }
};

struct FieldInt8 : IntMath {
  static constexpr int kBits = 8;
  using Raw = uint32_t[8];
  using Second = NoSecond;
  __device__ static void load(Raw& raw, uint32_t block, int pair) {
    load_shared(reinterpret_cast<uint32_t(&)[4]>(raw[0]), block + pair * 1024);
    load_shared(reinterpret_cast<uint32_t(&)[4]>(raw[4]), block + pair * 1024 + 512);
  }
  __device__ static void frag(const Raw& raw, int s, const Second&, uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = raw[4 * s + i];
  }
};

// 16 times the code: the nibble in the upper half of the byte.
struct FieldNibbleSigned : IntMath {
  static constexpr int kBits = 4;
  using Raw = uint32_t[4];
  using Second = NoSecond;
  __device__ static void load(Raw& raw, uint32_t block, int pair) { load_shared(raw, block + pair * 512); }
  __device__ static void frag(const Raw& raw, int s, const Second&, uint32_t (&a)[4]) {
    a[0] = raw[2 * s] & 0xf0f0f0f0u;
    a[1] = raw[2 * s] << 4 & 0xf0f0f0f0u;
    a[2] = raw[2 * s + 1] & 0xf0f0f0f0u;
    a[3] = raw[2 * s + 1] << 4 & 0xf0f0f0f0u;
  }
  __device__ static float segment_value(int acc) { return __fmaf_rn(__int_as_float(acc), 0.0625f, -786432.0f); }
  __device__ static int row_value(int acc) { return acc >> 4; }
};

// field * step + offset in four bytes at once: with the offset's 128 more no byte carries, the xor takes it off again.
struct FieldNibbleAffine : IntMath {
  static constexpr int kBits = 4;
  using Raw = uint32_t[4];
  struct Second {
    uint32_t step[2], offset[2];
    __device__ void load(uint32_t at, int g) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t u = load_shared_u16(at + (g + 8 * i) * 2);
        step[i] = u & 255u;
        offset[i] = __byte_perm(u, 0, 0x1111);
      }
    }
  };
  __device__ static void load(Raw& raw, uint32_t block, int pair) { load_shared(raw, block + pair * 512); }
  __device__ static void frag(const Raw& raw, int s, const Second& n, uint32_t (&a)[4]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t u = raw[2 * s + h];
      a[2 * h] = ((u >> 4 & 0x0f0f0f0fu) * n.step[0] + n.offset[0]) ^ 0x80808080u;
      a[2 * h + 1] = ((u & 0x0f0f0f0fu) * n.step[1] + n.offset[1]) ^ 0x80808080u;
    }
  }
};

// Unsigned codes are int8 as they are.
struct FieldNibbleOffset : IntMath {
  static constexpr int kBits = 4;
  static constexpr bool kOffset = true;
  using Raw = uint32_t[4];
  using Second = NoSecond;
  __device__ static void load(Raw& raw, uint32_t block, int pair) { load_shared(raw, block + pair * 512); }
  __device__ static void frag(const Raw& raw, int s, const Second&, uint32_t (&a)[4]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      a[2 * h] = raw[2 * s + h] >> 4 & 0x0f0f0f0fu;
      a[2 * h + 1] = raw[2 * s + h] & 0x0f0f0f0fu;
    }
  }
};

struct FloatMath {
  using Acc = float;
  static constexpr bool kOffset = false;
  __device__ static float segment_zero() { return 0.0f; }
  __device__ static float segment_value(float acc) { return acc; }
  __device__ static int row_value(float) { return 0; }  // sums of floats are always segmented
};

struct HalfMath : FloatMath {
  static constexpr int kStepCols = 16, kRowBytes = 256;
  __device__ static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma_f16(d, a, b0, b1); }
};

__device__ __forceinline__ uint32_t half_bits(__half2 h) { return *reinterpret_cast<uint32_t*>(&h); }
__device__ __forceinline__ __half2 as_half2(uint32_t u) { return *reinterpret_cast<__half2*>(&u); }

// 0x6400 | q is 1024 + q, 0x6400 | q << 4 is 1024 + 16 q: codes less their zero, exact.
struct FieldHalfNibble : HalfMath {
  static constexpr int kBits = 4;
  using Raw = uint32_t[2];
  struct Second {
    __half2 upper, lower;  // 1024 + zero of row g; -(64 + zero) of row g + 8
    __device__ void load(uint32_t at, int g) {
      const uint32_t z0 = load_shared_u16(at + g * 2), z1 = load_shared_u16(at + (g + 8) * 2);
      upper = as_half2(z0 * 0x10001u | 0x64006400u);
      lower = __hsub2(as_half2(0x63806380u), as_half2(z1 * 0x10001u | 0x64006400u));  // 960 - (1024 + z)
    }
  };
  __device__ static void load(Raw& raw, uint32_t block, int pair) {
    load_shared(raw, block + pair / 2 * 512 + pair % 2 * 8);
  }
  __device__ static void frag(const Raw& raw, int s, const Second& n, uint32_t (&a)[4]) {
    const __half2 sixteenth = as_half2(0x2c002c00u);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t u = raw[s] >> (8 * h);
      a[2 * h] = half_bits(__hsub2(as_half2((u & 0x000f000fu) | 0x64006400u), n.upper));
      a[2 * h + 1] = half_bits(__hfma2(as_half2((u & 0x00f000f0u) | 0x64006400u), sixteenth, n.lower));
    }
  }
};

struct FieldHalfByte : HalfMath {
  static constexpr int kBits = 8;
  using Raw = uint32_t[4];
  using Second = NoSecond;
  __device__ static void load(Raw& raw, uint32_t block, int pair) { load_shared(raw, block + pair * 512); }
  __device__ static void frag(const Raw& raw, int s, const Second&, uint32_t (&a)[4]) {
    const __half2 middle = as_half2(0x64806480u);  // 1024 + 128
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t u = raw[2 * s + h] ^ 0x80808080u;
      a[2 * h] = half_bits(__hsub2(as_half2(__byte_perm(u, 0x64646464u, 0x4140)), middle));
      a[2 * h + 1] = half_bits(__hsub2(as_half2(__byte_perm(u, 0x64646464u, 0x4342)), middle));
    }
  }
};

// e4m3 is f16 with three bits of mantissa.
struct FieldHalfE4M3 : HalfMath {
  static constexpr int kBits = 8;
  using Raw = FieldHalfByte::Raw;
  using Second = NoSecond;
  __device__ static void load(Raw& raw, uint32_t block, int pair) { FieldHalfByte::load(raw, block, pair); }
  __device__ static void frag(const Raw& raw, int s, const Second&, uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = halfs_of_e4m3(uint16_t(raw[2 * s + i / 2] >> (16 * (i % 2))));
  }
};

struct FieldHalf : HalfMath {
  static constexpr int kBits = 16;
  using Raw = uint32_t[8];
  using Second = NoSecond;
  __device__ static void load(Raw& raw, uint32_t block, int pair) { FieldInt8::load(raw, block, pair); }
  __device__ static void frag(const Raw& raw, int s, const Second& n, uint32_t (&a)[4]) {
    FieldInt8::frag(raw, s, n, a);
  }
};
struct FieldBfloat : FieldHalf {
  __device__ static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_bf16(d, a, b0, b1);
  }
};

struct FieldE4M3 : FloatMath {
  static constexpr int kStepCols = 32, kRowBytes = 128, kBits = 8;
  using Raw = FieldInt8::Raw;
  using Second = NoSecond;
  __device__ static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_e4m3(d, a, b0, b1);
  }
  __device__ static void load(Raw& raw, uint32_t block, int pair) { FieldInt8::load(raw, block, pair); }
  __device__ static void frag(const Raw& raw, int s, const Second& n, uint32_t (&a)[4]) {
    FieldInt8::frag(raw, s, n, a);
  }
};

}  // namespace quire::cuda
