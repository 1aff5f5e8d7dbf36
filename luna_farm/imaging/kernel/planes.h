/* Three planes of float32 to interleaved bytes: pictures as a VAE leaves them, channels first in memory.
 *
 * In pieces that stay in the first level cache: each plane is quantised on its own, in order, and only bytes are
 * interleaved. Memory: 12 KB of the stack. */
#ifndef LUNA_PLANES_H
#define LUNA_PLANES_H

#include "quantize.h"

#define PLANE_PIECE 4096

static void interleave_base(const u8 *RESTRICT r, const u8 *RESTRICT g, const u8 *RESTRICT b, u8 *RESTRICT dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dst[3 * i] = r[i];
        dst[3 * i + 1] = g[i];
        dst[3 * i + 2] = b[i];
    }
}

#ifdef LUNA_DISPATCH
/* Byte k of the 48 that 16 pixels make is channel k % 3 of pixel k / 3. */
LUNA_TARGET("avx2") static void interleave_avx2(const u8 *RESTRICT r, const u8 *RESTRICT g, const u8 *RESTRICT b,
                                                            u8 *RESTRICT dst, size_t n, int past) {
    u8 from[3][3][16];
    for (int k = 0; k < 48; k++)
        for (int c = 0; c < 3; c++)
            from[c][k / 16][k % 16] = k % 3 == c ? (u8)(k / 3) : 0x80;
    __m128i masks[3][3];
    for (int c = 0; c < 3; c++)
        for (int part = 0; part < 3; part++)
            masks[c][part] = _mm_loadu_si128((const __m128i *)(const void *)from[c][part]);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m128i red = _mm_loadu_si128((const __m128i *)(const void *)(r + i));
        __m128i green = _mm_loadu_si128((const __m128i *)(const void *)(g + i));
        __m128i blue = _mm_loadu_si128((const __m128i *)(const void *)(b + i));
        for (int part = 0; part < 3; part++) {
            __m128i three = _mm_or_si128(_mm_shuffle_epi8(red, masks[0][part]), _mm_shuffle_epi8(green, masks[1][part]));
            three = _mm_or_si128(three, _mm_shuffle_epi8(blue, masks[2][part]));
            if (past)
                _mm_stream_si128((__m128i *)(void *)(dst + 3 * i + 16 * part), three);
            else
                _mm_storeu_si128((__m128i *)(void *)(dst + 3 * i + 16 * part), three);
        }
    }
    interleave_base(r + i, g + i, b + i, dst + 3 * i, n - i);
}
#endif

/* src: the first of three planes that begin `plane` floats apart; dst: 3 * n bytes. Returns as luna_quantize_floats does. */
static int luna_quantize_planes(const float *src, size_t plane, u8 *dst, size_t n) {
    u8 bytes[3][PLANE_PIECE];
    int odd = 0;
#ifdef LUNA_DISPATCH
    const int past = past_caches(dst, 3 * n);
#endif
    for (size_t at = 0; at < n; at += PLANE_PIECE) {
        size_t piece = n - at < PLANE_PIECE ? n - at : PLANE_PIECE;
        for (int c = 0; c < 3; c++)
            odd |= luna_quantize_floats(src + (size_t)c * plane + at, bytes[c], piece);
#ifdef LUNA_DISPATCH
        if (detect_isa() >= ISA_AVX2) {
            interleave_avx2(bytes[0], bytes[1], bytes[2], dst + 3 * at, piece, past);
            continue;
        }
#endif
        interleave_base(bytes[0], bytes[1], bytes[2], dst + 3 * at, piece);
    }
#ifdef LUNA_DISPATCH
    if (past)
        _mm_sfence();
#endif
    return odd;
}

#endif
