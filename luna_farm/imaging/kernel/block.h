/* One deflate block: from bytes and the matches found among them to bits. Decides between a Huffman code made for the
 * block, the fixed code and no compression by their exact sizes, so a block is never larger than stored. */
#ifndef LUNA_BLOCK_H
#define LUNA_BLOCK_H

#include "codebook.h"
#include "cpu.h"
#include "literals.h"
#ifdef LUNA_AVX512
#include "lanes_avx512.h"
#endif

/* Below this many literals in a block a table of pairs (65,536 entries) costs more than it saves. */
enum { PAIRS_PAY = 24 * 1024 };

/* Counts bytes in eight tables by turns: equal neighbours would otherwise wait for each other's sum. */
static void count_bytes(u32 table[8][256], const u8 *p, size_t n) {
    for (; n >= 8; n -= 8, p += 8) {
        u64 v = load64(p);
        table[0][v & 255]++;
        table[1][v >> 8 & 255]++;
        table[2][v >> 16 & 255]++;
        table[3][v >> 24 & 255]++;
        table[4][v >> 32 & 255]++;
        table[5][v >> 40 & 255]++;
        table[6][v >> 48 & 255]++;
        table[7][v >> 56]++;
    }
    for (; n; n--)
        table[n][*p++]++;
}

/* Adds the eight tables to `count`. */
static void add_tables(u32 *RESTRICT count, u32 table[8][256]) {
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < 256; i++)
            count[i] += table[k][i];
}

/* A sample is SAMPLE bytes of every SAMPLE << thin: neighbours are alike, so many short pieces tell more than a few
 * long ones. This is how many of the bytes before position `at` are in it. */
enum { SAMPLE = 16 };
INLINE u32 sampled_before(size_t at, unsigned thin) {
    size_t pieces = at / SAMPLE >> thin, rest = at - (pieces * SAMPLE << thin);
    return (u32)(pieces * SAMPLE + (rest < SAMPLE ? rest : SAMPLE));
}

/* The statistics of data[0..n), of which one byte in 1 << thin is looked at, where all matches are runs. Counting all
 * and then taking the runs off again is quicker than counting piece by piece. */
static void count_runs(histogram *h, const u8 *data, size_t n, const token *tokens, size_t count, unsigned thin) {
    u32 table[8][256];
    memset(table, 0, sizeof table);
    memset(h, 0, sizeof *h);
    size_t period = (size_t)SAMPLE << thin, at = 0;
    if (!thin)
        count_bytes(table, data, n);
    else
        for (size_t i = 0; i < n; i += period)
            count_bytes(table, data + i, n - i < SAMPLE ? n - i : SAMPLE);
    for (size_t i = 0; i + 1 < count; i++) {
        unsigned slot = length_slot[tokens[i].length];
        at += tokens[i].literals;
        u32 before = sampled_before(at, thin);
        u8 value = data[at];
        at += tokens[i].length;
        table[0][value] -= sampled_before(at, thin) - before;
        h->litlen[257 + slot]++;
        h->extra_bits += LENGTH_EXTRA[slot];
    }
    h->dist[0] = (u32)(count - 1);
    add_tables(h->litlen, table); /* unsigned sums: a table that went below zero comes right here */
    h->litlen[END_OF_BLOCK] = 1;
    if (!thin)
        return;
    u32 total = 0;
    for (int i = 0; i < 256; i++)
        total += h->litlen[i] <<= thin;
    /* What was not looked at may be anything, so every literal gets a code, with a count that keeps all codes within
     * deflate's limit as a rule. */
    u32 least = total >> 15 | 1;
    for (int i = 0; i < LITLEN_SYMBOLS; i++)
        if (h->litlen[i] < least && (i <= END_OF_BLOCK || h->litlen[i]))
            h->litlen[i] = least;
}

