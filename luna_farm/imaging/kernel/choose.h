/* Decides by a sample how a section of an image is compressed: which filter, and whether to look for matches.
 *
 * Photographs hold no repetition after filtering but runs; then the cheapest filter for each row and runs alone are best,
 * at three gigabytes a second. What was drawn, rendered or computed repeats itself, often best in unfiltered pixels or
 * after Up. Which of them it is, and by how much, is measured on small tiles spread over the section: each is filtered in
 * every way and scanned. A first look at a few small tiles lets photographs and noise pass. */
#ifndef LUNA_CHOOSE_H
#define LUNA_CHOOSE_H

#include "runs.h"
#include "scan.h"
#include "source.h"

enum { METHOD_RUNS, METHOD_SHORT_RUNS, METHOD_SCAN };
enum { TILE_ROWS = 16, TILE_BYTES = 384, GLANCE_ROWS = 8, GLANCE_BYTES = 192, WIDE_ROWS = 12, WIDE_BYTES = 4096 };
enum { MOST_TILE = WIDE_ROWS * (WIDE_BYTES + 8), SECTION_BYTES = 4 << 20, TILES = 10, GLANCES = 6, WIDES = 4 };
/* After these tiles, filters that cost so many hundredths of the best one are tried no further. */
enum { EARLY = 2, EARLY_HOPE = 130, LATE = 5, LATE_HOPE = 110, NONE_GAINS = 97 };
/* Sampling ends when every way of filtering has left so many symbols: then more tells little. */
enum { ENOUGH_SYMBOLS = 8000 };

typedef struct {
    int filter; /* FILTER_NONE .. FILTER_PAETH, or FILTER_BEST: each row its own */
    int method;
    unsigned symbols; /* that runs leave, in percent of the bytes */
    u64 cost[FILTER_COUNT + 1]; /* of the tiles with matches, by filter */
    u64 runs_cost, short_runs_cost;
} plan;

/* The statistics of all tiles looked at so far: with matches, by filter, and with runs alone. */
typedef struct {
    histogram scanned[FILTER_COUNT + 1];
    histogram runs[2]; /* of SHORT_RUN; of SHORTEST_RUN, or at levels 1 and 2 of LONG_RUN */
    histogram single[FILTER_COUNT]; /* with long runs alone: for level 1, which has one filter for all rows */
    size_t bytes;
} sample;

/* Memory for looking at tiles. Positions go on from tile to tile, a window apart, so that nothing need be cleared. */
typedef struct {
    scanner scan;
    u32 position;
    u8 stream[WINDOW + MOST_TILE + 2 * MARGIN]; /* a tile, and before it what is read but never matched */
    u8 literals[MOST_TILE + SCAN_SLACK];
    token tokens[MOST_TILE / MIN_MATCH + 2];
    u64 covered[MOST_TILE / 64 + 3];
    u32 edges[2 * MOST_TILE / SHORTEST_RUN + 8];
    sample sum;
} tile_memory;

static tile_memory *open_tiles(u8 *memory) {
    tile_memory *m = (tile_memory *)(void *)memory;
    clear_scan(&m->scan);
    memset(m->stream, 0, sizeof m->stream);
    m->position = FIRST_POSITION;
    return m;
}

typedef struct {
    size_t y, x, rows, bytes;
} tile;

/* Tile `number` of `count`: they stand in a diagonal pattern over rows first .. last - 1. */
static tile place_tile(const strip *s, size_t first, size_t last, int number, int count, size_t rows, size_t bytes) {
    tile t = {first, 0, rows, bytes};
    size_t all = last - first, row = s->row_bytes;
    t.rows = rows < all ? rows : all;
    t.bytes = (bytes < row ? bytes : row) / s->pixel_bytes * s->pixel_bytes;
    t.y += (all - t.rows) * (size_t)number / (size_t)(count > 1 ? count - 1 : 1);
    t.x = (row - t.bytes) / s->pixel_bytes * (size_t)(number * 5 % count) / (size_t)(count > 1 ? count - 1 : 1) * s->pixel_bytes;
    return t;
}

/* The first rows of a tile are what came before: they may be referred to, and are not counted. */
INLINE size_t skipped_bytes(tile t) { return t.rows / 4 * (t.bytes + 1); }

static size_t filter_tile(int isa, const strip *s, const row_buffers *b, tile t, int filter, u8 *out) {
    for (size_t k = 0; k < t.rows; k++) {
        u8 *to = out + k * (t.bytes + 1);
        *to = (u8)filter_piece(isa, s, b, t.y + k, t.x, t.bytes, filter, to + 1);
    }
    memset(out + t.rows * (t.bytes + 1), 0, MARGIN);
    return t.rows * (t.bytes + 1);
}

