/* From rows of pixels to a finished IDAT chunk. */
#ifndef LUNA_STRIP_H
#define LUNA_STRIP_H

#include "block.h"
#include "checksum.h"
#include "filter.h"
#include "parse.h"
#include "runs.h"

/* A block's filtered bytes: enough for a Huffman table to pay, little enough for the second level cache, which at level
 * 5 and up holds the matches too. */
enum { BLOCK_BYTES = 320 * 1024, STRINGS_BLOCK_BYTES = 128 * 1024, SAMPLED_BYTES = 64 * 1024 };

typedef struct {
    const u8 *pixels; /* the whole picture, row after row */
    size_t height, row_bytes;
    size_t step; /* bytes of a pixel */
    size_t sample_bytes; /* 1, or 2 for 16-bit samples in the machine's order */
    size_t first_row, last_row; /* the strip: rows first_row .. last_row - 1 */
    int level;
} strip;

typedef struct {
    int isa;
    size_t stride; /* of a row buffer, margins included */
    size_t block_rows;
    u8 *rows[2];
    u8 *filtered; /* WINDOW bytes of history, then a block */
    u64 *covered;
    u32 *edges;
    token *tokens;
    codebook *book;
    parser *strings; /* NULL until needed */
    size_t block_bytes;
    u8 *memory;
} workspace;

/* By level. Below 5 strings are looked for only in blocks that are full of them. */
static const effort EFFORTS[10] = {{0, 0, 0, 0}, {1, 32, 0, 5}, {1, 32, 0, 5}, {2, 32, 0, 5}, {4, 32, 0, 6}, {2, 32, 0, 5}, {6, 32, 0, 6}, {2, 20, 1, 6}, {8, 48, 1, 7}, {12, 64, 2, 7}};

/* Blocks of one size, half as large again at most: a small one at the end would cost as much as the others. */
static size_t rows_per_block(const strip *s, size_t bytes) {
    size_t all = s->last_row - s->first_row, blocks = (all * (s->row_bytes + 1) + bytes / 2) / bytes;
    return blocks <= 1 ? all : blocks >= all ? 1 : (all + blocks - 1) / blocks;
}

/* The most bytes that put_idat writes for this strip, whatever the level: all stored, after the last block went wrong
 * at first; frame and slack. */
static size_t idat_bound(const strip *s) {
    size_t rows = s->last_row - s->first_row, bytes = rows * (s->row_bytes + 1);
    size_t blocks = rows / rows_per_block(s, STRINGS_BLOCK_BYTES) + 1;
    return bytes + 6 * (blocks + bytes / 65535 + 1) + rows_per_block(s, BLOCK_BYTES) * (s->row_bytes + 1) + 256;
}

static int open_workspace(workspace *w, const strip *s) {
    size_t block;
    memset(w, 0, sizeof *w);
    w->isa = detect_isa();
    w->stride = (s->row_bytes + MARGIN - 1) / MARGIN * MARGIN + 2 * MARGIN;
    w->block_rows = rows_per_block(s, s->level < 5 ? BLOCK_BYTES : STRINGS_BLOCK_BYTES);
    block = w->block_rows * (s->row_bytes + 1);
    size_t rows = 2 * w->stride, filtered = (WINDOW + block + 3 * MARGIN) / 64 * 64;
    size_t covered = (block / 64 + 2) * 8;
    size_t edges = (2 * block / SHORT_RUN + 8) * sizeof(u32), tokens = (block / MIN_MATCH + 2) * sizeof(token);
    w->memory = malloc(rows + filtered + covered + (edges + 63) / 64 * 64 + tokens + sizeof(codebook) + 128);
    if (!w->memory)
        return 0;
    memset(w->memory, 0, rows);
    u8 *at = w->memory;
    for (int i = 0; i < 2; i++, at += w->stride)
        w->rows[i] = at + MARGIN;
    w->filtered = at;
    memset(at, 0, WINDOW);
    memset(at + WINDOW + block, 0, 2 * MARGIN);
    at += filtered;
    w->covered = (u64 *)(void *)at;
    at += covered;
    w->edges = (u32 *)(void *)at;
    at += (edges + 63) / 64 * 64;
    w->tokens = (token *)(void *)at;
    at += (tokens + 63) / 64 * 64;
    w->book = (codebook *)(void *)at;
    w->block_bytes = block;
    return 1;
}

