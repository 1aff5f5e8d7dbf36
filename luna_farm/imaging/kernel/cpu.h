/* Which instructions this processor has beyond the ones compiled for. */
#ifndef LUNA_CPU_H
#define LUNA_CPU_H

#include "common.h"

enum { ISA_BASE, ISA_AVX2, ISA_AVX512 };

/* The tests lower this to run on one machine what others run. */
#ifndef LUNA_MOST_ISA
#define LUNA_MOST_ISA ISA_AVX512
#endif

enum { CPU_KNOWN = 1, CPU_AVX2 = 2, CPU_AVX512 = 4, CPU_CLMUL = 8, CPU_WIDE_CLMUL = 16 };

#ifdef LUNA_DISPATCH

/* LUNA_CPUID: the tests try on any compiler what MSVC runs, which has no __builtin_cpu_supports. */
#if defined(LUNA_MSVC) || defined(LUNA_CPUID)

#ifdef LUNA_MSVC
INLINE void cpuid(int leaf, int *r) { __cpuidex(r, leaf, 0); }
INLINE u64 xgetbv(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
INLINE void cpuid(int leaf, int *r) {
    unsigned a, b, c, d;
    __cpuid_count(leaf, 0, a, b, c, d);
    r[0] = (int)a, r[1] = (int)b, r[2] = (int)c, r[3] = (int)d;
}
INLINE u64 xgetbv(void) {
    u32 low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (u64)high << 32 | low;
}
#endif

INLINE int has_bits(int r, u32 bits) { return ((u32)r & bits) == bits; }

/* Intel's manual, volume 2A, CPUID; and volume 1, 13.3: the system must save the registers, too (XCR0). */
static int ask_cpu(void) {
    const u32 SSE41_CLMUL = 1u << 19 | 1u << 1, OSXSAVE_AVX_POPCNT = 1u << 27 | 1u << 28 | 1u << 23;
    const u32 AVX2_BMI = 1u << 5 | 1u << 3 | 1u << 8, AVX512_F_BW_VL = 1u << 16 | 1u << 30 | 1u << 31;
    const u32 VBMI = 1u << 1, VPCLMUL = 1u << 10;
    int one[4], seven[4] = {0, 0, 0, 0}, found = CPU_KNOWN, leaves[4];
    cpuid(0, leaves);
    cpuid(1, one);
    if (leaves[0] >= 7)
        cpuid(7, seven);
    if (has_bits(one[2], SSE41_CLMUL))
        found |= CPU_CLMUL;
    u64 saved = has_bits(one[2], OSXSAVE_AVX_POPCNT) ? xgetbv() : 0;
    if ((saved & 6) == 6 && has_bits(seven[1], AVX2_BMI))
        found |= CPU_AVX2;
    if ((saved & 0xe6) == 0xe6 && has_bits(seven[1], AVX2_BMI | AVX512_F_BW_VL) && has_bits(seven[2], VBMI))
        found |= CPU_AVX512 | (has_bits(seven[2], VPCLMUL) ? CPU_WIDE_CLMUL : 0);
    return found;
}

/* Asked once: under a hypervisor each question takes microseconds. Threads that ask at the same time write the same. */
static int cpu_features(void) {
    static volatile int known;
    if (!known)
        known = ask_cpu();
    return known;
}

#else

static int cpu_features(void) {
    int found = CPU_KNOWN;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        found |= CPU_AVX2;
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi"))
        found |= CPU_AVX512 | (__builtin_cpu_supports("vpclmulqdq") ? CPU_WIDE_CLMUL : 0);
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))
        found |= CPU_CLMUL;
    return found;
}

#endif
#endif

static int detect_isa(void) {
#ifdef LUNA_DISPATCH
    int has = cpu_features();
#ifdef LUNA_AVX512
    if (LUNA_MOST_ISA >= ISA_AVX512 && has & CPU_AVX512)
        return ISA_AVX512;
#endif
    if (LUNA_MOST_ISA >= ISA_AVX2 && has & CPU_AVX2)
        return ISA_AVX2;
#endif
    return ISA_BASE;
}

#endif
