/* Finds runs of one byte, the only repetition that filtered photographs are full of. */
#ifndef LUNA_RUNS_H
#define LUNA_RUNS_H

#include "block.h"

/* Bit i: data[i] == data[i - 1]. Reads data[-1 .. 63]. */
INLINE u64 repeats(const u8 *data) {
#ifdef LUNA_X86
    u64 mask = 0;
    for (int i = 0; i < 4; i++) {
        __m128i here = _mm_loadu_si128((const __m128i *)(const void *)(data + 16 * i));
        __m128i before = _mm_loadu_si128((const __m128i *)(const void *)(data + 16 * i - 1));
        mask |= (u64)(u32)_mm_movemask_epi8(_mm_cmpeq_epi8(here, before)) << 16 * i;
    }
    return mask;
#else
    u64 mask = 0;
    for (int i = 0; i < 64; i += 8) {
        u64 differ = load64(data + i) ^ load64(data + i - 1), low = 0x7f7f7f7f7f7f7f7full;
        u64 zero = ~(((differ & low) + low) | differ | low); /* the top bit of each zero byte */
        mask |= (zero >> 7) * 0x0102040810204080ull >> 56 << i;
    }
    return mask;
#endif
}

/* The bits of `now` at which `least` (2..32) one bits in a row begin; `next` holds the bits after it. */
INLINE u64 run_starts(u64 now, u64 next, unsigned least) {
    unsigned have = 1;
    for (; 2 * have <= least; have *= 2) {
        now &= now >> have | next << (64 - have);
        next &= next >> have;
    }
    if (have < least)
        now &= now >> (least - have) | next << (64 - (least - have));
    return now;
}

INLINE size_t run_end(const u8 *data, size_t at, size_t n) {
    const u64 eight = data[at] * 0x0101010101010101ull;
    while (at < n) {
        u64 differ = load64(data + at) ^ eight;
        if (differ) {
            at += low_zeros(differ) / 8;
            break;
        }
        at += 8;
    }
    return at < n ? at : n;
}

/* Splits data[0..n) into literals and runs of at least `least` (3..32) repeats; returns the number of tokens, at most
 * n / 3 + 1. data[-1] is readable and counts as what came before; data[n .. n + 64) is readable. */
static size_t find_runs(const u8 *data, size_t n, unsigned least, token *tokens) {
    size_t count = 0, literal = 0, word = 0;
    u64 keep = ~0ull, next = repeats(data);
    while (word < n) {
        u64 now = next & keep;
        size_t left = n - word;
        keep = ~0ull;
        next = 0;
        if (left < 64)
            now &= (1ull << left) - 1;
        else if (left > 64) {
            next = repeats(data + word + 64);
            if (left < 128)
                next &= (1ull << (left - 64)) - 1;
        }
        u64 starts = run_starts(now, next, least);
        size_t end = 0;
        while (starts) {
            size_t start = word + low_zeros(starts);
            end = run_end(data, start, n);
            for (size_t run = end - start, piece; run; run -= piece) {
                piece = run <= MAX_MATCH ? run : run < MAX_MATCH + MIN_MATCH ? run - MIN_MATCH : MAX_MATCH;
                tokens[count++] = (token){(u32)(start - literal), (u16)piece, 0};
                start += piece;
                literal = start;
            }
            starts = end < word + 64 ? starts & ~0ull << (end - word) : 0;
        }
        word += 64;
        if (end > word) { /* the run went past this word: go on where it ended */
            word = end & ~(size_t)63;
            keep = ~0ull << (end - word);
            next = word < n ? repeats(data + word) : 0;
        }
    }
    tokens[count++] = (token){(u32)(n - literal), 0, 0};
    return count;
}

#endif
