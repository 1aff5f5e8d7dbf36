/* From rows of pixels to a finished IDAT chunk. */
#ifndef LUNA_STRIP_H
#define LUNA_STRIP_H

#include "block.h"
#include "checksum.h"
#include "deep.h"
#include "parse.h"

/* A sample of a block stands for all of it from this size on. CARRIED: fewer tokens and literals than this wait for the
 * next block, so that where nearly everything repeats, its codes serve for long. */
enum { SAMPLED_BYTES = 64 * 1024, CARRIED = 16 * 1024 };

typedef struct {
    int isa;
    size_t room; /* bytes of the largest block */
    row_buffers rows;
    u8 *filtered; /* WINDOW bytes of history, then a block */
    u64 *covered;
    u32 *edges;
    token *tokens;
    codebook *book;
    tile_memory *tiles; /* with the scanner of the strip */
    u8 *literals; /* NULL until needed, as what follows */
    parser *strings;
    sequence waiting;
    plan plan;
    int misled; /* the plan's filter does not suit the blocks that come */
    u8 *memory;
} workspace;

/* What levels 5 to 9 do where the kernel's own parser serves; see effort. */
static const effort EFFORTS[10] = {
    [5] = {.depth = 2, .nice = 32, .passes = 0, .patience = 5},
    [6] = {.depth = 8, .nice = 48, .passes = 1, .patience = 7},
    [7] = {.depth = 12, .nice = 64, .passes = 2, .patience = 7},
    [8] = {.depth = 24, .nice = 96, .passes = 2, .patience = 7},
    [9] = {.depth = 32, .nice = 128, .passes = 3, .patience = 7},
};

/* The most bytes that luna_put_idat writes for this strip, whatever the level: all stored, after the last block went wrong
 * at first; frame and slack. */
static size_t luna_idat_bound(const strip *s) {
    size_t bytes = stream_bytes(s), most = bytes < LARGEST_BLOCK ? bytes : LARGEST_BLOCK;
    return bytes + bytes / 4096 + 2 * (most + CARRIED) + 1024;
}

INLINE size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

static luna_status open_workspace(workspace *w, const strip *s) {
    memset(w, 0, sizeof *w);
    w->isa = detect_isa();
    w->room = block_bytes(s, s->level < 5 ? BLOCK_BYTES : SMALL_BLOCK_BYTES);
    const size_t piece = longest_piece(s, w->room);
    size_t rows = row_buffer_bytes(piece), filtered = whole_lines(WINDOW + w->room + 3 * MARGIN);
    size_t covered = whole_lines((w->room / 64 + 3) * 8), edges = whole_lines((2 * w->room / SHORTEST_RUN + 8) * sizeof(u32));
    size_t tokens = whole_lines((w->room / MIN_MATCH + CARRIED + 2) * sizeof(token)), book = whole_lines(sizeof(codebook));
    w->memory = malloc(rows + filtered + covered + edges + tokens + book + sizeof(tile_memory));
    if (!w->memory)
        return LUNA_NO_MEMORY;
    u8 *at = w->memory;
    w->rows = row_buffers_in(at, piece);
    w->filtered = at += rows;
    /* What is before the first block is no match for it, but the parser looks before it knows. */
    memset(at + (s->level < 5 ? WINDOW - MARGIN : 0), 0, s->level < 5 ? MARGIN : WINDOW);
    w->covered = (u64 *)(void *)(at += filtered);
    w->edges = (u32 *)(void *)(at += covered);
    w->tokens = (token *)(void *)(at += edges);
    w->book = (codebook *)(void *)(at += tokens);
    w->tiles = (tile_memory *)(void *)(at + book);
    return LUNA_OK;
}

static luna_status open_literals(workspace *w) {
    if (!w->literals)
        w->literals = malloc(w->room + CARRIED + SCAN_SLACK);
    w->waiting.tokens = w->tokens;
    w->waiting.literals = w->literals;
    return w->literals ? LUNA_OK : LUNA_NO_MEMORY;
}

static luna_status open_strings(workspace *w) {
    if (w->strings)
        return LUNA_OK;
    parser *p = w->strings = malloc(sizeof(parser) + 17 * w->room + 1024);
    if (!p)
        return LUNA_NO_MEMORY;
    memset(p, 0, sizeof *p);
    p->path_cost = (u32 *)(void *)(p + 1);
    p->parse_step = (match *)(void *)(p->path_cost + w->room + 1);
    p->found = p->parse_step + w->room;
    p->many = (u8 *)(p->found + 2 * w->room + MOST_FOUND);
    return LUNA_OK;
}

static void close_workspace(workspace *w) {
    free(w->strings);
    free(w->literals);
    free(w->memory);
}

