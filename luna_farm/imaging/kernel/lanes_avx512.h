/* Sending a block's tokens 64 bytes at a time on processors that look bytes up in registers (AVX-512 VBMI). */
#ifndef LUNA_LANES_AVX512_H
#define LUNA_LANES_AVX512_H

#include "codebook.h"

#define VBMI LUNA_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi,bmi,bmi2")

/* A lane holds the bits of eight neighbouring bytes, and behind them those of the match that begins there. A match must
 * not end in the lane it begins in, so every match is at least that long; where shorter ones may be, a lane holds four
 * bytes, and every match is longer than that. A lane with more bits than LONGEST_LANE does
 * not fit 64 once it is moved to where it begins in a byte. */
enum { LANE_BYTES = 8, LANES = 64 / LANE_BYTES, LONGEST_LANE = 56, BATCH_LANES = 32 };

typedef struct {
    __m512i t[4];
} table256; /* 256 bytes in registers */

typedef struct {
    table256 low, high, bits; /* two bytes of each literal's code, and how many bits it has */
} literal_codes;

typedef struct {
    __m512i code, bits; /* of eight bytes in each 64 */
    __m512i code_a, code_b; /* of four bytes in each 64: of every sixteen bytes the first eight in a, the others in b */
    __m512i bits_of_fours; /* in each 32 */
} joined;

/* Lanes that wait to be sent. They are made and sent by turns, since the two halves of the work would otherwise wait
 * for each other. */
typedef struct {
    u64 code[BATCH_LANES]; /* moved to where it begins in a byte */
    u64 at[BATCH_LANES], whole[BATCH_LANES]; /* that byte, and how many bits from there on fill whole bytes */
    u64 bits; /* sum, with those that the stream holds */
    size_t filled;
} batch;

VBMI INLINE table256 load_table(const u8 *bytes) {
    table256 out;
    for (int i = 0; i < 4; i++)
        out.t[i] = _mm512_loadu_si512(bytes + 64 * i);
    return out;
}

/* The entries for 64 indices; 0 where `in` has no bit. */
VBMI INLINE __m512i look_up(table256 table, __m512i index, __mmask64 in) {
    __mmask64 upper = _mm512_movepi8_mask(index);
    __m512i high = _mm512_maskz_permutex2var_epi8(in & upper, table.t[2], index, table.t[3]);
    return _mm512_or_si512(high, _mm512_maskz_permutex2var_epi8(in & ~upper, table.t[0], index, table.t[1]));
}

/* The same for indices that are -64 .. 63 as signed bytes: half the table is enough. */
VBMI INLINE __m512i look_up_small(table256 table, __m512i index, __mmask64 in) {
    return _mm512_maskz_permutex2var_epi8(in, table.t[0], index, table.t[3]);
}

/* Joins two codes that stand side by side in each 32 or 64 bits; the first one of them has so many bits. */
VBMI INLINE __m512i join_in_32(__m512i codes, __m512i first_bits) {
    __m512i second = _mm512_sllv_epi32(_mm512_srli_epi32(codes, 16), first_bits);
    return _mm512_or_si512(_mm512_and_si512(codes, _mm512_set1_epi32(0xffff)), second);
}

VBMI INLINE __m512i join_in_64(__m512i codes, __m512i first_bits) {
    __m512i second = _mm512_sllv_epi64(_mm512_srli_epi64(codes, 32), first_bits);
    return _mm512_or_si512(_mm512_and_si512(codes, _mm512_set1_epi64(0xffffffff)), second);
}

/* The codes of those of 64 bytes that `in` has a bit for. */
VBMI INLINE joined join_codes(const literal_codes *of, const u8 *data, __mmask64 in) {
    const __m512i zero = _mm512_setzero_si512(), one = _mm512_set1_epi8(1);
    __m512i bytes = _mm512_loadu_si512(data), low, high, bits;
    if (_mm512_movepi8_mask(_mm512_add_epi8(bytes, _mm512_set1_epi8(64))) & in) {
        low = look_up(of->low, bytes, in);
        high = look_up(of->high, bytes, in);
        bits = look_up(of->bits, bytes, in);
    } else { /* nearly all words of a photograph */
        low = look_up_small(of->low, bytes, in);
        high = look_up_small(of->high, bytes, in);
        bits = look_up_small(of->bits, bytes, in);
    }
    joined out;
    __m512i twos = _mm512_maddubs_epi16(bits, one), fours = _mm512_madd_epi16(twos, _mm512_set1_epi16(1));
    __m512i first = _mm512_and_si512(bits, _mm512_set1_epi16(0xff));
    __m512i first_two = _mm512_and_si512(twos, _mm512_set1_epi32(0xffff));
    __m512i first_four = _mm512_and_si512(fours, _mm512_set1_epi64(0xffffffff));
    out.code_a = join_in_32(_mm512_unpacklo_epi8(low, high), _mm512_unpacklo_epi16(first, zero));
    out.code_b = join_in_32(_mm512_unpackhi_epi8(low, high), _mm512_unpackhi_epi16(first, zero));
    out.code_a = join_in_64(out.code_a, _mm512_unpacklo_epi32(first_two, zero));
    out.code_b = join_in_64(out.code_b, _mm512_unpackhi_epi32(first_two, zero));
    out.bits_of_fours = fours;
    out.bits = _mm512_add_epi64(first_four, _mm512_srli_epi64(fours, 32));
    out.code = _mm512_or_si512(_mm512_unpacklo_epi64(out.code_a, out.code_b),
                               _mm512_sllv_epi64(_mm512_unpackhi_epi64(out.code_a, out.code_b), first_four));
    return out;
}

