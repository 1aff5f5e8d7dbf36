/* A deflate bit stream into memory, least significant bit first. */
#ifndef LUNA_BITS_H
#define LUNA_BITS_H

#include "common.h"

/* Writers store eight bytes at a time, so the memory behind `at` must reach this far past the last bit sent. */
enum { BITS_SLACK = 16 };

typedef struct {
    u64 hold; /* bits not yet stored */
    unsigned count; /* how many; below 8 between calls */
    u8 *at;
} bitstream;

/* Sends the low `count` bits of `value`; the others must be 0. count <= 56. */
INLINE void put_bits(bitstream *s, u64 value, unsigned count) {
    s->hold |= value << s->count;
    s->count += count;
    store64(s->at, s->hold);
    s->at += s->count >> 3;
    s->hold >>= s->count & 56;
    s->count &= 7;
}

INLINE void fill_byte(bitstream *s) {
    if (s->count)
        put_bits(s, 0, 8 - s->count);
}

#endif