/* Sends a block with runs alone. */
static void put_runs(workspace *w, const strip *s, const u8 *data, size_t n, bitstream *bits, int final) {
    const int quick = s->level <= 2, shorter = w->plan.method == METHOD_SHORT_RUNS;
    int least = quick ? (shorter ? SHORT_RUN : LONG_RUN) : (shorter ? SHORTEST_RUN : SHORT_RUN);
    size_t count = find_runs(w->isa, data, n, least, w->covered, w->edges, w->tokens);
    histogram h;
    unsigned thin = n < SAMPLED_BYTES ? 0 : s->level <= 3 ? 4 : 3;
    count_runs(&h, data, n, w->tokens, count, thin);
    put_block(w->isa, bits, w->book, &h, data, n, w->tokens, count, w->covered, least, final);
}

/* Sends the tokens that wait, and the block data[0..n) if they describe nothing else. */
static void put_waiting(workspace *w, const u8 *data, size_t n, bitstream *bits, int final) {
    histogram h;
    sequence *q = &w->waiting;
    count_sequence(&h, q);
    put_sequence(w->isa, bits, w->book, q, &h, q->bytes == n ? data : NULL, final);
    learn_scan_costs(&w->tiles->scan, &h);
}

/* A filter that suits what repeats itself does not suit a photograph on the same page, and a sample may have missed that. Where a
 * search leaves more than one byte in DENSE as a literal, bands of the block tell what runs alone would leave after the best
 * filter of each row: the search is misled if that is less than MISLED_PAYS hundredths. That is over once a block has less than
 * one literal in REPETITIVE bytes. */
enum { DENSE = 8, REPETITIVE = 4, TRIED_BANDS = 4, TRIED_ROWS = 4, MISLED_PAYS = 95 };
static int is_misled(workspace *w, const strip *s, const sequence *before, section part, size_t n) {
    const sequence *q = &w->waiting;
    const size_t literals = q->literal_count - before->literal_count;
    const sequence added = {q->tokens + before->count, q->literals + before->literal_count, q->count - before->count, literals, 0, n};
    histogram searched, runs;
    size_t bytes = 0;
    if (literals * DENSE < n)
        return 0;
    count_sequence(&searched, &added);
    memset(&runs, 0, sizeof runs);
    for (int i = 0; i < TRIED_BANDS; i++) {
        const tile band = place_tile(s, part, i, TRIED_BANDS, TRIED_ROWS, WIDE_BYTES);
        const size_t all = filter_tile(w->isa, s, &w->rows, w->tiles, band, FILTER_BEST);
        add_runs(w->isa, w->tiles, w->tiles->stream, all, SHORT_RUN, &runs);
        bytes += all;
    }
    return whole_cost(&runs) * n * 100 < whole_cost(&searched) * bytes * MISLED_PAYS;
}

/* Searches data[0..n), a block that begins at `from`, and sends what waits. */
static luna_status put_searched(workspace *w, const strip *s, cursor from, u8 *data, size_t n, u32 position, size_t row_end,
                                bitstream *bits, int final) {
    search *const find = w->plan.method == METHOD_SCAN ? scan : scan_greedily;
    const section part = {from.y, from.y + n / (s->row_bytes + 1)};
    if (open_literals(w) != LUNA_OK)
        return LUNA_NO_MEMORY;
    const sequence before = w->waiting;
    find(w->isa, &w->tiles->scan, data, n, position, row_end, &w->waiting);
    if (w->misled) {
        w->misled = (w->waiting.literal_count - before.literal_count) * REPETITIVE > n;
    } else if (w->plan.filter != FILTER_BEST && from.done == 0 && part.last > part.first && is_misled(w, s, &before, part, n)) {
        w->misled = 1;
        w->waiting = before;
        fill_block(w->isa, s, &w->rows, &from, FILTER_BEST, data, n);
        find(w->isa, &w->tiles->scan, data, n, position, row_end, &w->waiting);
    }
    if (final || w->waiting.count + w->waiting.literal_count > CARRIED)
        put_waiting(w, data, n, bits, final);
    return LUNA_OK;
}

/* Sends data[0..n), a block of filtered bytes that begins at `from`. */
static luna_status put_filtered(workspace *w, const strip *s, cursor from, u8 *data, size_t n, u32 position, size_t row_end,
                                bitstream *bits, int final) {
    if (s->level == 0) {
        put_stored(bits, data, n, final);
    } else if (s->level >= 5) {
        histogram h;
        if (open_strings(w) != LUNA_OK)
            return LUNA_NO_MEMORY;
        size_t count = find_tokens(w->strings, data, n, position, &EFFORTS[s->level], w->tokens, &h);
        put_block(w->isa, bits, w->book, &h, data, n, w->tokens, count, NULL, 0, final);
    } else if (w->plan.method >= METHOD_SCAN) {
        return put_searched(w, s, from, data, n, position, row_end, bits, final);
    } else {
        put_runs(w, s, data, n, bits, final);
    }
    return LUNA_OK;
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
