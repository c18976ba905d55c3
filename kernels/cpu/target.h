// Code for one instruction set lies in a region of its own, compiled for it whatever the build's flags, and reached
// only through a pointer chosen by Context::isa:
//   #include ...everything...           // before the region: header code compiled wide would leak into the portable
//   path QUIRE_TARGET_AVX512 namespace quire::avx512 { ... }     // no lambdas: they do not inherit the target
//   QUIRE_TARGET_END
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // g++ 12 reports its own _mm512_undefined_*, where they are defined
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#define QUIRE_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define QUIRE_TARGET(isa) QUIRE_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define QUIRE_TARGET_END QUIRE_PRAGMA(clang attribute pop)
#define QUIRE_UNROLL QUIRE_PRAGMA(unroll)
#else
#define QUIRE_TARGET(isa) QUIRE_PRAGMA(GCC push_options) QUIRE_PRAGMA(GCC target(isa))
#define QUIRE_TARGET_END QUIRE_PRAGMA(GCC pop_options)
#define QUIRE_UNROLL QUIRE_PRAGMA(GCC unroll 16)
#endif
#define QUIRE_TARGET_AVX2 QUIRE_TARGET("avx2,fma,f16c")
#define QUIRE_TARGET_AVX512 QUIRE_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#define QUIRE_INLINE inline __attribute__((always_inline))