VBMI INLINE void send_batch(bitstream *s, batch *b) {
    u64 hold = s->hold;
    for (size_t i = 0; i < b->filled; i++) {
        hold |= b->code[i];
        store64(s->at + b->at[i], hold);
        hold >>= b->whole[i];
    }
    s->hold = hold;
    s->at += b->bits >> 3;
    s->count = b->bits & 7;
    b->bits = s->count;
    b->filled = 0;
}

/* Adds eight lanes. Where each begins is the sum of the bits before it, so nothing waits for the one before. */
VBMI INLINE void add_lanes(bitstream *s, batch *b, __m512i code, __m512i bits) {
    const __m512i zero = _mm512_setzero_si512(), seven = _mm512_set1_epi64(7);
    __m512i end = _mm512_add_epi64(bits, _mm512_alignr_epi64(bits, zero, 7));
    end = _mm512_add_epi64(end, _mm512_alignr_epi64(end, zero, 6));
    end = _mm512_add_epi64(end, _mm512_alignr_epi64(end, zero, 4));
    __m512i start = _mm512_add_epi64(_mm512_sub_epi64(end, bits), _mm512_set1_epi64((long long)b->bits));
    __m512i inside = _mm512_and_si512(start, seven);
    _mm512_storeu_si512(b->code + b->filled, _mm512_sllv_epi64(code, inside));
    _mm512_storeu_si512(b->at + b->filled, _mm512_srli_epi64(start, 3));
    _mm512_storeu_si512(b->whole + b->filled, _mm512_andnot_si512(seven, _mm512_add_epi64(inside, bits)));
    b->bits += (u64)_mm_extract_epi64(_mm512_extracti32x4_epi32(end, 3), 1);
    b->filled += LANES;
    if (b->filled == BATCH_LANES)
        send_batch(s, b);
}

/* The codes of four bytes each in their order: half 0 or 1 of them. */
VBMI INLINE __m512i fours_of(const joined *word, int half) {
    const __m512i front = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i back = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    return _mm512_permutex2var_epi64(word->code_a, half ? back : front, word->code_b);
}

VBMI INLINE __m512i bits_of_fours(const joined *word, int half) {
    __m512i all = word->bits_of_fours;
    return _mm512_cvtepu32_epi64(half ? _mm512_extracti64x4_epi64(all, 1) : _mm512_castsi512_si256(all));
}

/* Where the next match begins and which it is; in the end none, beyond all data. */
typedef struct {
    const token *token;
    size_t at;
} next_match;

INLINE void step(next_match *m) {
    m->at += m->token->length + m->token[1].literals;
    if (!(++m->token)->length)
        m->at = (size_t)-1;
}

VBMI INLINE int fit(__m512i bits) { return !_mm512_cmpgt_epu64_mask(bits, _mm512_set1_epi64(LONGEST_LANE)); }

/* Sends 64 bytes, the first of which is number `at`, where lanes are too long: two lanes for one, or where not even
 * those fit or matches begin (rare) bit by bit. */