static int open_strings(workspace *w) {
    if (w->strings)
        return 1;
    parser *p = w->strings = malloc(sizeof(parser) + 17 * w->block_bytes + 1024);
    if (!p)
        return 0;
    memset(p, 0, sizeof *p);
    p->cost = (u32 *)(void *)(p + 1);
    p->step = (match *)(void *)(p->cost + w->block_bytes + 1);
    p->found = p->step + w->block_bytes;
    p->many = (u8 *)(p->found + 2 * w->block_bytes + MOST_FOUND);
    return 1;
}

static void close_workspace(workspace *w) {
    free(w->strings);
    free(w->memory);
}

/* The first pixel of a row, which has nothing to its left: there Paeth is Up, and the average half of what is above. */
static void filter_edge(int filter, const u8 *row, const u8 *above, size_t step, u8 *out) {
    for (size_t i = 0; i < step; i++)
        out[i] = (u8)(row[i] - (filter < FILTER_UP ? 0 : filter == FILTER_AVERAGE ? above[i] >> 1 : above[i]));
}

/* Filters rows first .. last - 1 to `out`: of each the filter's number and the bytes. Returns how many bytes.
 * filter: one of the five, or FILTER_COUNT for the best of each row. */
static size_t put_rows(workspace *w, const strip *s, size_t first, size_t last, int filter, u8 *out) {
    const size_t bytes = s->row_bytes;
    u8 *to = out;
    for (size_t y = first; y < last; y++, to += bytes + 1) {
        const u8 *row = s->pixels + y * bytes, *above = row - (y ? bytes : 0);
        /* In the midst of a picture a row is filtered where it stands: what is read beside it are other pixels, and
         * only those to the left matter. Elsewhere it is copied between margins. */
        int in_place = s->sample_bytes == 1 && y >= 2 && (s->height - y - 1) * bytes >= MARGIN;
        if (!in_place) {
            take_row(w->rows[0], row, bytes, s->sample_bytes);
            if (y)
                take_row(w->rows[1], above, bytes, s->sample_bytes);
            else
                memset(w->rows[1], 0, bytes);
            row = w->rows[0];
            above = w->rows[1];
        }
        to[0] = (u8)(filter < FILTER_COUNT ? filter : best_filter(w->isa, row, above, bytes, s->step));
        filter_row(w->isa, to[0], row, above, bytes, s->step, to + 1);
        if (in_place)
            filter_edge(to[0], row, above, s->step, to + 1);
    }
    memset(to, 0, MARGIN);
    return (size_t)(to - out);
}

/* Whether filtered bytes, of which runs are taken off in `h`, look drawn (or written, tiled, dithered) rather than
 * photographed. A photograph may be flat, but then what is left between the runs is small; the edges of a drawing are
 * not. The limits part the pictures of docs/png.md: blocks of generated photographs with less than half left between
 * runs have up to 22 % of large bytes there, with less than 30 % up to 6 %; those of drawings from 30 % on, dithered
 * ones from 15 %. Photographs repeat up to 83 % of their strings, tiles 90 % and more. */
static int looks_drawn(const histogram *h, const u8 *data, size_t n) {
    u64 literals = 0, large = 0;
    for (int i = 0; i < 256; i++) {
        literals += h->litlen[i];
        large += i > 15 && i < 241 ? h->litlen[i] : 0;
    }
    u64 part = literals * 100, large_part = large * 100;
    if (part < n * 7 || (part < n * 30 && large_part > literals * 15) || (part < n * 50 && large_part > literals * 28))
        return 1;
    return percent_repeated(data, n) > 85;
}

/* Sends rows first .. last - 1, which stand filtered in data[0..n), with the strings found in them. Where they look
 * drawn, leaving the pixels unfiltered may leave longer strings, and what is smaller is taken. */
