/* What every part of the kernel leans on: fixed-width types, unaligned access without undefined
 * behaviour, and which processor-specific code may be compiled at all. No Python in this folder.
 *
 * What other files call begins with luna_, macros that a compiler may define with LUNA_. All else is static, in one
 * translation unit. */
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
#define LUNA_MSVC 1
#include <intrin.h>
#define INLINE static __forceinline
#define RESTRICT __restrict
#define NOINLINE __declspec(noinline)
#else
#define INLINE static inline __attribute__((always_inline))
#define RESTRICT restrict
#define NOINLINE __attribute__((noinline))
#endif

/* LUNA_PORTABLE leaves all of it out, so that the tests can run on x86 what other processors run. */
#if (defined(__x86_64__) || defined(_M_X64)) && !defined(LUNA_PORTABLE)
#define LUNA_X86 1
#include <immintrin.h>
/* Functions for newer processors than the one compiled for: gcc and clang want a target on each of them. MSVC takes any
 * intrinsic anywhere; it gets AVX2, which can be tried by its detection (cpu.h), not AVX-512, which was not tried there. */
#define LUNA_DISPATCH 1
#ifdef LUNA_MSVC
#define LUNA_TARGET(features)
#else
#define LUNA_TARGET(features) __attribute__((target(features)))
#define LUNA_AVX512 1
#endif
#define TARGET_AVX2 LUNA_TARGET("avx2,bmi,bmi2,popcnt")
#define TARGET_AVX512 LUNA_TARGET("avx512f,avx512bw,avx512vl,bmi,bmi2,popcnt")
#endif

#ifdef LUNA_X86
INLINE void prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
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

/* Keeps a compiler from working out what a variable will be. */
#ifdef LUNA_MSVC
#define UNFORESEEN(v) ((void)0)
#else
#define UNFORESEEN(v) __asm__("" : "+r"(v))
#endif

INLINE u16 load16(const u8 *p) { /* in the machine's order */
    u16 v;
    memcpy(&v, p, 2);
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
#ifdef LUNA_MSVC
    unsigned long at;
    _BitScanForward64(&at, v);
    return (unsigned)at;
#else
    return (unsigned)__builtin_ctzll(v);
#endif
}

/* The position of the highest one bit; v must not be 0. */
INLINE unsigned high_bit(u32 v) {
#ifdef LUNA_MSVC
    unsigned long at;
    _BitScanReverse(&at, v);
    return (unsigned)at;
#else
    return 31u - (unsigned)__builtin_clz(v);
#endif
}

INLINE unsigned count_ones(u64 v) {
#ifdef LUNA_MSVC
    unsigned ones = 0;
    for (; v; v &= v - 1)
        ones++;
    return ones;
#else
    return (unsigned)__builtin_popcountll(v);
#endif
}

#endif
