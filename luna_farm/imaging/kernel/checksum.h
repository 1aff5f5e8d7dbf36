/* Adler-32 (zlib) and CRC-32 (PNG chunks). */
#ifndef LUNA_CHECKSUM_H
#define LUNA_CHECKSUM_H

#include "cpu.h"

#define ADLER_MOD 65521u

/* What a piece of up to ADLER_BLOCKS times 32 bytes adds: the sum of its bytes, the sum over its 32-byte blocks of all
 * bytes before the block, and the sum of all bytes weighted 32 .. 1 within their block. All fit 32 bits. */
enum { ADLER_BLOCKS = 128 };
typedef struct {
    u32 plain, before, weighted;
} adler_sums;

static adler_sums adler_sums_base(const u8 *p, size_t blocks) {
    adler_sums out = {0, 0, 0};
    u16 column[32] = {0};
    for (size_t k = 0; k < blocks; k++, p += 32) {
        u32 sum = 0;
        for (int i = 0; i < 32; i++) {
            column[i] = (u16)(column[i] + p[i]);
            sum += p[i];
        }
        out.before += out.plain;
        out.plain += sum;
    }
    for (u32 i = 0; i < 32; i++)
        out.weighted += column[i] * (32 - i);
    return out;
}

#ifdef LUNA_DISPATCH
LUNA_TARGET("avx2") static u32 sum_lanes(__m256i v) {
    u32 lane[8], sum = 0;
    _mm256_storeu_si256((__m256i *)(void *)lane, v);
    for (int i = 0; i < 8; i++)
        sum += lane[i];
    return sum;
}

LUNA_TARGET("avx2") static adler_sums adler_sums_avx2(const u8 *p, size_t blocks) {
    const __m256i weights = _mm256_set_epi8(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                            22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32);
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    __m256i plain = zero, before = zero, weighted = zero;
    for (size_t k = 0; k < blocks; k++, p += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
        before = _mm256_add_epi32(before, plain);
        plain = _mm256_add_epi32(plain, _mm256_sad_epu8(v, zero));
        weighted = _mm256_add_epi32(weighted, _mm256_madd_epi16(_mm256_maddubs_epi16(v, weights), ones));
    }
    return (adler_sums){sum_lanes(plain), sum_lanes(before), sum_lanes(weighted)};
}

#endif

#ifdef LUNA_AVX512
/* Two blocks at a time: `before` counts for both, and the first of them comes before the second. */
LUNA_TARGET("avx512f,avx512bw") static adler_sums adler_sums_avx512(const u8 *p, size_t pairs) {
    const __m256i down = _mm256_set_epi8(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                                         23, 24, 25, 26, 27, 28, 29, 30, 31, 32);
    const __m512i weights = _mm512_broadcast_i64x4(down), zero = _mm512_setzero_si512(), ones = _mm512_set1_epi16(1);
    __m512i plain = zero, before = zero, weighted = zero;
    for (size_t k = 0; k < pairs; k++, p += 64) {
        __m512i v = _mm512_loadu_si512(p);
        before = _mm512_add_epi32(before, plain);
        plain = _mm512_add_epi32(plain, _mm512_sad_epu8(v, zero));
        weighted = _mm512_add_epi32(weighted, _mm512_madd_epi16(_mm512_maddubs_epi16(v, weights), ones));
    }
    u32 first = sum_lanes(_mm512_castsi512_si256(plain));
    return (adler_sums){(u32)_mm512_reduce_add_epi32(plain), 2 * (u32)_mm512_reduce_add_epi32(before) + first,
                        (u32)_mm512_reduce_add_epi32(weighted)};
}
#endif