static void put_strings(workspace *w, const strip *s, size_t first, size_t last, u8 *data, size_t n, u32 position,
                        int drawn, bitstream *bits, int final) {
    const effort *how = &EFFORTS[s->level];
    histogram h, plain;
    size_t count = find_tokens(w->strings, data, n, position, how, w->tokens, &h);
    if (drawn) {
        put_rows(w, s, first, last, FILTER_NONE, data);
        count = find_tokens(w->strings, data, n, position, how, w->tokens, &plain);
        if (whole_price(&plain) <= whole_price(&h)) {
            h = plain;
        } else {
            put_rows(w, s, first, last, FILTER_COUNT, data);
            count = find_tokens(w->strings, data, n, position, how, w->tokens, &h);
        }
    }
    put_block(w->isa, bits, w->book, &h, data, n, w->tokens, count, NULL, final);
}

/* Sends data[0..n), a block of filtered rows first .. last - 1. Returns 0 if memory ran out. */
static int put_filtered(workspace *w, const strip *s, size_t first, size_t last, u8 *data, size_t n, u32 position,
                        bitstream *bits, int final) {
    if (s->level == 0) {
        put_stored(bits, data, n, final);
        return 1;
    }
    size_t count = find_runs(w->isa, data, n, s->level <= 2, w->covered, w->edges, w->tokens);
    histogram h;
    unsigned thin = n < SAMPLED_BYTES ? 0 : s->level <= 3 ? 4 : 3;
    count_runs(&h, data, n, w->tokens, count, thin);
    int drawn = looks_drawn(&h, data, n);
    if (drawn || s->level >= 5) {
        if (!open_strings(w))
            return 0;
        put_strings(w, s, first, last, data, n, position, drawn, bits, final);
    } else {
        put_block(w->isa, bits, w->book, &h, data, n, w->tokens, count, w->covered, final);
    }
    return 1;
}

/* Writes the strip as one IDAT chunk to `out`, which has idat_bound() bytes. The first strip of a picture opens the
 * zlib stream, the last one closes it; the closing checksum is written only by a strip that is both, else it is the
 * caller's to join. Returns the bytes written, or 0 if memory ran out. */
static size_t put_idat(const strip *s, u8 *out, u32 *adler) {
    workspace w;
    int first = s->first_row == 0, last = s->last_row == s->height;
    if (!open_workspace(&w, s))
        return 0;
    bitstream bits = {0, 0, out + 8};
    memcpy(out + 4, "IDAT", 4);
    if (first) { /* a window of 32 KB; the second byte says how hard it was tried and makes a multiple of 31 */
        static const u8 EFFORT[10] = {0x01, 0x01, 0x5e, 0x5e, 0x5e, 0x5e, 0x9c, 0xda, 0xda, 0xda};
        put_bits(&bits, 0x78 | (u64)EFFORT[s->level] << 8, 16);
    }
    *adler = 1;
    u8 *block = w.filtered + WINDOW;
    u32 position = WINDOW + 1;
    for (size_t y = s->first_row, end; y < s->last_row; y = end) {
        end = s->last_row - y < w.block_rows ? s->last_row : y + w.block_rows;
        int filter = s->level == 0 ? FILTER_NONE : s->level == 1 ? FILTER_PAETH : FILTER_COUNT;
        size_t n = put_rows(&w, s, y, end, filter, block);
        if (y == s->first_row)
            block[-1] = (u8)~block[0]; /* nothing came before, so no run may begin with the first byte */
        if (!put_filtered(&w, s, y, end, block, n, position, &bits, last && end == s->last_row)) {
            close_workspace(&w);
            return 0;
        }
        *adler = adler32_update(w.isa, *adler, block, n);
        position += (u32)n;
        memmove(w.filtered, w.filtered + n, WINDOW);
    }
    if (last)
        fill_byte(&bits);
    else
        put_stored(&bits, NULL, 0, 0); /* an empty block ends the strip at a whole byte */
    if (first && last) {
        store32_big(bits.at, *adler);
        bits.at += 4;
    }
    size_t data = (size_t)(bits.at - (out + 8));
    store32_big(out, (u32)data);
    store32_big(out + 8 + data, crc32_of(w.isa, out + 4, data + 4));
    close_workspace(&w);
    return data + 12;
}

#endif
