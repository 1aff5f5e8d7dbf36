/* Sending literals two at a time by a table of pairs: for processors without the registers of lanes_avx512.h. */
#ifndef LUNA_LITERALS_H
#define LUNA_LITERALS_H

#include "codebook.h"

static void prepare_pairs(codebook *book) {
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

#endif
