/* What every part of the kernel leans on: fixed-width types, unaligned access without undefined
 * behaviour, and which processor-specific code may be compiled at all. No Python in this folder. */
#ifndef LUNA_COMMON_H
#define LUNA_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define INLINE static __forceinline
#define RESTRICT __restrict
#else
#define INLINE static inline __attribute__((always_inline))
#define RESTRICT restrict
#endif

/* LUNA_PORTABLE leaves all of it out, so that the tests can run on x86 what other processors run. */
#if (defined(__x86_64__) || defined(_M_X64)) && !defined(LUNA_PORTABLE)
#define LUNA_X86 1
#include <immintrin.h>
/* Functions for processors newer than the one compiled for need a per-function target, which MSVC lacks. */
#if defined(__GNUC__) || defined(__clang__)
#define LUNA_DISPATCH 1
#define TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,bmi,bmi2,popcnt")))
#endif
#endif

/* Deflate and x86 and ARM as compiled for here are little-endian; on a big-endian machine bytes are swapped. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LUNA_BIG_ENDIAN 1
#else
#define LUNA_BIG_ENDIAN 0
#endif

INLINE u64 load64(const u8 *p) {
    u64 v;
    memcpy(&v, p, 8);
#if LUNA_BIG_ENDIAN
    v = __builtin_bswap64(v);
#endif
    return v;
}

INLINE u32 load32(const u8 *p) {
    u32 v;
    memcpy(&v, p, 4);
#if LUNA_BIG_ENDIAN
    v = __builtin_bswap32(v);
#endif
    return v;
}

INLINE void store64(u8 *p, u64 v) {
#if LUNA_BIG_ENDIAN
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, 8);
}

INLINE void store32_big(u8 *p, u32 v) {
    p[0] = (u8)(v >> 24);
    p[1] = (u8)(v >> 16);
    p[2] = (u8)(v >> 8);
    p[3] = (u8)v;
}

/* The number of zero bits below the lowest one; v must not be 0. */
INLINE unsigned low_zeros(u64 v) {
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long at;
    _BitScanForward64(&at, v);
    return (unsigned)at;
#else
    return (unsigned)__builtin_ctzll(v);
#endif
}

/* The position of the highest one bit; v must not be 0. */
INLINE unsigned high_bit(u32 v) {
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long at;
    _BitScanReverse(&at, v);
    return (unsigned)at;
#else
    return 31u - (unsigned)__builtin_clz(v);
#endif
}

INLINE unsigned count_ones(u64 v) {
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned ones = 0;
    for (; v; v &= v - 1)
        ones++;
    return ones;
#else
    return (unsigned)__builtin_popcountll(v);
#endif
}

/* Which instructions this processor has beyond the ones compiled for. */
enum { ISA_BASE, ISA_AVX2, ISA_AVX512 };

/* The tests lower this to run on one machine what others run. */
#ifndef LUNA_MOST_ISA
#define LUNA_MOST_ISA ISA_AVX512
#endif

static int detect_isa(void) {
#ifdef LUNA_DISPATCH
    __builtin_cpu_init();
    if (LUNA_MOST_ISA >= ISA_AVX512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vbmi"))
        return ISA_AVX512;
    if (LUNA_MOST_ISA >= ISA_AVX2 && __builtin_cpu_supports("avx2"))
        return ISA_AVX2;
#endif
    return ISA_BASE;
}

#endif