/* RFC 1950, section 8. */
static u32 adler32_update(int isa, u32 adler, const u8 *p, size_t n) {
    u32 a = adler & 0xffff, b = adler >> 16;
    (void)isa;
    while (n >= 32) {
        size_t blocks = n / 32 < ADLER_BLOCKS ? n / 32 : ADLER_BLOCKS;
        adler_sums sums;
#ifdef LUNA_AVX512
        if (isa == ISA_AVX512 && blocks > 1) {
            blocks &= ~(size_t)1;
            sums = adler_sums_avx512(p, blocks / 2);
        } else
#endif
#ifdef LUNA_DISPATCH
        if (isa >= ISA_AVX2)
            sums = adler_sums_avx2(p, blocks);
        else
#endif
            sums = adler_sums_base(p, blocks);
        b = (b + a * 32 * (u32)blocks + sums.before % ADLER_MOD * 32 + sums.weighted) % ADLER_MOD;
        a = (a + sums.plain) % ADLER_MOD;
        p += 32 * blocks;
        n -= 32 * blocks;
    }
    for (; n; n--) {
        a += *p++;
        b += a;
    }
    return (b % ADLER_MOD) << 16 | a % ADLER_MOD;
}

/* The Adler-32 of two pieces put together, from theirs and the length of the second. */
static u32 luna_adler32_join(u32 first, u32 second, u64 second_bytes) {
    u32 n = (u32)(second_bytes % ADLER_MOD), a1 = first & 0xffff;
    u32 a = (a1 + (second & 0xffff) + ADLER_MOD - 1) % ADLER_MOD;
    u32 b = ((first >> 16) + (second >> 16) + (u32)((u64)a1 * n % ADLER_MOD) + ADLER_MOD - n) % ADLER_MOD;
    return b << 16 | a;
}

/* CRC tables for eight bytes at a time ("slicing by 8"): entry i of table k is the CRC of byte i with k zero bytes behind
 * it. A CRC is linear, so each entry is the sum of those of the powers of two, of which each line has the eight. */
#define CRC_ONE(i, a, b, c, d, e, f, g, h)                                                                         \
    (((i) & 1 ? a : 0) ^ ((i) & 2 ? b : 0) ^ ((i) & 4 ? c : 0) ^ ((i) & 8 ? d : 0) ^ ((i) & 16 ? e : 0) ^          \
     ((i) & 32 ? f : 0) ^ ((i) & 64 ? g : 0) ^ ((i) & 128 ? h : 0))
#define CRC_FOUR(i, a, b, c, d, e, f, g, h)                                                                              \
    CRC_ONE(i, a, b, c, d, e, f, g, h), CRC_ONE(i + 1, a, b, c, d, e, f, g, h), CRC_ONE(i + 2, a, b, c, d, e, f, g, h),              \
        CRC_ONE(i + 3, a, b, c, d, e, f, g, h)
#define CRC_16(i, a, b, c, d, e, f, g, h)                                                                                \
    CRC_FOUR(i, a, b, c, d, e, f, g, h), CRC_FOUR(i + 4, a, b, c, d, e, f, g, h), CRC_FOUR(i + 8, a, b, c, d, e, f, g, h),           \
        CRC_FOUR(i + 12, a, b, c, d, e, f, g, h)
#define CRC_64(i, a, b, c, d, e, f, g, h)                                                                                \
    CRC_16(i, a, b, c, d, e, f, g, h), CRC_16(i + 16, a, b, c, d, e, f, g, h), CRC_16(i + 32, a, b, c, d, e, f, g, h),               \
        CRC_16(i + 48, a, b, c, d, e, f, g, h)
#define CRC_TABLE(a, b, c, d, e, f, g, h)                                                                                \
    {CRC_64(0, a, b, c, d, e, f, g, h), CRC_64(64, a, b, c, d, e, f, g, h), CRC_64(128, a, b, c, d, e, f, g, h), CRC_64(192, a, b, c, d, e, f, g, h)}
