/* From rows of pixels to a finished IDAT chunk. */
#ifndef LUNA_STRIP_H
#define LUNA_STRIP_H

#include "checksum.h"
#include "sending.h"

/* The most bytes that luna_put_idat writes for this strip, whatever the level: all stored, after the last block went wrong
 * at first; frame and slack. */
static size_t luna_idat_bound(const strip *s) {
    size_t bytes = stream_bytes(s), most = bytes < LARGEST_BLOCK ? bytes : LARGEST_BLOCK;
    return bytes + bytes / 4096 + 2 * (most + CARRIED) + 1024;
}

/* A piece of SAMPLE bytes in so many is enough to compare what two ways of filtering a block leave to literals; where
 * unfiltered bytes cost less than so many hundredths, they are taken. */
enum { PLAIN_PERIOD = 1031, SMALL_PERIOD = 71, PLAIN_PAYS = 98 }; /* primes, so that rows do not keep step */

/* About the size of n bytes as literals. */
static u64 literals_size(const u8 *data, size_t n) {
    u32 table[8][256];
    histogram h;
    memset(table, 0, sizeof table);
    memset(&h, 0, sizeof h);
    const size_t period = n < SAMPLED_BYTES ? SMALL_PERIOD : PLAIN_PERIOD;
    for (size_t i = 0; i + SAMPLE <= n; i += period)
        count_bytes(table, data + i, SAMPLE);
    add_tables(h.litlen, table);
    return whole_cost(&h);
}

/* Filters the next block as planned. Noise on even ground is smaller unfiltered, since a difference is as noisy as both of
 * its pixels together. Returns how many bytes. */
static size_t next_block(workspace *w, const strip *s, cursor *at, u8 *block, size_t room) {
    const cursor from = *at;
    size_t n = fill_block(w->isa, s, &w->rows, at, w->misled ? FILTER_BEST : w->plan.filter, block, room);
    const u8 *pixels = s->pixels + from.y * s->row_bytes;
    if (w->plan.plain_may_pay && from.done == 0 && at->done == 0 &&
        literals_size(pixels, (at->y - from.y) * s->row_bytes) * 100 < literals_size(block, n) * PLAIN_PAYS) {
        *at = from;
        n = fill_block(w->isa, s, &w->rows, at, FILTER_NONE, block, room);
    }
    return n;
}

/* Chooses for the section that begins at row y. Returns the row it ends at. */
static size_t plan_section(workspace *w, const strip *s, size_t y) {
    size_t rows = SECTION_BYTES / (s->row_bytes + 1) + 1, left = s->last_row - y, sections = (left + rows / 2) / rows;
    section part = {y, sections <= 1 ? s->last_row : y + rows};
    scanner *scan = &w->tiles->scan;
    w->misled = 0;
    w->mixed = METHOD_RUNS;
    w->pause = w->pauses = 0;
    if (s->level == 0) {
        w->plan.filter = FILTER_NONE;
    } else if (s->level >= 5 && s->filter != FILTER_ASKED) {
        w->plan = (plan){s->filter, METHOD_RUNS, 0, 0};
    } else {
        w->plan = choose_any(w->isa, s, &w->rows, w->tiles, part);
    }
    scan->stride = s->row_bytes + 1;
    scan->start = FIRST_POSITION;
    if (w->plan.method >= METHOD_SCAN) /* of tiles */
        (w->plan.method == METHOD_SCAN ? clear_scan : clear_greedy)(scan, (part.last - y) * scan->stride);
    return part.last;
}

/* Writes the strip as one IDAT chunk to `out`, which has luna_idat_bound() bytes. The first strip of a picture opens the
 * zlib stream, the last one closes it; the closing checksum is written only by a strip that is both, else it is the
 * caller's to join. */
