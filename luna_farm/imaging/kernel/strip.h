/* From rows of pixels to a finished IDAT chunk. */
#ifndef LUNA_STRIP_H
#define LUNA_STRIP_H

#include "block.h"
#include "checksum.h"
#include "filter.h"
#include "runs.h"

/* A block's filtered bytes: enough for a Huffman table to pay, little enough for the second level cache. */
enum { BLOCK_BYTES = 192 * 1024 };

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
    u8 *rows[2], *candidates[FILTER_COUNT];
    u8 *filtered; /* WINDOW bytes of history, then a block */
    token *tokens;
    codebook *book;
    u8 *memory;
} workspace;

static size_t rows_per_block(const strip *s) {
    size_t rows = BLOCK_BYTES / (s->row_bytes + 1);
    return rows ? rows : 1;
}

/* The most bytes that put_idat writes for this strip. */
static size_t idat_bound(const strip *s) {
    size_t rows = s->last_row - s->first_row, bytes = rows * (s->row_bytes + 1);
    size_t blocks = (rows + rows_per_block(s) - 1) / rows_per_block(s);
    return bytes + 6 * (blocks + bytes / 65535 + 1) + 64; /* stored at the worst; the rest is frame and slack */
}

static int open_workspace(workspace *w, const strip *s) {
    size_t block;
    memset(w, 0, sizeof *w);
    w->isa = detect_isa();
    w->stride = (s->row_bytes + MARGIN - 1) / MARGIN * MARGIN + 2 * MARGIN;
    w->block_rows = rows_per_block(s);
    if (w->block_rows > s->last_row - s->first_row)
        w->block_rows = s->last_row - s->first_row;
    block = w->block_rows * (s->row_bytes + 1);
    size_t rows = (2 + FILTER_COUNT) * w->stride, filtered = (WINDOW + block + 3 * MARGIN) / 64 * 64;
    size_t tokens = (block / MIN_MATCH + 2) * sizeof(token);
    w->memory = malloc(rows + filtered + tokens + sizeof(codebook) + 64);
    if (!w->memory)
        return 0;
    memset(w->memory, 0, rows);
    u8 *at = w->memory;
    for (int i = 0; i < 2; i++, at += w->stride)
        w->rows[i] = at + MARGIN;
    for (int i = 0; i < FILTER_COUNT; i++, at += w->stride)
        w->candidates[i] = at + MARGIN;
    w->filtered = at;
    memset(at, 0, WINDOW);
    memset(at + WINDOW + block, 0, 2 * MARGIN);
    at += filtered;
    w->tokens = (token *)(void *)at;
    at += (tokens + 63) / 64 * 64;
    w->book = (codebook *)(void *)at;
    return 1;
}

/* Filters row `y` to `out`: the filter's number and the bytes. w->rows[(y + 1) & 1] holds the row above. */
static void filter_best(workspace *w, const strip *s, size_t y, u8 *out) {
    u8 *row = w->rows[y & 1];
    const u8 *above = w->rows[(y + 1) & 1];
    take_row(row, s->pixels + y * s->row_bytes, s->row_bytes, s->sample_bytes);
    if (s->level <= 1) {
        out[0] = FILTER_PAETH;
        filter_row(w->isa, FILTER_PAETH, 0, row, above, s->row_bytes, s->step, out + 1);
        return;
    }
    int best = FILTER_PAETH;
    u64 least = ~0ull;
    for (int f = FILTER_COUNT - 1; f >= 0; f--) {
        u64 price = filter_row(w->isa, f, 1, row, above, s->row_bytes, s->step, w->candidates[f]);
        if (price < least) {
            least = price;
            best = f;
        }
    }
    out[0] = (u8)best;
    memcpy(out + 1, w->candidates[best], s->row_bytes);
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
    } else {
        take_row(w.rows[(s->first_row + 1) & 1], s->pixels + (s->first_row - 1) * s->row_bytes, s->row_bytes,
                 s->sample_bytes);
    }
    *adler = 1;
    u8 *block = w.filtered + WINDOW;
    histogram h;
    for (size_t y = s->first_row; y < s->last_row;) {
        size_t n = 0;
        for (size_t k = 0; k < w.block_rows && y < s->last_row; k++, y++, n += s->row_bytes + 1)
            filter_best(&w, s, y, block + n);
        memset(block + n, 0, MARGIN);
        *adler = adler32_update(*adler, block, n);
        int final = last && y == s->last_row;
        if (s->level == 0) {
            put_stored(&bits, block, n, final);
        } else {
            size_t count = find_runs(block, n, 8, w.tokens);
            put_block(&bits, w.book, &h, block, n, w.tokens, count, final);
        }
        block[-1] = block[n - 1];
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
    store32_big(out + 8 + data, crc32_of(out + 4, data + 4));
    free(w.memory);
    return data + 12;
}

#endif
