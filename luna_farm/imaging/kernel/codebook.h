/* What a block is made of (literals and matches), and the codes that they are sent by. */
#ifndef LUNA_CODEBOOK_H
#define LUNA_CODEBOOK_H

#include "bits.h"
#include "huffman.h"
#include "symbols.h"

/* `literals` bytes as they are, then `length` bytes as they stood `distance` before. length 0: none (the last). */
typedef struct {
    u32 literals;
    u16 length;
    u16 distance; /* less one, so that 32768 fits */
} token;

typedef struct {
    u32 litlen[LITLEN_SYMBOLS];
    u32 dist[DIST_SYMBOLS];
    u64 extra_bits;
} histogram;

typedef struct {
    u8 litlen_bits[MAX_SYMBOLS];
    u16 litlen_code[MAX_SYMBOLS];
    u8 dist_bits[DIST_SYMBOLS + 2];
    u16 dist_code[DIST_SYMBOLS + 2];
    u32 length_code[MAX_MATCH + 1]; /* code and extra bits of a length, shifted by 5, and their count below */
    u32 literal[256]; /* the code of a literal, shifted by 5, and its bits below */
    u8 low[256], high[256]; /* the literals' codes in bytes */
    u32 pair[65536]; /* two literals at once: code << 5 | bits, or 0 where 27 bits do not hold them */
} codebook;

/* A match's code, extra bits and all: at most 48 bits. */
INLINE u64 match_code(const codebook *book, token t, unsigned *bits) {
    u32 length = book->length_code[t.length];
    unsigned slot = dist_slot(t.distance + 1u), count = length & 31;
    u64 value = length >> 5 | (u64)book->dist_code[slot] << count;
    count += book->dist_bits[slot];
    value |= (u64)(t.distance + 1u - DIST_BASE[slot]) << count;
    *bits = count + dist_extra(slot);
    return value;
}

INLINE void put_match(bitstream *s, const codebook *book, token t) {
    unsigned bits;
    u64 value = match_code(book, t, &bits);
    put_bits(s, value, bits);
}

#endif
