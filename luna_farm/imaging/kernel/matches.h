/* Finds earlier occurrences of strings (LZ77) by chains of equal hashes. */
#ifndef LUNA_MATCHES_H
#define LUNA_MATCHES_H

#include "common.h"
#include "symbols.h"

enum { HASH_BITS = 15, HASHED = 6, MOST_FOUND = 8, FIRST_POSITION = WINDOW + 1 };

/* Positions are counted from WINDOW + 1 at the start of a strip, so 0 means "none" and nothing before is in reach. A strip
 * is shorter than 2^31 bytes. */
typedef struct {
    u32 head[1 << HASH_BITS]; /* hash -> the last position with it */
    u32 earlier[WINDOW]; /* position modulo WINDOW -> the one before with the same hash */
} chains;

/* How hard to look: `depth` candidates at a position; from a match of `nice` bytes on, the best is not looked for, and
 * not at all inside it; `passes` times the choice of matches is made, each time by the costs the last one led to. */
typedef struct {
    unsigned depth, nice, passes, patience;
} effort;

typedef struct {
    u16 length, distance; /* distance less one */
} match;

INLINE u64 hashed_bytes(const u8 *p) { return load64(p) << (64 - 8 * HASHED); }

INLINE u32 hash_of(u64 bytes) { return (u32)(bytes * 0x9e3779b185ebca87ull >> (64 - HASH_BITS)); }

/* How many bytes of p and q are equal, up to `limit`. Reads up to 15 bytes past it. */
INLINE unsigned equal_bytes(const u8 *p, const u8 *q, unsigned limit) {
#ifdef LUNA_X86
    for (unsigned i = 0; i < limit; i += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(q + i));
        unsigned differ = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) ^ 0xffff;
        if (differ) {
            unsigned same = i + low_zeros(differ);
            return same < limit ? same : limit;
        }
    }
#else
    for (unsigned i = 0; i < limit; i += 8) {
        u64 differ = load64(p + i) ^ load64(q + i);
        if (differ) {
            unsigned same = i + low_zeros(differ) / 8;
            return same < limit ? same : limit;
        }
    }
#endif
    return limit;
}

INLINE void remember(chains *c, u32 hash, u32 position) {
    c->earlier[position % WINDOW] = c->head[hash];
    c->head[hash] = position;
}

/* Notes the matches for p, which stands at `position`, each longer than the one before and the nearest of its length;
 * of more than MOST_FOUND, the longest ones. Returns how many. Remembers the position. */
static unsigned find_matches(chains *c, const u8 *p, u32 position, unsigned limit, const effort *how, match *found) {
    unsigned count = 0, best = HASHED - 1;
    u32 hash = hash_of(hashed_bytes(p)), candidate = c->head[hash];
    remember(c, hash, position);
    /* In noise nothing is found, and what costs is guessing wrong where a chain ends. So a candidate out of reach is
     * looked at like any other, at the edge of the window, and one test that is nearly always false refuses it. */
    for (unsigned left = how->depth; left; left--) {
        u32 distance = position - candidate;
        const u8 *q = p - (distance < WINDOW ? distance : WINDOW);
        /* The four bytes that a longer match must share, too: they seldom agree, and one test says so. */
        if ((load32(q + best - 3) == load32(p + best - 3)) & (distance - 1 < WINDOW)) {
            unsigned length = equal_bytes(p, q, limit);
            if (length > best) {
                count -= count == MOST_FOUND;
                found[count++] = (match){(u16)length, (u16)(distance - 1)};
                best = length;
                if (length >= how->nice || length == limit)
                    break;
            }
        }
        candidate = c->earlier[candidate % WINDOW];
    }
    return count;
}

#endif
