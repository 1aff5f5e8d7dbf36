/* Adler-32 (zlib) and CRC-32 (PNG chunks). */
#ifndef LUNA_CHECKSUM_H
#define LUNA_CHECKSUM_H

#include "common.h"

#define ADLER_MOD 65521u

/* Sums 32 bytes at a time in independent lanes, which compilers vectorise; RFC 1950 has the definition. */
static u32 adler32_update(u32 adler, const u8 *p, size_t n) {
    u32 a = adler & 0xffff, b = adler >> 16;
    while (n >= 32) {
        size_t blocks = n / 32 < 128 ? n / 32 : 128; /* 128 * 255 fits the 16-bit column sums below */
        u16 column[32] = {0};
        u32 rows = 0, before = 0; /* before: sum over blocks of the plain sum of all earlier blocks */
        for (size_t k = 0; k < blocks; k++, p += 32) {
            u32 sum = 0;
            before += rows;
            for (int i = 0; i < 32; i++) {
                column[i] = (u16)(column[i] + p[i]);
                sum += p[i];
            }
            rows += sum;
        }
        u32 weighted = 0;
        for (u32 i = 0; i < 32; i++)
            weighted += column[i] * (32 - i);
        b = (b + a * 32 * (u32)blocks + before % ADLER_MOD * 32 + weighted) % ADLER_MOD;
        a = (a + rows) % ADLER_MOD;
        n -= 32 * blocks;
    }
    for (; n; n--) {
        a += *p++;
        b += a;
    }
    return (b % ADLER_MOD) << 16 | a % ADLER_MOD;
}

/* The Adler-32 of two pieces put together, from theirs and the length of the second. */
static u32 adler32_join(u32 first, u32 second, u64 second_bytes) {
    u32 n = (u32)(second_bytes % ADLER_MOD), a1 = first & 0xffff;
    u32 a = (a1 + (second & 0xffff) + ADLER_MOD - 1) % ADLER_MOD;
    u32 b = ((first >> 16) + (second >> 16) + (u32)((u64)a1 * n % ADLER_MOD) + ADLER_MOD - n) % ADLER_MOD;
    return b << 16 | a;
}

/* CRC tables for eight bytes at a time ("slicing by 8"); filled once when the module is loaded. */
static u32 crc_table[8][256];

static void crc32_prepare(void) {
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[0][i] = c;
    }
    for (u32 i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] = crc_table[0][crc_table[k - 1][i] & 255] ^ (crc_table[k - 1][i] >> 8);
}

static u32 crc32_plain(u32 crc, const u8 *p, size_t n) { /* crc: the inner state, already inverted */
    for (; n >= 8; n -= 8, p += 8) {
        u64 v = load64(p) ^ crc;
        crc = crc_table[7][v & 255] ^ crc_table[6][v >> 8 & 255] ^ crc_table[5][v >> 16 & 255] ^
              crc_table[4][v >> 24 & 255] ^ crc_table[3][v >> 32 & 255] ^ crc_table[2][v >> 40 & 255] ^
              crc_table[1][v >> 48 & 255] ^ crc_table[0][v >> 56];
    }
    for (; n; n--)
        crc = crc_table[0][(crc ^ *p++) & 255] ^ (crc >> 8);
    return crc;
}

#ifdef LUNA_DISPATCH
#define CLMUL __attribute__((target("pclmul,sse4.1")))

CLMUL INLINE __m128i fold(__m128i x, __m128i next, __m128i k) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11)), next);
}

/* Folds 64 bytes at a time by carry-less multiplication (Gopal et al., "Fast CRC computation for generic polynomials
 * using PCLMULQDQ", 2009). The constants are x^(512 + 32), x^(512 - 32), x^(128 + 32) and x^(128 - 32) modulo the
 * polynomial, bit-reflected. The 16 bytes left at the end have the same CRC as all of it and go through the table. */
CLMUL static u32 crc32_folded(u32 crc, const u8 *p, size_t n) {
    const __m128i by64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), by16 = _mm_set_epi64x(0xccaa009e, 0x1751997d0);
    __m128i x[4];
    for (int i = 0; i < 4; i++)
        x[i] = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
    x[0] = _mm_xor_si128(x[0], _mm_cvtsi32_si128((int)crc));
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64)
        for (int i = 0; i < 4; i++)
            x[i] = fold(x[i], _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)), by64);
    __m128i one = fold(fold(fold(x[0], x[1], by16), x[2], by16), x[3], by16);
    for (; n >= 16; p += 16, n -= 16)
        one = fold(one, _mm_loadu_si128((const __m128i *)(const void *)p), by16);
    u8 last[16];
    _mm_storeu_si128((__m128i *)(void *)last, one);
    return crc32_plain(crc32_plain(0, last, 16), p, n);
}
#endif

static u32 crc32_of(const u8 *p, size_t n) {
    u32 crc = 0xffffffffu;
#ifdef LUNA_DISPATCH
    if (n >= 64 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))
        return ~crc32_folded(crc, p, n);
#endif
    return ~crc32_plain(crc, p, n);
}

#endif
