/* Sending literals, where an encoder of photographs spends its time: plainly two at a time by a table of pairs, or
 * 64 at a time where the processor can look bytes up in registers. */
#ifndef LUNA_LITERALS_H
#define LUNA_LITERALS_H

#include "bits.h"

/* Below this many literals in a block the table of pairs (65,536 entries) costs more than it saves. */
enum { PAIRS_PAY = 24 * 1024 };

static int literals_isa; /* set when the module is loaded */

static void prepare_literals(codebook *book, u64 literals) {
    book->use_pairs = literals_isa < ISA_AVX512 && literals >= PAIRS_PAY;
    for (int i = 0; i < 256; i++) {
        book->low[i] = (u8)book->litlen_code[i];
        book->high[i] = (u8)(book->litlen_code[i] >> 8);
    }
    if (!book->use_pairs)
        return;
    u32 single[256];
    for (int i = 0; i < 256; i++)
        single[i] = (u32)book->litlen_code[i] << 5 | book->litlen_bits[i];
    for (int second = 0; second < 256; second++) {
        u32 code = book->litlen_code[second], bits = book->litlen_bits[second];
        for (int first = 0; first < 256; first++) {
            u32 length = (single[first] & 31) + bits;
            u32 pair = (single[first] & ~31u) | code << ((single[first] & 31) + 5) | length;
            /* A literal the block lacks has no code; a pair with it is never asked for. */
            book->pair[second << 8 | first] = length <= 27 ? pair : 0;
        }
    }
}

INLINE void put_singly(bitstream *s, const codebook *book, const u8 *p, size_t n) {
    for (; n >= 3; n -= 3, p += 3) { /* 45 bits at the most */
        unsigned a = book->litlen_bits[p[0]], b = a + book->litlen_bits[p[1]];
        u64 value = book->litlen_code[p[0]] | (u64)book->litlen_code[p[1]] << a | (u64)book->litlen_code[p[2]] << b;
        put_bits(s, value, b + book->litlen_bits[p[2]]);
    }
    for (; n; n--, p++)
        put_bits(s, book->litlen_code[*p], book->litlen_bits[*p]);
}

INLINE void put_paired(bitstream *s, const codebook *book, const u8 *p, size_t n) {
    const u32 *pair = book->pair;
    for (; n >= 4; n -= 4, p += 4) {
        u32 four = load32(p), first = pair[four & 0xffff], second = pair[four >> 16];
        if (!first || !second) { /* rare: long codes side by side */
            put_singly(s, book, p, 4);
            continue;
        }
        unsigned bits = first & 31;
        put_bits(s, first >> 5 | (u64)(second >> 5) << bits, bits + (second & 31)); /* 54 bits at the most */
    }
    put_singly(s, book, p, n);
}

#ifdef LUNA_DISPATCH
#define VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi,bmi2")))

typedef struct {
    __m512i t[4];
} table256; /* 256 bytes in registers */

VBMI INLINE table256 load_table(const u8 *bytes) {
    table256 out;
    for (int i = 0; i < 4; i++)
        out.t[i] = _mm512_loadu_si512(bytes + 64 * i);
    return out;
}

VBMI INLINE __m512i look_up(table256 table, __m512i index) {
    __m512i lower = _mm512_permutex2var_epi8(table.t[0], index, table.t[1]);
    __m512i upper = _mm512_permutex2var_epi8(table.t[2], index, table.t[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), lower, upper);
}

/* Joins the codes of neighbours: 16-bit lanes with their lengths to 32-bit lanes, and those to 64-bit ones. */
VBMI INLINE void join16(__m512i *code, __m512i *bits) {
    __m512i low = _mm512_set1_epi32(0xffff), first = _mm512_and_si512(*bits, low);
    *code = _mm512_or_si512(_mm512_and_si512(*code, low), _mm512_sllv_epi32(_mm512_srli_epi32(*code, 16), first));
    *bits = _mm512_add_epi32(first, _mm512_srli_epi32(*bits, 16));
}

VBMI INLINE void join32(__m512i *code, __m512i *bits) {
    __m512i low = _mm512_set1_epi64(0xffffffff), first = _mm512_and_si512(*bits, low);
    *code = _mm512_or_si512(_mm512_and_si512(*code, low), _mm512_sllv_epi64(_mm512_srli_epi64(*code, 32), first));
    *bits = _mm512_add_epi64(first, _mm512_srli_epi64(*bits, 32));
}

/* Joins 64-bit lanes in twos into the lower lane of each; right where both together have at most 64 bits. */
VBMI INLINE void join64(__m512i *code, __m512i *bits) {
    *code = _mm512_or_si512(*code, _mm512_sllv_epi64(_mm512_bsrli_epi128(*code, 8), *bits));
    *bits = _mm512_add_epi64(*bits, _mm512_bsrli_epi128(*bits, 8));
}

/* The codes of 64 bytes are looked up in registers, joined until a lane holds those of eight bytes, and appended
 * lane by lane. Where eight bytes need more than 56 bits, the bytes go the plain way. */
VBMI static void put_literals_vbmi(bitstream *s, const codebook *book, const u8 *p, size_t n) {
    const table256 low = load_table(book->low), high = load_table(book->high), sizes = load_table(book->litlen_bits);
    const __m512i zero = _mm512_setzero_si512();
    bitstream out = *s;
    while (n) {
        size_t piece = n < 64 ? n : 64;
        __mmask64 in = ~0ull >> (64 - piece);
        __m512i bytes = _mm512_maskz_loadu_epi8(in, p);
        __m512i code_low = _mm512_maskz_mov_epi8(in, look_up(low, bytes));
        __m512i code_high = _mm512_maskz_mov_epi8(in, look_up(high, bytes));
        __m512i size = _mm512_maskz_mov_epi8(in, look_up(sizes, bytes));
        __m512i code_a = _mm512_unpacklo_epi8(code_low, code_high), bits_a = _mm512_unpacklo_epi8(size, zero);
        __m512i code_b = _mm512_unpackhi_epi8(code_low, code_high), bits_b = _mm512_unpackhi_epi8(size, zero);
        join16(&code_a, &bits_a);
        join16(&code_b, &bits_b);
        join32(&code_a, &bits_a);
        join32(&code_b, &bits_b);
        join64(&code_a, &bits_a);
        join64(&code_b, &bits_b);
        __m512i code = _mm512_unpacklo_epi64(code_a, code_b), bits = _mm512_unpacklo_epi64(bits_a, bits_b);
        if (_mm512_cmpgt_epu64_mask(bits, _mm512_set1_epi64(56))) {
            put_singly(&out, book, p, piece);
        } else {
            u64 codes[8], counts[8];
            _mm512_storeu_si512(codes, code);
            _mm512_storeu_si512(counts, bits);
            for (size_t i = 0; i < (piece + 7) / 8; i++)
                put_bits(&out, codes[i], (unsigned)counts[i]);
        }
        p += piece;
        n -= piece;
    }
    *s = out;
}
#endif

INLINE void put_literals(bitstream *s, const codebook *book, const u8 *p, size_t n) {
#ifdef LUNA_DISPATCH
    if (literals_isa == ISA_AVX512) {
        put_literals_vbmi(s, book, p, n);
        return;
    }
#endif
    if (book->use_pairs)
        put_paired(s, book, p, n);
    else
        put_singly(s, book, p, n);
}

#endif
