/* Sending literals two at a time by a table of pairs: for processors without the registers of lanes_avx512.h. */
#ifndef LUNA_LITERALS_H
#define LUNA_LITERALS_H

#include "codebook.h"

static void prepare_pairs(codebook *book) {
    const u32 *single = book->literal;
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

/* Sends up to three literals without asking how many, which nothing foretells. p[0..4) is readable. */
INLINE void put_few(bitstream *s, const codebook *book, const u8 *p, size_t n) {
    u32 four = load32(p);
    u32 a = n > 0 ? book->literal[four & 255] : 0, b = n > 1 ? book->literal[four >> 8 & 255] : 0;
    u32 c = n > 2 ? book->literal[four >> 16 & 255] : 0;
    unsigned bits_a = a & 31, bits_ab = bits_a + (b & 31); /* 45 bits at the most */
    put_bits(s, a >> 5 | (u64)(b >> 5) << bits_a | (u64)(c >> 5) << bits_ab, bits_ab + (c & 31));
}

/* n is a multiple of 4. */
INLINE void put_singly(bitstream *s, const codebook *book, const u8 *p, size_t n) {
    for (; n; n -= 4, p += 4) { /* twice 30 bits at the most */
        u32 four = load32(p), a = book->literal[four & 255], b = book->literal[four >> 8 & 255];
        u32 c = book->literal[four >> 16 & 255], d = book->literal[four >> 24];
        put_bits(s, a >> 5 | (u64)(b >> 5) << (a & 31), (a & 31) + (b & 31));
        put_bits(s, c >> 5 | (u64)(d >> 5) << (c & 31), (c & 31) + (d & 31));
    }
}

/* n is a multiple of 4. */
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
}

#endif
