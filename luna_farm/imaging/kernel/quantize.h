/* float32 0..1 to bytes, the way numpy's clip and astype truncate; returns whether there was a NaN. */
#ifndef LUNA_QUANTIZE_H
#define LUNA_QUANTIZE_H

#include "common.h"

#define QUANTIZE_BODY                                                        \
    int32_t nan = 0;                                                         \
    for (size_t i = 0; i < n; i++) {                                         \
        float v = src[i] * 255.0f;                                           \
        nan |= src[i] != src[i]; /* of the source: infinity times 0 is none */ \
        v = v > 0.0f ? v : 0.0f; /* NaN compares false and becomes 0 */      \
        v = v < 255.0f ? v : 255.0f;                                         \
        dst[i] = (u8)(int32_t)v;                                             \
    }                                                                        \
    return nan;

static int quantize_base(const float *RESTRICT src, u8 *RESTRICT dst, size_t n) { QUANTIZE_BODY }

#ifdef LUNA_DISPATCH
__attribute__((target("avx2"))) static int quantize_avx2(const float *RESTRICT src, u8 *RESTRICT dst, size_t n) {
    QUANTIZE_BODY
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) static int quantize_avx512(const float *RESTRICT src,
                                                                                 u8 *RESTRICT dst, size_t n) {
    QUANTIZE_BODY
}
#endif

static int quantize_floats(const float *src, u8 *dst, size_t n) {
#ifdef LUNA_DISPATCH
    int isa = detect_isa();
    if (isa == ISA_AVX512)
        return quantize_avx512(src, dst, n);
    if (isa == ISA_AVX2)
        return quantize_avx2(src, dst, n);
#endif
    return quantize_base(src, dst, n);
}

#endif