/* The statistics of bytes that `tokens` describe. */
static void count_tokens(histogram *h, const u8 *data, const token *tokens, size_t count) {
    u32 table[8][256];
    memset(table, 0, sizeof table);
    memset(h, 0, sizeof *h);
    for (size_t i = 0; i < count; i++) {
        count_bytes(table, data, tokens[i].literals);
        data += tokens[i].literals + tokens[i].length;
        if (tokens[i].length) {
            unsigned slot = length_slot[tokens[i].length], far = dist_slot(tokens[i].distance + 1u);
            h->litlen[257 + slot]++;
            h->dist[far]++;
            h->extra_bits += LENGTH_EXTRA[slot] + dist_extra(far);
        }
    }
    add_tables(h->litlen, table);
    h->litlen[END_OF_BLOCK] = 1;
}

static u64 coded_bits(const histogram *h, const u8 *litlen_bits, const u8 *dist_bits) {
    u64 bits = h->extra_bits;
    for (int i = 0; i < LITLEN_SYMBOLS; i++)
        bits += (u64)h->litlen[i] * litlen_bits[i];
    for (int i = 0; i < DIST_SYMBOLS; i++)
        bits += (u64)h->dist[i] * dist_bits[i];
    return bits;
}

static void fixed_lengths(codebook *book) {
    memset(book->litlen_bits, 8, MAX_SYMBOLS);
    memset(book->litlen_bits + 144, 9, 112);
    memset(book->litlen_bits + 256, 7, 24);
    memset(book->dist_bits, 5, sizeof book->dist_bits);
}

static void finish_codebook(codebook *book, int symbols, int dists) {
    canonical_codes(book->litlen_bits, symbols, book->litlen_code);
    canonical_codes(book->dist_bits, dists, book->dist_code);
    for (u32 length = MIN_MATCH; length <= MAX_MATCH; length++) {
        unsigned slot = length_slot[length], bits = book->litlen_bits[257 + slot];
        u32 code = book->litlen_code[257 + slot] | (length - LENGTH_BASE[slot]) << bits;
        book->length_code[length] = code << 5 | (bits + LENGTH_EXTRA[slot]);
    }
    for (int i = 0; i < 256; i++) {
        book->literal[i] = (u32)book->litlen_code[i] << 5 | book->litlen_bits[i];
        book->low[i] = (u8)book->litlen_code[i];
        book->high[i] = (u8)(book->litlen_code[i] >> 8);
    }
}

static void put_header(bitstream *s, const header *h) {
    put_bits(s, (u64)(h->litlens - 257) | (u64)(h->dists - 1) << 5 | (u64)(h->precodes - 4) << 10, 14);
    for (int i = 0; i < h->precodes; i++)
        put_bits(s, h->length[PRECODE_ORDER[i]], 3);
    for (int i = 0; i < h->items; i++) {
        unsigned item = h->item[i], bits = h->length[item];
        put_bits(s, h->code[item] | (u64)h->extra[i] << bits, bits + precode_extra_bits(item));
    }
}

/* Sends tokens and the end of the block. Where `inline_matches`, data is the bytes as they stand, else only literals. */
INLINE void put_tokens_as(bitstream *s, codebook *book, const u8 *data, const token *tokens, size_t count, u64 all_literals,
                          const int inline_matches) {
    bitstream local = *s; /* in registers, which a pointer to it would forbid */
    int pairs = all_literals >= PAIRS_PAY;
    if (pairs)
        prepare_pairs(book);
    for (size_t i = 0; i < count; i++) {
        size_t literals = tokens[i].literals, few = literals % 4;
        if (literals >= 4) {
            if (pairs)
                put_paired(&local, book, data, literals - few);
            else
                put_singly(&local, book, data, literals - few);
            data += literals - few;
        }
        put_few(&local, book, data, few);
        data += few + (inline_matches ? tokens[i].length : 0);
        if (tokens[i].length)
            put_match(&local, book, tokens[i]);
    }
    put_bits(&local, book->litlen_code[END_OF_BLOCK], book->litlen_bits[END_OF_BLOCK]);
    *s = local;
}

static NOINLINE void put_tokens_base(bitstream *s, codebook *book, const u8 *data, const token *tokens, size_t count,
                                     u64 all_literals, int inline_matches) {
    put_tokens_as(s, book, data, tokens, count, all_literals, inline_matches);
}

