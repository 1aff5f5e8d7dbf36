/* Samples of 16 bits as words: whether the same ones come again and again.
 *
 * Most images of 16 bits were made of 8 bits, by 257 or by floats: every low byte follows from its high byte. A code for
 * bytes pays for both. So it does for a gamma curve over 8 bits, for sensors of 10 or 12 bits in a few tones, and for ids.
 * There words are looked up one by one (scan_greedily in scan.h), wherever they stand in a pixel. In real samples of 16 bits
 * low bytes are noise, and that would find nothing. */
#ifndef LUNA_WORDS_H
#define LUNA_WORDS_H

#include "sample.h"

/* Different words are counted by WORD_KINDS hashes. After EARLY_TILES, more than MANY_KINDS after either filter are the end.
 * Words may repeat each other if codes for them alone would leave less than WORDS_PAY hundredths of codes for bytes
 * (measured: at most 70 where a greedy search gains something, at least 74 in real samples of 16 bits). Where a word costs less than half a bit, nearly nothing is left, and the quick search by pixels is better. */
enum { WORD_KINDS = 4096, EARLY_TILES = 2, MANY_KINDS = 400, WORDS_PAY = 75, EMPTY_WORD = BIT / 2 };
/* What the entropy of a sample lacks for each kind of word (Miller and Madow: half a nat), in hundredths of BIT. */
enum { KIND_COST = 72 };

typedef struct {
    int repeat, empty;
    int filter; /* the better one for words */
    unsigned symbols; /* that would be left of 100 bytes, roughly */
} words_found;

typedef struct {
    u32 words, kinds;
    u64 cost; /* by codes for words, in sixteenths of a bit */
    u64 bytes_cost; /* by codes for bytes */
} words_sum;

/* Adds the words of a tile after a filter. */
static void count_words(const tile_memory *m, tile t, u16 *counts, u32 table[8][256], words_sum *sum) {
    for (size_t y = 0; y < t.rows; y++) {
        const u8 *row = m->stream + y * (t.bytes + 1) + 1;
        count_bytes(table, row, t.bytes);
        for (size_t x = 0; x < t.bytes; x += 2) {
            counts[(u16)(load16(row + x) * FIRST_WORD) >> 4]++;
        }
        sum->words += (u32)t.bytes / 2;
    }
}

static void cost_words(const u16 *counts, u32 table[8][256], words_sum *sum) {
    histogram bytes;
    memset(&bytes, 0, sizeof bytes);
    add_tables(bytes.litlen, table);
    sum->bytes_cost = whole_cost(&bytes);
    const u32 whole = log2_cost(sum->words);
    for (size_t i = 0; i < WORD_KINDS; i++) {
        sum->kinds += counts[i] != 0;
        sum->cost += counts[i] ? (u64)counts[i] * (whole - log2_cost(counts[i])) : 0;
    }
    sum->cost += (u64)sum->kinds * BIT * KIND_COST / 100;
}

/* Counts what a filter leaves of so many tiles. Uses the scanner's memory, which is cleared later. */
static words_sum words_after(int isa, const strip *s, const row_buffers *b, tile_memory *m, const tile *tiles, int count,
                             int filter) {
    u16 *counts = m->scan.head;
    u32 table[8][256];
    words_sum sum = {0, 0, 0, 0};
    memset(table, 0, sizeof table);
    memset(counts, 0, WORD_KINDS * sizeof *counts);
    for (int i = 0; i < count; i++) {
        filter_tile(isa, s, b, m, tiles[i], filter);
        count_words(m, tiles[i], counts, table, &sum);
    }
    cost_words(counts, table, &sum);
    return sum;
}

/* Looks at words in tiles, as they are and after the best filter of each row. */
static words_found look_at_words(int isa, const strip *s, const row_buffers *b, tile_memory *m, const tile *tiles, int count) {
    words_found found = {0, 0, FILTER_BEST, 0};
    words_sum best, none;
    for (int few = count < EARLY_TILES ? count : EARLY_TILES;; few = count) {
        best = words_after(isa, s, b, m, tiles, few, FILTER_BEST);
        none = words_after(isa, s, b, m, tiles, few, FILTER_NONE);
        if (best.kinds > MANY_KINDS && none.kinds > MANY_KINDS)
            return found;
        if (few == count)
            break;
    }
    const u64 bytes_cost = best.bytes_cost < none.bytes_cost ? best.bytes_cost : none.bytes_cost;
    const u64 least = best.cost < none.cost ? best.cost : none.cost;
    found.filter = none.cost < best.cost ? FILTER_NONE : FILTER_BEST;
    found.repeat = least * 100 < bytes_cost * WORDS_PAY;
    found.empty = least < (u64)best.words * EMPTY_WORD;
    found.symbols = (unsigned)(least * 100 / (bytes_cost + 1));
    return found;
}

#endif
