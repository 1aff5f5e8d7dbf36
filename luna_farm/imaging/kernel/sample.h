/* Looks at small pieces of an image: each is filtered, searched and counted, as if it were sent. */
#ifndef LUNA_SAMPLE_H
#define LUNA_SAMPLE_H

#include "runs.h"
#include "scan.h"
#include "source.h"

enum { TILE_ROWS = 16, TILE_BYTES = 384, GLANCE_ROWS = 8, GLANCE_BYTES = 192, WIDE_ROWS = 12, WIDE_BYTES = 4096 };
enum { NARROW_BYTES = 192, NARROW_BELOW = 1 << 20 }; /* in a small image, more and smaller tiles */
enum { MOST_TILE = WIDE_ROWS * (WIDE_BYTES + 8) };

/* The statistics of all tiles looked at so far. */
typedef struct {
    histogram scanned[FILTER_COUNT + 1]; /* with matches, by filter */
    histogram runs; /* with runs of SHORT_RUN, after the best filter of each row */
    histogram other_runs; /* the same with runs of SHORTEST_RUN, or at levels 1 and 2 of LONG_RUN */
    histogram plain; /* unfiltered, with runs of SHORT_RUN */
    histogram single[FILTER_COUNT]; /* with long runs alone: for level 1, which has one filter for all rows */
    size_t bytes;
} sample;

/* Memory for looking at tiles. Positions go on from tile to tile, a window apart, so that nothing need be cleared. */
typedef struct {
    scanner scan;
    u32 position;
    u8 before[MARGIN]; /* is read and never matched */
    u8 stream[MOST_TILE + 2 * MARGIN];
    u8 literals[MOST_TILE + SCAN_SLACK];
    token tokens[MOST_TILE / MIN_MATCH + 2];
    u64 covered[MOST_TILE / 64 + 3];
    u32 edges[2 * MOST_TILE / SHORTEST_RUN + 8 + EDGES_AFTER];
    sample sum;
} tile_memory;

typedef struct {
    size_t y, x, rows, bytes;
} tile;

/* A part of an image, by rows. */
typedef struct {
    size_t first, last;
} section;

/* Forgets what was looked at, and prepares for tiles of so many bytes. */
static void clear_tiles(tile_memory *m, size_t bytes) {
    clear_scan(&m->scan, bytes);
    memset(m->before, 0, sizeof m->before);
    memset(&m->sum, 0, sizeof m->sum);
    m->position = FIRST_POSITION;
}

/* The rows of a tile: of very short rows, more than usual, so that there is as much to see; each takes time, though. */
enum { MOST_TIMES = 32 };
static size_t tile_rows(const strip *s, section part, size_t rows) {
    const size_t all = part.last - part.first, times = GLANCE_BYTES / (s->row_bytes + 1);
    const size_t wanted = rows * (times < 1 ? 1 : times < MOST_TIMES ? times : MOST_TIMES);
    return wanted < all ? wanted : all;
}

/* How many tiles of that size are at most 1 / share of the section; 1 to `most`. */
static int count_tiles(const strip *s, section part, size_t rows, size_t bytes, size_t share, size_t most) {
    const size_t all = part.last - part.first, wide = bytes < s->row_bytes ? bytes : s->row_bytes;
    const size_t count = all * s->row_bytes / (share * tile_rows(s, part, rows) * wide);
    return (int)(count < 1 ? 1 : count > most ? most : count);
}

/* Tile `number` of `count`: they stand in a diagonal pattern, a single one in the middle. */
static tile place_tile(const strip *s, section part, int number, int count, size_t rows, size_t bytes) {
    tile t = {part.first, 0, tile_rows(s, part, rows), bytes};
    size_t all = part.last - part.first, row = s->row_bytes;
    size_t down = count > 1 ? (size_t)number : 1, across = count > 1 ? (size_t)(number * (count % 5 ? 5 : 3) % count) : 1;
    size_t steps = count > 1 ? (size_t)count - 1 : 2;
    t.bytes = (bytes < row ? bytes : row) / s->pixel_bytes * s->pixel_bytes;
    t.y += (all - t.rows) * down / steps;
    t.x = (row - t.bytes) / s->pixel_bytes * across / steps * s->pixel_bytes;
    return t;
}

