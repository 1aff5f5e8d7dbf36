/* float32 0..1 to bytes, the way numpy's clip and astype truncate; returns whether a value needs a closer look: NaN,
 * infinite, or further from 0 than QUANTIZE_LARGEST. */
#ifndef LUNA_QUANTIZE_H
#define LUNA_QUANTIZE_H

#include "cpu.h"

#define QUANTIZE_LARGEST 8.0f /* as LARGEST in quantize.py */

static int quantize_base(const float *RESTRICT src, u8 *RESTRICT dst, size_t n) {
    int32_t odd = 0;
    for (size_t i = 0; i < n; i++) {
        float v = src[i] * 255.0f;
        odd |= !(src[i] <= QUANTIZE_LARGEST && src[i] >= -QUANTIZE_LARGEST); /* NaN compares false */
        v = v > 0.0f ? v : 0.0f; /* NaN compares false and becomes 0 */
        v = v < 255.0f ? v : 255.0f;
        dst[i] = (u8)(int32_t)v;
    }
    return odd;
}

#ifdef LUNA_DISPATCH
/* Floats are asked for this far ahead, four pages: images come from memory, and the processor by itself looks no further
 * than the end of a page. The bytes of a large image go past the caches: a store would first fetch what it overwrites,
 * and another process reads them later. A megapixel that no cache holds, microseconds, least of 60: 500 plainly, 469
 * ahead, 394 past the caches, 348 both; 322 only to read it. */
#define QUANTIZE_AHEAD 4096
#define QUANTIZE_LARGE (1 << 18) /* bytes that go past the caches: less is read again before they lose it */

/* Whether `bytes` bytes to dst go past the caches; they are written in vectors of 32. */
static int past_caches(const void *dst, size_t bytes) {
    return bytes >= QUANTIZE_LARGE && (uintptr_t)dst % 32 == 0;
}

/* Eight floats to whole numbers 0..255. The order of the operands makes NaN, which max passes over, a 0. */
LUNA_TARGET("avx2") static __m256i quantize_eight(const float *src, __m256 *odd) {
    __m256 v = _mm256_loadu_ps(src);
    __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
    *odd = _mm256_or_ps(*odd, _mm256_cmp_ps(size, _mm256_set1_ps(QUANTIZE_LARGEST), _CMP_NLE_UQ)); /* NaN as well */
    v = _mm256_max_ps(_mm256_mul_ps(v, _mm256_set1_ps(255.0f)), _mm256_setzero_ps());
    return _mm256_cvttps_epi32(_mm256_min_ps(v, _mm256_set1_ps(255.0f)));
}

LUNA_TARGET("avx2") static int quantize_avx2(const float *src, u8 *dst, size_t n) {
    const int past = past_caches(dst, n);
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing takes the 128-bit halves in turns */
    __m256 odd = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        prefetch(src + i + QUANTIZE_AHEAD);
        prefetch(src + i + QUANTIZE_AHEAD + 16);
        __m256i low = _mm256_packs_epi32(quantize_eight(src + i, &odd), quantize_eight(src + i + 8, &odd));
        __m256i high = _mm256_packs_epi32(quantize_eight(src + i + 16, &odd), quantize_eight(src + i + 24, &odd));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), in_order);
        if (past)
            _mm256_stream_si256((__m256i *)(void *)(dst + i), bytes);
        else
            _mm256_storeu_si256((__m256i *)(void *)(dst + i), bytes);
    }
    if (past)
        _mm_sfence(); /* what is written next is seen after them */
    return quantize_base(src + i, dst + i, n - i) | (_mm256_movemask_ps(odd) != 0);
}
#endif

static int luna_quantize_floats(const float *src, u8 *dst, size_t n) {
#ifdef LUNA_DISPATCH
    if (detect_isa() >= ISA_AVX2)
        return quantize_avx2(src, dst, n);
#endif
    return quantize_base(src, dst, n);
}

#endif
