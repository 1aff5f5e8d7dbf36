/* Finds runs of one byte, the only repetition that filtered photographs are full of. */
#ifndef LUNA_RUNS_H
#define LUNA_RUNS_H

#include "block.h"

/* Shorter runs seldom pay, and the quickest way to send tokens (lanes_avx512.h) rests on this. Leaving all but long
 * ones is quicker and costs a photograph 2 to 5 %. */
enum { SHORT_RUN = 8, LONG_RUN = 32 };

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

/* Notes where data[0..n) goes in and out of runs of at least so many repeats, by turns, and in `covered` which bytes
 * lie in them (and, after the end, that none is to be sent). Returns the number of notes. How many there are in a word
 * is hard to foretell, so four are written at once without asking. */
#define NOTE_EDGES(repeats_of, least)                                                                  \
    size_t notes = 0, last = n / 64;                                                                   \
    u64 starts_before = 0, inside = 0;                                                                 \
    for (size_t i = 0; i <= last; i++)                                                                 \
        covered[i] = repeats_of(data + 64 * i);                                                        \
    covered[last] &= (1ull << (n & 63)) - 1;                                                           \
    covered[last + 1] = 0;                                                                             \
    for (size_t i = 0; i <= last; i++) {                                                               \
        u64 starts = run_starts(covered[i], covered[i + 1], least);                                    \
        if (!(starts | starts_before)) { /* noise has no other words */                                \
            covered[i] = inside = 0;                                                                   \
            continue;                                                                                  \
        }                                                                                              \
        u64 bodies = run_bodies(starts_before, starts, least);                                         \
        u64 edges = bodies ^ (bodies << 1 | inside);                                                   \
        unsigned count = count_ones(edges);                                                            \
        covered[i] = bodies;                                                                           \
        starts_before = starts;                                                                        \
        inside = bodies >> 63;                                                                         \
        u32 *note = edge + notes, base = (u32)(64 * i);                                                \
        for (int k = 0; k < 4; k++, edges &= edges - 1)                                                \
            note[k] = base + low_zeros(edges | 1ull << 63);                                            \
        for (unsigned k = 4; k < count; k++, edges &= edges - 1)                                       \
            note[k] = base + low_zeros(edges);                                                         \
        notes += count;                                                                                \
    }                                                                                                  \
    covered[last] |= ~0ull << (n & 63);                                                                \
    return notes;

/* Of each, one for either length of run: a constant lets the compiler unroll what is done to every word. */
static size_t note_short_base(const u8 *data, size_t n, u64 *covered, u32 *edge) { NOTE_EDGES(repeats, SHORT_RUN) }
static size_t note_long_base(const u8 *data, size_t n, u64 *covered, u32 *edge) { NOTE_EDGES(repeats, LONG_RUN) }

#ifdef LUNA_DISPATCH
#define RUNS_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define RUNS_AVX512 __attribute__((target("avx512f,avx512bw,bmi,bmi2,popcnt")))

RUNS_AVX512 INLINE u64 repeats_avx512(const u8 *data) {
    return _mm512_cmpeq_epu8_mask(_mm512_loadu_si512(data), _mm512_loadu_si512(data - 1));
}

RUNS_AVX2 static size_t note_short_avx2(const u8 *data, size_t n, u64 *covered, u32 *edge) {
    NOTE_EDGES(repeats, SHORT_RUN)
}

RUNS_AVX2 static size_t note_long_avx2(const u8 *data, size_t n, u64 *covered, u32 *edge) {
    NOTE_EDGES(repeats, LONG_RUN)
}

RUNS_AVX512 static size_t note_short_avx512(const u8 *data, size_t n, u64 *covered, u32 *edge) {
    NOTE_EDGES(repeats_avx512, SHORT_RUN)
}

RUNS_AVX512 static size_t note_long_avx512(const u8 *data, size_t n, u64 *covered, u32 *edge) {
    NOTE_EDGES(repeats_avx512, LONG_RUN)
}
#endif

static size_t note_edges(int isa, const u8 *data, size_t n, int only_long, u64 *covered, u32 *edge) {
#ifdef LUNA_DISPATCH
    if (isa == ISA_AVX512)
        return only_long ? note_long_avx512(data, n, covered, edge) : note_short_avx512(data, n, covered, edge);
    if (isa == ISA_AVX2)
        return only_long ? note_long_avx2(data, n, covered, edge) : note_short_avx2(data, n, covered, edge);
#endif
    (void)isa;
    return only_long ? note_long_base(data, n, covered, edge) : note_short_base(data, n, covered, edge);
}

/* Splits data[0..n) into literals and runs of at least SHORT_RUN repeats, or LONG_RUN; no token is shorter than
 * SHORT_RUN. Returns the number of tokens, at most n / SHORT_RUN + 1. data[-1] is readable and counts as what came
 * before, and so is data[n .. n + 64). `covered` has room for n / 64 + 2, `edge` for 2 * n / SHORT_RUN + 8. */
static size_t find_runs(int isa, const u8 *data, size_t n, int only_long, u64 *covered, u32 *edge, token *tokens) {
    size_t count = 0, notes = note_edges(isa, data, n, only_long, covered, edge);
    u32 literal = 0;
    for (size_t i = 0; i < notes; i += 2) {
        u32 start = edge[i], run = edge[i + 1] - start;
        for (; run > MAX_MATCH; literal = start) {
            u32 piece = run < MAX_MATCH + SHORT_RUN ? run - SHORT_RUN : MAX_MATCH;
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