/* Filters a tile into m->stream. Returns how many bytes. */
static size_t filter_tile(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t, int filter) {
    for (size_t k = 0; k < t.rows; k++) {
        u8 *to = m->stream + k * (t.bytes + 1);
        *to = (u8)filter_piece(isa, s, b, t.y + k, t.x, t.bytes, filter, to + 1);
    }
    memset(m->stream + t.rows * (t.bytes + 1), 0, MARGIN);
    return t.rows * (t.bytes + 1);
}

/* The first rows of a tile are searched, but not counted: those are what came before. */
static size_t uncounted(tile t) { return t.rows / 4 * (t.bytes + 1); }

/* Lets the search begin anew, far from what it knows. */
static void begin_tile(tile_memory *m, size_t stride) {
    m->scan.stride = stride;
    m->position += WINDOW + MOST_TILE;
    m->scan.start = m->position;
}

/* The distance in the image of what is `distance` apart in a tile, at most a window. */
INLINE u32 true_distance(u32 distance, size_t tile_stride, size_t stride) {
    size_t rows = (distance + tile_stride / 2) / tile_stride, far = distance + rows * (stride - tile_stride);
    return far < WINDOW ? (u32)far : WINDOW;
}

/* scan() or scan_greedily() */
typedef void search(int isa, scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, sequence *q);

/* Adds the statistics of a tile with the matches of a search after a filter. */
static void sample_search(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t, int filter, search *find,
                          histogram *sum) {
    sequence q = {m->tokens, m->literals, 0, 0, 0, 0};
    histogram one;
    const size_t n = filter_tile(isa, s, b, m, t, filter), skipped = uncounted(t), stride = t.bytes + 1;
    if (sum->litlen[END_OF_BLOCK])
        learn_scan_costs(&m->scan, sum);
    else
        guess_scan_costs(&m->scan);
    begin_tile(m, stride);
    if (skipped)
        find(isa, &m->scan, m->stream, skipped, m->position, 0, &q);
    clear_sequence(&q);
    find(isa, &m->scan, m->stream + skipped, n - skipped, m->position + (u32)skipped, 0, &q);
    for (size_t i = 0; i < q.count; i++)
        q.tokens[i].distance = (u16)(true_distance(q.tokens[i].distance + 1u, stride, s->row_bytes + 1) - 1);
    count_sequence(&one, &q);
    add_histogram(sum, &one);
}

/* The same with the quick search. */
static void sample_matches(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t, int filter) {
    sample_search(isa, s, b, m, t, filter, scan, &m->sum.scanned[filter]);
}

/* Adds the statistics of n bytes without matches but runs. */
static void add_runs(int isa, tile_memory *m, u8 *data, size_t n, int least, histogram *h) {
    histogram one;
    data[-1] = (u8)~data[0];
    size_t count = find_runs(isa, data, n, least, m->covered, m->edges, m->tokens);
    count_runs(&one, data, n, m->tokens, count, 0);
    add_histogram(h, &one);
}

/* Adds the statistics of a tile with runs alone, after the best filter of each row and, if asked, unfiltered. Returns the bytes
 * that were counted. */
static size_t sample_runs(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t, int plain) {
    const size_t skipped = uncounted(t), n = filter_tile(isa, s, b, m, t, FILTER_BEST) - skipped;
    u8 *data = m->stream + skipped;
    add_runs(isa, m, data, n, SHORT_RUN, &m->sum.runs);
    add_runs(isa, m, data, n, s->level > 2 ? SHORTEST_RUN : LONG_RUN, &m->sum.other_runs);
    m->sum.bytes += n;
    if (plain) {
        filter_tile(isa, s, b, m, t, FILTER_NONE);
        add_runs(isa, m, data, n, SHORT_RUN, &m->sum.plain);
    }
    return n;
}

static u64 symbols_of(const histogram *h) {
    u64 sum = 0;
    for (int i = 0; i < LITLEN_SYMBOLS; i++)
        sum += h->litlen[i];
    return sum;
}

/* The bits of what is counted, by the codes made for it. */
static u64 exact_bits(const histogram *h) {
    u8 litlen_bits[MAX_SYMBOLS], dist_bits[DIST_SYMBOLS + 2];
    code_lengths(h->litlen, LITLEN_SYMBOLS, MAX_BITS, litlen_bits);
    code_lengths(h->dist, DIST_SYMBOLS, MAX_BITS, dist_bits);
    return coded_bits(h, litlen_bits, dist_bits);
}

#endif