static luna_status luna_put_idat(const strip *s, u8 *out, size_t *written, u32 *adler) {
    workspace w;
    int first = s->first_row == 0, last = s->last_row == s->height;
    *written = 0;
    if (open_workspace(&w, s) != LUNA_OK)
        return LUNA_NO_MEMORY;
    bitstream bits = {0, 0, out + 8};
    memcpy(out + 4, "IDAT", 4);
    if (first) { /* a window of 32 KB; the second byte says how hard it was tried and makes a multiple of 31 */
        static const u8 EFFORT[10] = {0x01, 0x01, 0x5e, 0x5e, 0x5e, 0x5e, 0x9c, 0xda, 0xda, 0xda};
        put_bits(&bits, 0x78 | (u64)EFFORT[s->level] << 8, 16);
    }
    *adler = 1;
    u8 *block = w.filtered + WINDOW;
    u32 position = FIRST_POSITION;
    cursor at = {s->first_row, 0, 0};
    size_t section_end = s->first_row;
    while (at.y < s->last_row) {
        if (at.done == 0 && at.y >= section_end) {
            int scanned = w.waiting.bytes != 0;
            section_end = plan_section(&w, s, at.y);
            if (scanned && w.plan.method < METHOD_SCAN)
                put_waiting(&w, NULL, 0, &bits, 0);
        }
        size_t row_end = at.done ? s->row_bytes + 1 - at.done : 0;
        int small = w.plan.method >= METHOD_SCAN && w.room > SMALL_BLOCK_BYTES && s->row_bytes < SMALL_BLOCK_BYTES;
        size_t room = small ? SMALL_BLOCK_BYTES : w.room;
        const cursor from = at;
        size_t n = next_block(&w, s, &at, block, room);
        if (position == FIRST_POSITION)
            block[-1] = (u8)~block[0]; /* nothing came before, so no run may begin with the first byte */
        luna_status status = put_filtered(&w, s, from, block, n, position, row_end, &bits, last && at.y == s->last_row);
        if (status != LUNA_OK) {
            close_workspace(&w);
            return status;
        }
        *adler = adler32_update(w.isa, *adler, block, n);
        position += (u32)n;
        if (at.y < s->last_row)
            memmove(w.filtered, w.filtered + n, WINDOW);
    }
    if (w.waiting.bytes)
        put_waiting(&w, NULL, 0, &bits, 0);
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
    *written = data + 12;
    return LUNA_OK;
}

/* Filters the strip into `out`, stream_bytes() of it, for a library to compress. filter: FILTER_NONE to FILTER_BEST. */
static luna_status luna_filter_strip(const strip *s, int filter, u8 *out) {
    size_t room = block_bytes(s, SMALL_BLOCK_BYTES), piece = longest_piece(s, room);
    size_t buffers = whole_lines(row_buffer_bytes(piece));
    u8 *memory = malloc(buffers + room + 2 * MARGIN);
    if (!memory)
        return LUNA_NO_MEMORY;
    row_buffers rows = row_buffers_in(memory, piece);
    cursor at = {s->first_row, 0, 0};
    while (at.y < s->last_row) { /* by way of a block, since rows are filtered in whole vectors */
        size_t n = fill_block(detect_isa(), s, &rows, &at, filter, memory + buffers, room);
        memcpy(out, memory + buffers, n);
        out += n;
    }
    free(memory);
    return LUNA_OK;
}

/* What a sample says of the whole strip. */
static luna_status luna_plan_strip(const strip *s, plan *p) {
    const size_t piece = longest_piece(s, WIDE_BYTES), buffers = whole_lines(row_buffer_bytes(piece));
    u8 *memory = malloc(buffers + sizeof(tile_memory));
    if (!memory)
        return LUNA_NO_MEMORY;
    row_buffers rows = row_buffers_in(memory, piece);
    *p = choose(detect_isa(), s, &rows, (tile_memory *)(void *)(memory + buffers), (section){s->first_row, s->last_row});
    free(memory);
    return LUNA_OK;
}

#endif
