/* Finds runs of one byte, the only repetition that filtered photographs are full of. */
#ifndef LUNA_RUNS_H
#define LUNA_RUNS_H

#include "block.h"

/* Runs below SHORT_RUN seldom pay, and the quickest way to send tokens (lanes_avx512.h) likes them long. Leaving all but
 * LONG_RUN is quicker and costs a photograph 2 to 5 %. SHORTEST_RUN gains up to 3 % where flat areas are frayed, as in
 * decoded JPEG, and takes a fifth longer. */
enum { SHORTEST_RUN = 5, SHORT_RUN = 8, LONG_RUN = 32 };

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

/* The other way: each of the bits in `now`, and in `before` ahead of it, grown to `least` in a row. */
INLINE u64 run_bodies(u64 before, u64 now, unsigned least) {
    unsigned have = 1;
    for (; 2 * have <= least; have *= 2) {
        now |= now << have | before >> (64 - have);
        before |= before << have;
    }
    if (have < least)
        now |= now << (least - have) | before >> (64 - (least - have));
    return now;
}

/* Sets bit i of the words in `mask` where data[i] == data[i - 1], for words 0 .. last. */
static void mark_repeats_base(const u8 *data, size_t last, u64 *mask) {
    for (size_t i = 0; i <= last; i++)
        mask[i] = repeats(data + 64 * i);
}

/* Notes where data[0..n) goes in and out of runs of at least `least` repeats, by turns, and in `covered`, which holds
 * the repeats, which bytes lie in them. Returns the number of notes. How many there are in a word is hard to predict, so
 * four are written at once without asking. */
INLINE size_t note_edges_of(size_t n, const unsigned least, u64 *covered, u32 *edge) {
    size_t notes = 0, last = n / 64;
    u64 starts_before = 0, inside = 0;
    covered[last] &= (1ull << (n & 63)) - 1;
    covered[last + 1] = 0;
    for (size_t i = 0; i <= last; i++) {
        u64 starts = run_starts(covered[i], covered[i + 1], least);
        if (!(starts | starts_before)) { /* noise has no other words */
            covered[i] = inside = 0;
            continue;
        }
        u64 bodies = run_bodies(starts_before, starts, least);
        u64 edges = bodies ^ (bodies << 1 | inside);
        unsigned count = count_ones(edges);
        covered[i] = bodies;
        starts_before = starts;
        inside = bodies >> 63;
        u32 *note = edge + notes, base = (u32)(64 * i);
        for (int k = 0; k < 4; k++, edges &= edges - 1)
            note[k] = base + low_zeros(edges | 1ull << 63);
        for (unsigned k = 4; k < count; k++, edges &= edges - 1)
            note[k] = base + low_zeros(edges);
        notes += count;
    }
    covered[last] |= ~0ull << (n & 63); /* after the end nothing is to be sent */
    return notes;
}

/* One copy for each least length: a constant lets the compiler unroll what is done to every word. */
INLINE size_t note_edges(size_t n, int least, u64 *covered, u32 *edge) {
    if (least == LONG_RUN)
        return note_edges_of(n, LONG_RUN, covered, edge);
    if (least == SHORT_RUN)
        return note_edges_of(n, SHORT_RUN, covered, edge);
    return note_edges_of(n, SHORTEST_RUN, covered, edge);
}

static size_t mark_runs_base(const u8 *data, size_t n, int least, u64 *covered, u32 *edge) {
    mark_repeats_base(data, n / 64, covered);
    return note_edges(n, least, covered, edge);
}

#ifdef LUNA_DISPATCH
TARGET_AVX2 static size_t mark_runs_avx2(const u8 *data, size_t n, int least, u64 *covered, u32 *edge) {
    for (size_t i = 0; i <= n / 64; i++)
        covered[i] = repeats(data + 64 * i);
    return note_edges(n, least, covered, edge);
}

#endif

#ifdef LUNA_AVX512
TARGET_AVX512 static size_t mark_runs_avx512(const u8 *data, size_t n, int least, u64 *covered, u32 *edge) {
    for (size_t i = 0; i <= n / 64; i++)
        covered[i] = _mm512_cmpeq_epu8_mask(_mm512_loadu_si512(data + 64 * i), _mm512_loadu_si512(data + 64 * i - 1));
    return note_edges(n, least, covered, edge);
}
#endif

static size_t mark_runs(int isa, const u8 *data, size_t n, int least, u64 *covered, u32 *edge) {
#ifdef LUNA_AVX512
    if (isa == ISA_AVX512)
        return mark_runs_avx512(data, n, least, covered, edge);
#endif
#ifdef LUNA_DISPATCH
    if (isa == ISA_AVX2)
        return mark_runs_avx2(data, n, least, covered, edge);
#endif
    (void)isa;
    return mark_runs_base(data, n, least, covered, edge);
}

/* Splits data[0..n) into literals and runs of at least `least` repeats, one of the three above. Returns the number of
 * tokens, at most n / SHORTEST_RUN + 1. data[-1] is readable and counts as what came before, and data[n .. n + 64) is
 * readable. `covered` has room for n / 64 + 2, `edge` for 2 * n / SHORTEST_RUN + EDGES_AFTER: behind where runs begin and end it
 * is left n so many times. */
enum { EDGES_AFTER = 8 };
static size_t find_runs(int isa, const u8 *data, size_t n, int least, u64 *covered, u32 *edge, token *tokens) {
    size_t count = 0, notes = mark_runs(isa, data, n, least, covered, edge);
    u32 literal = 0;
    for (size_t i = 0; i < EDGES_AFTER; i++)
        edge[notes + i] = (u32)n;
    for (size_t i = 0; i < notes; i += 2) {
        u32 start = edge[i], run = edge[i + 1] - start;
        for (; run > MAX_MATCH; literal = start) {
            u32 piece = run < MAX_MATCH + SHORT_RUN ? run - SHORT_RUN : MAX_MATCH; /* no rest is shorter */
            tokens[count++] = (token){start - literal, (u16)piece, 0};
            start += piece;
            run -= piece;
        }
        tokens[count++] = (token){start - literal, (u16)run, 0};
        literal = start + run;
    }
    tokens[count++] = (token){(u32)n - literal, 0, 0};
    return count;
}

#endif