static const u32 crc_table[8][256] = {
    CRC_TABLE(0x77073096u, 0xee0e612cu, 0x076dc419u, 0x0edb8832u, 0x1db71064u, 0x3b6e20c8u, 0x76dc4190u, 0xedb88320u),
    CRC_TABLE(0x191b3141u, 0x32366282u, 0x646cc504u, 0xc8d98a08u, 0x4ac21251u, 0x958424a2u, 0xf0794f05u, 0x3b83984bu),
    CRC_TABLE(0x01c26a37u, 0x0384d46eu, 0x0709a8dcu, 0x0e1351b8u, 0x1c26a370u, 0x384d46e0u, 0x709a8dc0u, 0xe1351b80u),
    CRC_TABLE(0xb8bc6765u, 0xaa09c88bu, 0x8f629757u, 0xc5b428efu, 0x5019579fu, 0xa032af3eu, 0x9b14583du, 0xed59b63bu),
    CRC_TABLE(0x3d6029b0u, 0x7ac05360u, 0xf580a6c0u, 0x30704bc1u, 0x60e09782u, 0xc1c12f04u, 0x58f35849u, 0xb1e6b092u),
    CRC_TABLE(0xcb5cd3a5u, 0x4dc8a10bu, 0x9b914216u, 0xec53826du, 0x03d6029bu, 0x07ac0536u, 0x0f580a6cu, 0x1eb014d8u),
    CRC_TABLE(0xa6770bb4u, 0x979f1129u, 0xf44f2413u, 0x33ef4e67u, 0x67de9cceu, 0xcfbd399cu, 0x440b7579u, 0x8816eaf2u),
    CRC_TABLE(0xccaa009eu, 0x4225077du, 0x844a0efau, 0xd3e51bb5u, 0x7cbb312bu, 0xf9766256u, 0x299dc2edu, 0x533b85dau),
};

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
#define CLMUL LUNA_TARGET("pclmul,sse4.1")

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

#ifdef LUNA_AVX512
#define WIDE_CLMUL LUNA_TARGET("avx512f,vpclmulqdq,pclmul,sse4.1")

/* The same 256 bytes at a time, by x^(2048 + 32) and x^(2048 - 32). n is at least 256. */
WIDE_CLMUL static u32 crc32_wide(u32 crc, const u8 *p, size_t n) {
    const __m512i by256 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x1322d1430, 0x11542778a));
    __m512i x[4];
    for (int i = 0; i < 4; i++)
        x[i] = _mm512_loadu_si512(p + 64 * i);
    x[0] = _mm512_xor_si512(x[0], _mm512_inserti32x4(_mm512_setzero_si512(), _mm_cvtsi32_si128((int)crc), 0));
    for (p += 256, n -= 256; n >= 256; p += 256, n -= 256)
        for (int i = 0; i < 4; i++) {
            __m512i low = _mm512_clmulepi64_epi128(x[i], by256, 0x00);
            __m512i high = _mm512_clmulepi64_epi128(x[i], by256, 0x11);
            x[i] = _mm512_xor_si512(_mm512_xor_si512(low, high), _mm512_loadu_si512(p + 64 * i));
        }
    u8 last[256];
    for (int i = 0; i < 4; i++)
        _mm512_storeu_si512(last + 64 * i, x[i]);
    crc = crc32_folded(0, last, 256);
    return n < 64 ? crc32_plain(crc, p, n) : crc32_folded(crc, p, n);
}
#endif

static u32 crc32_of(int isa, const u8 *p, size_t n) {
    u32 crc = 0xffffffffu;
    (void)isa;
#ifdef LUNA_AVX512
    if (n >= 256 && isa == ISA_AVX512 && cpu_features() & CPU_WIDE_CLMUL)
        return ~crc32_wide(crc, p, n);
#endif
#ifdef LUNA_DISPATCH
    if (n >= 64 && cpu_features() & CPU_CLMUL)
        return ~crc32_folded(crc, p, n);
#endif
    return ~crc32_plain(crc, p, n);
}

#endif