/* The distance in the image of what is `distance` apart in a tile, at most a window. */
INLINE u32 true_distance(u32 distance, size_t tile_stride, size_t stride) {
    size_t rows = (distance + tile_stride / 2) / tile_stride, far = distance + rows * (stride - tile_stride);
    return far < WINDOW ? (u32)far : WINDOW;
}

/* Scans n bytes of a tile and adds what it finds behind the first `skipped` to `h`: those are what came before. */
static void scan_tile(int isa, tile_memory *m, const strip *s, size_t n, size_t skipped, size_t tile_stride, histogram *h) {
    sequence q = {m->tokens, m->literals, 0, 0, 0, 0};
    histogram one;
    m->scan.stride = tile_stride;
    if (m->position > (u32)1 << 30) {
        clear_scan(&m->scan);
        m->position = FIRST_POSITION;
    }
    m->position += WINDOW + MOST_TILE;
    m->scan.start = m->position;
    scan(isa, &m->scan, m->stream + WINDOW, skipped, m->position, 0, &q);
    clear_sequence(&q);
    scan(isa, &m->scan, m->stream + WINDOW + skipped, n - skipped, m->position + (u32)skipped, 0, &q);
    for (size_t i = 0; i < q.count; i++)
        q.tokens[i].distance = (u16)(true_distance(q.tokens[i].distance + 1u, tile_stride, s->row_bytes + 1) - 1);
    count_sequence(&one, &q);
    add_histogram(h, &one);
}

/* What is left with matches, in thousandths of what is left with runs alone, must be below this for matches to be worth
 * their time at a level. */
static const u16 SCAN_PAYS[10] = {0, 940, 950, 970, 985, 990, 990, 990, 990, 990};
/* The same for a few small tiles, which tell less; and for runs of SHORTEST_RUN against SHORT_RUN. What short ones
 * must leave of what long ones do is in hundredths, for levels 1 and 2. */
enum { GLANCE_PAYS = 20, SHORT_RUNS_PAY = 984, LONG_RUNS_COST_1 = 95, LONG_RUNS_COST_2 = 97, DENSE_SYMBOLS = 40, SPARSE_SYMBOLS = 20, SPARSE_SCAN_PAYS = 1100 };
/* After so many small tiles, where runs leave so many symbols, matches that cost so many thousandths are tried no further. */
enum { QUICK_GLANCES = 2, QUICK_DENSE = 50, QUICK_PAYS = 1020 };

/* Adds the statistics of n bytes without matches but runs. */
static void add_runs(int isa, tile_memory *m, u8 *data, size_t n, int least, histogram *h) {
    histogram one;
    data[-1] = (u8)~data[0];
    size_t count = find_runs(isa, data, n, least, m->covered, m->edges, m->tokens);
    count_runs(&one, data, n, m->tokens, count, 0);
    add_histogram(h, &one);
}

/* Filters a tile one way and adds its statistics, but for the first rows, which are what came before. Returns the bytes
 * that are in them. */
static size_t sample_tile(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t, int filter, int scanned) {
    sample *sum = &m->sum;
    size_t n = filter_tile(isa, s, b, t, filter, m->stream + WINDOW), skipped = skipped_bytes(t);
    if (scanned) {
        if (sum->bytes)
            learn_scan_costs(&m->scan, &sum->scanned[filter]);
        else
            guess_scan_costs(&m->scan);
        scan_tile(isa, m, s, n, skipped, t.bytes + 1, &sum->scanned[filter]);
    }
    if (filter == FILTER_BEST) {
        u8 *data = m->stream + WINDOW + skipped;
        add_runs(isa, m, data, n - skipped, SHORT_RUN, &sum->runs[0]);
        add_runs(isa, m, data, n - skipped, s->level > 2 ? SHORTEST_RUN : LONG_RUN, &sum->runs[1]);
    }
    return n - skipped;
}

static u64 symbols_of(const histogram *h) {
    u64 sum = 0;
    for (int i = 0; i < LITLEN_SYMBOLS; i++)
        sum += h->litlen[i];
    return sum;
}

static u64 runs_cost(const sample *sum, int level) {
    u64 usual = whole_cost(&sum->runs[0]), shortest = level > 2 ? whole_cost(&sum->runs[1]) : usual;
    return shortest < usual ? shortest : usual;
}