#ifdef LUNA_DISPATCH
/* The same with the shifts of BMI2, which take their count from any register: a token is hardly more than shifts. */
static TARGET_AVX2 NOINLINE void put_tokens_avx2(bitstream *s, codebook *book, const u8 *data, const token *tokens, size_t count,
                                                 u64 all_literals, int inline_matches) {
    put_tokens_as(s, book, data, tokens, count, all_literals, inline_matches);
}
#endif

static void put_tokens(int isa, bitstream *s, codebook *book, const u8 *data, const token *tokens, size_t count,
                       u64 all_literals, int inline_matches) {
#ifdef LUNA_DISPATCH
    if (isa >= ISA_AVX2) {
        put_tokens_avx2(s, book, data, tokens, count, all_literals, inline_matches);
        return;
    }
#endif
    (void)isa;
    put_tokens_base(s, book, data, tokens, count, all_literals, inline_matches);
}

/* Stored blocks hold at most 65,535 bytes each. n == 0 gives one empty block, which also fills up to a byte. */
static void put_stored(bitstream *s, const u8 *data, size_t n, int final) {
    do {
        size_t piece = n < 65535 ? n : 65535;
        n -= piece;
        put_bits(s, (u64)(final && !n), 3);
        fill_byte(s);
        put_bits(s, (u64)piece | (u64)(piece ^ 65535) << 16, 32);
        if (!piece)
            return;
        memcpy(s->at, data, piece);
        s->at += piece;
        data += piece;
    } while (n);
}

INLINE u64 stored_bits(u64 n) { return 8 * n + 42 * (n / 65535 + 1); }

/* Makes the codes for what `h` counts and sends the head of the block. Returns 0, and sends nothing, if storing its n
 * bytes is cheaper; n is 0 where they cannot be stored. */
static int begin_block(bitstream *s, codebook *book, const histogram *h, size_t n, int final) {
    header head;
    fixed_lengths(book);
    u64 fixed = coded_bits(h, book->litlen_bits, book->dist_bits);
    code_lengths(h->litlen, LITLEN_SYMBOLS, MAX_BITS, book->litlen_bits);
    code_lengths(h->dist, DIST_SYMBOLS, MAX_BITS, book->dist_bits);
    describe_codes(&head, book->litlen_bits, book->dist_bits);
    u64 dynamic = head.bits + coded_bits(h, book->litlen_bits, book->dist_bits);
    if (n && stored_bits(n) <= dynamic && stored_bits(n) <= fixed)
        return 0;
    if (fixed <= dynamic) {
        fixed_lengths(book);
        finish_codebook(book, MAX_SYMBOLS, DIST_SYMBOLS + 2);
        put_bits(s, (u64)final | 1 << 1, 3);
    } else {
        finish_codebook(book, LITLEN_SYMBOLS, DIST_SYMBOLS);
        put_bits(s, (u64)final | 2 << 1, 3);
        put_header(s, &head);
    }
    return 1;
}

static u64 count_literals(const histogram *h) {
    u64 literals = 0;
    for (int i = 0; i < 256; i++)
        literals += h->litlen[i];
    return literals;
}

/* Sends data[0..n), which `tokens` describe entirely and `h` counts, perhaps from a sample. If all matches are runs of
 * at least `least` bytes, `covered` is what find_runs noted, else NULL. Writes less than 2 * n + 64 bytes, and leaves no
 * more than stored_bits(n). */
static void put_block(int isa, bitstream *s, codebook *book, const histogram *h, const u8 *data, size_t n,
                      const token *tokens, size_t count, const u64 *covered, int least, int final) {
    const bitstream start = *s;
    (void)isa;
    (void)covered;
    (void)least;
    if (begin_block(s, book, h, n, final)) {
#ifdef LUNA_AVX512
        if (isa == ISA_AVX512 && covered && least < LANE_BYTES)
            put_short_tokens_vbmi(s, book, data, n, tokens, covered);
        else if (isa == ISA_AVX512 && covered)
            put_tokens_vbmi(s, book, data, n, tokens, covered);
        else
#endif
            put_tokens(isa, s, book, data, tokens, count, count_literals(h), 1);
        if ((u64)(s->at - start.at) * 8 <= stored_bits(n))
            return;
        *s = start; /* the sample misled */
    }
    put_stored(s, data, n, final);
}

#endif
