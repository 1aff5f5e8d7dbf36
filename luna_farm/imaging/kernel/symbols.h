/* Deflate's alphabet of lengths and distances (RFC 1951, 3.2.5). */
#ifndef LUNA_SYMBOLS_H
#define LUNA_SYMBOLS_H

#include "common.h"

enum { MIN_MATCH = 3, MAX_MATCH = 258, WINDOW = 32768, END_OF_BLOCK = 256 };

static const u16 LENGTH_BASE[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                    31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const u8 LENGTH_EXTRA[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const u16 DIST_BASE[30] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                  193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

static u8 length_slot[MAX_MATCH + 1]; /* length -> 0..28; filled once when the module is loaded */

static void symbols_prepare(void) {
    for (int slot = 0; slot < 29; slot++) /* 258 has a slot of its own, after the range that would hold it */
        for (int length = LENGTH_BASE[slot]; length <= MAX_MATCH; length++)
            length_slot[length] = (u8)slot;
}

/* distance 1..32768 -> 0..29 */
INLINE unsigned dist_slot(u32 distance) {
    u32 d = distance - 1;
    if (d < 4)
        return d;
    unsigned top = high_bit(d);
    return 2 * top + (d >> (top - 1) & 1);
}

INLINE unsigned dist_extra(unsigned slot) { return slot < 4 ? 0 : slot / 2 - 1; }

#endif