VBMI INLINE void put_long(bitstream *s, batch *b, const codebook *book, const joined *word, size_t at,
                          next_match *match) {
    u64 code[2 * LANES], bits[2 * LANES];
    __m512i front = bits_of_fours(word, 0), back = bits_of_fours(word, 1);
    if (match->at >= at + 64 && fit(front) && fit(back)) {
        add_lanes(s, b, fours_of(word, 0), front);
        add_lanes(s, b, fours_of(word, 1), back);
        return;
    }
    _mm512_storeu_si512(code, fours_of(word, 0));
    _mm512_storeu_si512(code + LANES, fours_of(word, 1));
    _mm512_storeu_si512(bits, front);
    _mm512_storeu_si512(bits + LANES, back);
    send_batch(s, b);
    for (int i = 0; i < 2 * LANES; i++) {
        unsigned low = bits[i] < 32 ? (unsigned)bits[i] : 32;
        put_bits(s, code[i] & 0xffffffff, low);
        put_bits(s, code[i] >> 32, (unsigned)bits[i] - low);
        at += LANE_BYTES / 2;
        if (match->at < at) {
            put_match(s, book, *match->token);
            step(match);
        }
    }
    b->bits = s->count;
}

/* The lanes of one word of 64 bytes: eight of eight bytes, or twice eight of four. */
typedef struct {
    __m512i code[2], bits[2];
} word_lanes;

/* Adds the matches that begin in the word, the first byte of which is number `at`. Returns whether all lanes fit. */
VBMI INLINE int join_matches(word_lanes *w, const codebook *book, size_t at, const size_t lane_bytes, next_match *m) {
    const int halves = lane_bytes == LANE_BYTES ? 1 : 2;
    int fits = 1;
    for (; m->at < at + 64; step(m)) {
        unsigned run_bits;
        u64 run = match_code(book, (token){0, m->token->length, 0}, &run_bits);
        const u32 lane = 1u << (m->at - at) / lane_bytes;
        for (int k = 0; k < halves; k++) {
            const __mmask8 in = (__mmask8)(lane >> LANES * k);
            const __m512i moved = _mm512_sllv_epi64(_mm512_set1_epi64((long long)run), w->bits[k]);
            w->code[k] = _mm512_mask_or_epi64(w->code[k], in, w->code[k], moved);
            w->bits[k] = _mm512_mask_add_epi64(w->bits[k], in, w->bits[k], _mm512_set1_epi64(run_bits));
        }
    }
    for (int k = 0; k < halves; k++)
        fits = fits && fit(w->bits[k]);
    return fits;
}

/* Sends data[0..n) as `tokens` describe it, every match being a run of at least `least` bytes, LANE_BYTES or more than half
 * of it; `covered` has a one bit for each byte that is not sent as a literal. data[n .. n + 64) is readable. */
VBMI INLINE void put_lanes_vbmi(bitstream *s, const codebook *book, const u8 *data, size_t n, const token *tokens,
                                const u64 *covered, const int least) {
    const literal_codes of = {load_table(book->low), load_table(book->high), load_table(book->litlen_bits)};
    bitstream out = *s;
    batch b;
    next_match match = {tokens, tokens->length ? tokens->literals : (size_t)-1};
    b.bits = out.count;
    b.filled = 0;
    for (size_t at = 0; at < n; at += 64) {
        u64 in = ~covered[at / 64];
        if (!in && match.at >= at + 64)
            continue;
        joined word = join_codes(&of, data + at, in);
        next_match m = match;
        word_lanes w = {{word.code}, {word.bits}};
        const int fours = least < LANE_BYTES && m.at < at + 64;
        int fits;
        if (fours) {
            w.code[0] = fours_of(&word, 0), w.bits[0] = bits_of_fours(&word, 0);
            w.code[1] = fours_of(&word, 1), w.bits[1] = bits_of_fours(&word, 1);
            fits = join_matches(&w, book, at, LANE_BYTES / 2, &m);
        } else {
            fits = join_matches(&w, book, at, LANE_BYTES, &m);
        }
        if (!fits) {
            put_long(&out, &b, book, &word, at, &match);
            continue;
        }
        add_lanes(&out, &b, w.code[0], w.bits[0]);
        if (fours)
            add_lanes(&out, &b, w.code[1], w.bits[1]);
        match = m;
    }
    send_batch(&out, &b);
    put_bits(&out, book->litlen_code[END_OF_BLOCK], book->litlen_bits[END_OF_BLOCK]);
    *s = out;
}

/* One copy for each least length, which decides what is done to a word. */
VBMI static NOINLINE void put_tokens_vbmi(bitstream *s, const codebook *book, const u8 *data, size_t n, const token *tokens,
                                          const u64 *covered) {
    put_lanes_vbmi(s, book, data, n, tokens, covered, LANE_BYTES);
}

VBMI static NOINLINE void put_short_tokens_vbmi(bitstream *s, const codebook *book, const u8 *data, size_t n,
                                                const token *tokens, const u64 *covered) {
    put_lanes_vbmi(s, book, data, n, tokens, covered, LANE_BYTES / 2 + 1);
}

#endif