/* The bits of what is counted, by the codes made for it. */
static u64 exact_bits(const histogram *h) {
    u8 litlen_bits[MAX_SYMBOLS], dist_bits[DIST_SYMBOLS + 2];
    code_lengths(h->litlen, LITLEN_SYMBOLS, MAX_BITS, litlen_bits);
    code_lengths(h->dist, DIST_SYMBOLS, MAX_BITS, dist_bits);
    return coded_bits(h, litlen_bits, dist_bits);
}

/* Whether shorter runs than a level usually has gain enough for their time: SHORTEST_RUN over SHORT_RUN, and at levels 1
 * and 2 SHORT_RUN, with the best filter of each row, over LONG_RUN as `filter` leaves it. Entropy does not tell: where most
 * bytes are 0, one costs a whole bit as a literal, and two bits when runs have taken most of them. */
static int short_runs_pay(const strip *s, const sample *sum, int filter) {
    const u64 usual = exact_bits(&sum->runs[0]);
    if (s->level > 2)
        return exact_bits(&sum->runs[1]) * 1000 < usual * SHORT_RUNS_PAY;
    const u64 longer = exact_bits(filter == FILTER_BEST ? &sum->runs[1] : &sum->single[filter]);
    return usual * 100 < longer * (s->level == 1 ? LONG_RUNS_COST_1 : LONG_RUNS_COST_2);
}

/* The filter for all rows that leaves least to literals and long runs; Paeth unless another one gains 1 %. */
static int single_filter(int isa, const strip *s, const row_buffers *b, tile_memory *m, size_t first, size_t last) {
    static const u8 TRIED[3] = {FILTER_NONE, FILTER_SUB, FILTER_UP};
    int best = FILTER_PAETH;
    u64 least = 0;
    for (int k = -1; k < 3; k++) {
        int filter = k < 0 ? FILTER_PAETH : TRIED[k];
        for (int i = 0; i < GLANCES; i++) {
            tile t = place_tile(s, first, last, i, GLANCES, GLANCE_ROWS, GLANCE_BYTES);
            size_t n = filter_tile(isa, s, b, t, filter, m->stream + WINDOW), skipped = skipped_bytes(t);
            add_runs(isa, m, m->stream + WINDOW + skipped, n - skipped, LONG_RUN, &m->sum.single[filter]);
        }
        u64 cost = whole_cost(&m->sum.single[filter]);
        if (k < 0) {
            least = cost * 99 / 100;
        } else if (cost < least) {
            least = cost;
            best = filter;
        }
    }
    return best;
}

/* Those of the filters that are alive whose cost is at most so many hundredths of the least. */
static unsigned hopeful_filters(const sample *sum, unsigned alive, u64 hundredths) {
    u64 cost[FILTER_COUNT + 1], least = ~0ull;
    unsigned hopeful = 0;
    for (int f = 0; f <= FILTER_COUNT; f++) {
        cost[f] = alive >> f & 1 && f != FILTER_AVERAGE ? whole_cost(&sum->scanned[f]) : ~0ull;
        least = cost[f] < least ? cost[f] : least;
    }
    for (int f = 0; f <= FILTER_COUNT; f++)
        if (cost[f] <= least / 100 * hundredths)
            hopeful |= 1u << f;
    return hopeful;
}

/* Tells the search about the image. In 16-bit gray, high bytes repeat with any low ones between them. */
static void begin_scan(scanner *scan, const strip *s) {
    scan->pixel_bytes = s->pixel_bytes;
    scan->step = s->pixel_bytes == 2 && s->sample_bytes == 2 ? 1 : s->pixel_bytes;
}

/* Decides for rows first .. last - 1. The costs in m->scan are then those of the filter that is taken. */
static plan choose(int isa, const strip *s, const row_buffers *b, tile_memory *m, size_t first, size_t last) {
    static const u8 GLANCED[GLANCES] = {1, 4, 0, 3, 5, 2}; /* far from one another from the beginning */
    static const u8 SCANNED[5] = {FILTER_UP, FILTER_NONE, FILTER_BEST, FILTER_PAETH, FILTER_SUB};
    sample *sum = &m->sum;
    plan p = {s->level == 1 ? FILTER_PAETH : FILTER_BEST, METHOD_RUNS, 0, {0}, 0, 0};
    memset(sum, 0, sizeof *sum);
    begin_scan(&m->scan, s);
    u64 runs = 0, scanned = 0;
    int hopeful = 1;
    for (int i = 0; i < GLANCES; i++) {
        tile t = place_tile(s, first, last, GLANCED[i], GLANCES, GLANCE_ROWS, GLANCE_BYTES);
        if (!hopeful) { /* it is a photograph; what shorter runs gain is still to be seen */
            sample_tile(isa, s, b, m, t, FILTER_BEST, 0);
            continue;
        }
        for (int k = 0; k < 3; k++)
            sum->bytes += sample_tile(isa, s, b, m, t, SCANNED[k], k < 2) / 3;
        if (i != QUICK_GLANCES - 1 && i != GLANCES - 1)
            continue;
        u64 up = whole_cost(&sum->scanned[FILTER_UP]), none = whole_cost(&sum->scanned[FILTER_NONE]);
        const int quick = i < GLANCES - 1;
        const u64 pays = quick ? QUICK_PAYS : SCAN_PAYS[s->level] + GLANCE_PAYS, dense = quick ? QUICK_DENSE : DENSE_SYMBOLS;
        runs = runs_cost(sum, s->level);
        scanned = up < none ? up : none;
        hopeful = s->level >= 5 || symbols_of(&sum->runs[0]) * 100 <= sum->bytes * dense || scanned * 1000 < runs * pays;
    }
    if (s->level == 1)
        p.filter = single_filter(isa, s, b, m, first, last);
    if (!hopeful || s->level <= 2) {
        int shorter = short_runs_pay(s, sum, p.filter);
        p.method = shorter ? METHOD_SHORT_RUNS : METHOD_RUNS;
        p.filter = shorter ? FILTER_BEST : p.filter;
    }
    if (!hopeful)
        return p;
    /* Where nearly nothing is left, the ends of rows count: whole rows, which cost little then. */
    int wide = symbols_of(&sum->runs[0]) * 100 < sum->bytes * SPARSE_SYMBOLS;
    unsigned alive = (1u << (FILTER_COUNT + 1)) - 1;
    memset(sum, 0, sizeof *sum);
    for (int i = 0; i < (wide ? WIDES : TILES); i++) {
        tile t = wide ? place_tile(s, first, last, i, WIDES, WIDE_ROWS, WIDE_BYTES)
                      : place_tile(s, first, last, i, TILES, TILE_ROWS, TILE_BYTES);
        u64 fewest = ~0ull;
        size_t n = 0;
        for (int k = 0; k < 5; k++) {
            int scanned = (int)(alive >> SCANNED[k] & 1);
            if (!scanned && SCANNED[k] != FILTER_BEST)
                continue;
            n = sample_tile(isa, s, b, m, t, SCANNED[k], scanned);
            u64 symbols = symbols_of(&sum->scanned[SCANNED[k]]);
            fewest = scanned && symbols < fewest ? symbols : fewest;
        }
        sum->bytes += n;
        if (i == EARLY || i == LATE)
            alive = hopeful_filters(sum, alive, i == EARLY ? EARLY_HOPE : LATE_HOPE);
        if (fewest > ENOUGH_SYMBOLS)
            break;
    }
    int best = SCANNED[0];
    for (int k = 0; k < 5; k++)
        p.cost[SCANNED[k]] = alive >> SCANNED[k] & 1 ? whole_cost(&sum->scanned[SCANNED[k]]) : ~0ull;
    p.symbols = (unsigned)(symbols_of(&sum->runs[0]) * 100 / sum->bytes);
    if (p.symbols < DENSE_SYMBOLS) /* it gains more than others from what is not before a tile */
        p.cost[FILTER_NONE] = p.cost[FILTER_NONE] / 100 * NONE_GAINS;
    for (int k = 0; k < 5; k++)
        if (p.cost[SCANNED[k]] < p.cost[best])
            best = SCANNED[k];
    p.runs_cost = whole_cost(&sum->runs[0]);
    p.short_runs_cost = s->level > 2 ? whole_cost(&sum->runs[1]) : p.runs_cost;
    runs = p.short_runs_cost < p.runs_cost ? p.short_runs_cost : p.runs_cost;
    int sparse = p.symbols < SPARSE_SYMBOLS;
    if (p.cost[best] * 1000 < runs * (sparse ? SPARSE_SCAN_PAYS : SCAN_PAYS[s->level])) {
        p.filter = best;
        p.method = METHOD_SCAN;
        learn_scan_costs(&m->scan, &sum->scanned[best]);
    } else {
        if (s->level >= 5) /* all matches will be looked for */
            p.filter = best;
        if (s->level > 2)
            p.method = short_runs_pay(s, sum, p.filter) ? METHOD_SHORT_RUNS : METHOD_RUNS;
    }
    return p;
}

#endif
