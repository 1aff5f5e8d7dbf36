/* Decides by a sample how a section of an image is compressed: which filter, and whether to look for matches.
 *
 * Photographs hold no repetition after filtering but runs; then the cheapest filter for each row and runs alone are best,
 * at three gigabytes a second. What was drawn, rendered or computed repeats itself, often best in unfiltered pixels or
 * after Up. Which of them it is, and by how much, is measured on small tiles spread over the section: each is filtered in
 * every way and scanned. A first look at a few small tiles lets photographs and noise pass.
 *
 * Samples of 16 bits are looked at as words before all that (words.h).
 *
 * What is looked at is a share of the section, so that a small image does not wait for its own sample. */
#ifndef LUNA_CHOOSE_H
#define LUNA_CHOOSE_H

#include "words.h"

enum { METHOD_RUNS, METHOD_SHORT_RUNS, METHOD_SCAN, METHOD_GREEDY };
/* Tiles in a large section, and a smaller one's share of its bytes. */
enum { SECTION_BYTES = 4 << 20, TILES = 10, TILE_SHARE = 8, GLANCES = 6, GLANCE_SHARE = 128, WIDES = 4, WIDE_SHARE = 4 };
/* Bytes of an image that is sent sooner than any look at it ends, and of one that is looked at by two filters alone. */
enum { TINY = 512, SMALL = 4096 };
/* A filter is tried no further while another one is ahead even if what the first has not seen gains one part in LUCK more than
 * anything seen so far. Sampling ends when all is seen; when the best filter has left so many symbols, since then more tells
 * little; when after so many tiles it comes to less than so many hundredths of runs; or when after so many there is no hope. */
enum { LUCK = 12, PARTS = 4096, ENOUGH_SYMBOLS = 8000, SETTLED_TILES = 2, SETTLED = 85, HOPELESS_TILES = 7, NONE_GAINS = 97 };
/* Bands of dense images; of less than BANDS_FROM bytes they would take too much of the time. */
enum { BANDS = 3, BAND_ROWS = 8, BAND_BYTES = 4096, BANDS_FROM = 2 << 20, BAND_HOPE = 1015, FEW_ROWS = 4 };

typedef struct {
    int filter; /* FILTER_NONE .. FILTER_PAETH, or FILTER_BEST: each row its own */
    int method;
    unsigned symbols; /* that runs leave, in percent of the bytes */
    int plain_may_pay; /* with runs alone: whether blocks may be smaller unfiltered; see strip.h */
} plan;

/* What is left with matches, in thousandths of what is left with runs alone, must be below this for matches to be worth
 * their time at a level. */
static const u16 SCAN_PAYS[10] = {0, 940, 950, 970, 985, 990, 990, 990, 990, 990};
/* The same for a few small tiles, which tell less; for runs of SHORTEST_RUN against SHORT_RUN, which need so many more
 * tokens in 1000 bytes to gain anything; and for unfiltered rows, in hundredths of the best filter of each, where runs leave
 * at least so many symbols: each block decides by itself, but is not to be asked in vain. */
enum { GLANCE_PAYS = 20, SHORT_RUNS_PAY = 984, SHORT_RUNS_NEED = 4, PLAIN_MAY_PAY = 110, PLAIN_SYMBOLS = 90 };
/* What short runs must leave of what long ones do, in hundredths, for levels 1 and 2. */
enum { LONG_RUNS_COST_1 = 95, LONG_RUNS_COST_2 = 97 };
/* Of a small dense image a few tiles are all that there is time for; matches must promise so much more there. */
enum { UNSURE_BELOW = 1 << 18, UNSURE = 40 };
enum { DENSE_SYMBOLS = 40, SPARSE_SYMBOLS = 20, SPARSE_SCAN_PAYS = 1100 };
/* What SCAN_PAYS is in 16 bits: there, tiles promise up to a tenth that the whole image does not keep. */
enum { DEEP_SCAN_PAYS = 850 };
/* After so many small tiles, where runs leave so many symbols, matches that can begin in fewer places of 100 or that cost
 * so many thousandths are tried no further. */
enum { QUICK_GLANCES = 2, QUICK_DENSE = 50, QUICK_HITS = 12, QUICK_PAYS = 1020, FLAT = 45 };

/* Whether shorter runs than a level usually has gain enough for their time: SHORTEST_RUN over SHORT_RUN, and at levels 1
 * and 2 SHORT_RUN, with the best filter of each row, over LONG_RUN as `filter` leaves it. Entropy does not tell: where most
 * bytes are 0, one costs a whole bit as a literal, and two bits when runs have taken most of them. */
static int short_runs_pay(const strip *s, const sample *sum, int filter) {
    const histogram *runs = &sum->runs, *other = &sum->other_runs;
    if (s->level > 2)
        return (u64)(other->dist[0] - runs->dist[0]) * 1000 >= sum->bytes * SHORT_RUNS_NEED &&
               exact_bits(other) * 1000 < exact_bits(runs) * SHORT_RUNS_PAY;
    const u64 longer = exact_bits(filter == FILTER_BEST ? other : &sum->single[filter]);
    return exact_bits(runs) * 100 < longer * (s->level == 1 ? LONG_RUNS_COST_1 : LONG_RUNS_COST_2);
}

/* What runs alone leave, by the best filter of each row. */
static u64 filtered_cost(const strip *s, const sample *sum) {
    u64 usual = whole_cost(&sum->runs), shortest = s->level > 2 ? whole_cost(&sum->other_runs) : usual;
    return shortest < usual ? shortest : usual;
}

static int is_dense(const sample *sum, unsigned percent) { return symbols_of(&sum->runs) * 100 > sum->bytes * percent; }

/* The same, unfiltered where blocks may be. */
static u64 runs_cost(const strip *s, const sample *sum) {
    u64 filtered = filtered_cost(s, sum), plain = whole_cost(&sum->plain);
    return s->level < 5 && is_dense(sum, PLAIN_SYMBOLS) && plain < filtered ? plain : filtered;
}

/* The small tiles that are looked at first, far from one another from the beginning. Returns how many. */
static int place_glances(const strip *s, section part, tile *tiles) {
    static const u8 GLANCED[GLANCES] = {1, 4, 0, 3, 5, 2};
    const int count = count_tiles(s, part, GLANCE_ROWS, GLANCE_BYTES, GLANCE_SHARE, GLANCES);
    for (int i = 0; i < count; i++)
        tiles[i] = count == 1 ? place_tile(s, part, 0, 1, GLANCE_ROWS, GLANCE_BYTES)
                              : place_tile(s, part, GLANCED[i], GLANCES, GLANCE_ROWS, GLANCE_BYTES);
    return count;
}

/* The filter for all rows that leaves least to literals and long runs; Paeth unless another one gains 1 %. */
static int single_filter(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part) {
    static const u8 TRIED[3] = {FILTER_NONE, FILTER_SUB, FILTER_UP};
    tile tiles[GLANCES];
    int best = FILTER_PAETH, count = place_glances(s, part, tiles);
    u64 least = 0;
    for (int k = -1; k < 3; k++) {
        int filter = k < 0 ? FILTER_PAETH : TRIED[k];
        for (int i = 0; i < count; i++) {
            size_t n = filter_tile(isa, s, b, m, tiles[i], filter), skipped = uncounted(tiles[i]);
            add_runs(isa, m, m->stream + skipped, n - skipped, LONG_RUN, &m->sum.single[filter]);
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

/* Runs alone: of which length, and after which filter; `single` is the one of level 1. */
static plan plan_runs(const strip *s, const sample *sum, int single) {
    plan p = {single, METHOD_RUNS, (unsigned)(symbols_of(&sum->runs) * 100 / sum->bytes), 0};
    if (short_runs_pay(s, sum, single)) {
        p.filter = FILTER_BEST;
        p.method = METHOD_SHORT_RUNS;
    }
    if (s->level < 5 && is_dense(sum, PLAIN_SYMBOLS))
        p.plain_may_pay = whole_cost(&sum->plain) * 100 < filtered_cost(s, sum) * PLAIN_MAY_PAY;
    return p;
}

/* Whether matches in the tiles looked at come to at most so many thousandths of runs alone. */
static int matches_pay(const strip *s, const sample *sum, u64 thousandths) {
    const histogram *up_sum = &sum->scanned[FILTER_UP], *none_sum = &sum->scanned[FILTER_NONE];
    u64 up = up_sum->litlen[END_OF_BLOCK] ? whole_cost(up_sum) : ~0ull;
    u64 none = none_sum->litlen[END_OF_BLOCK] ? whole_cost(none_sum) : ~0ull;
    return (up < none ? up : none) * 1000 < runs_cost(s, sum) * thousandths;
}

/* The filter, Up or none, after which matches can begin in most places of some tiles, where a literal costs what it does
 * with runs alone; FILTER_BEST if that is not many. */
static int repetitive_filter(int isa, const strip *s, const row_buffers *b, tile_memory *m, const tile *tiles, int count) {
    unsigned places = 0, up = 0, none = 0;
    learn_scan_costs(&m->scan, &m->sum.runs);
    for (int i = 0; i < count; i++) {
        size_t stride = tiles[i].bytes + 1;
        begin_tile(m, stride);
        up += count_hits(isa, &m->scan, m->stream, filter_tile(isa, s, b, m, tiles[i], FILTER_UP), m->position);
        begin_tile(m, stride);
        none += count_hits(isa, &m->scan, m->stream, filter_tile(isa, s, b, m, tiles[i], FILTER_NONE), m->position);
        places += (unsigned)(tiles[i].rows * (tiles[i].bytes / m->scan.step));
    }
    if ((up > none ? up : none) * 100 < places * QUICK_HITS)
        return FILTER_BEST;
    return up > none ? FILTER_UP : FILTER_NONE;
}

/* How many bytes of 100 lie in SHORT_RUN or more equal to what is to the left of them, or to what is above. Looks at so
 * many places all over the section, which takes no time, where tiles may all have hit the one photograph on a page. */
enum { FLAT_PLACES = 48, FLAT_BYTES = 64 };
static unsigned flat_share(const strip *s, section part) {
    const size_t rows = part.last - part.first, pixel = s->pixel_bytes, row = s->row_bytes;
    unsigned flat = 0;
    const size_t need = FLAT_BYTES + pixel + SHORT_RUN, narrow = row < need, all = rows * row;
    if (rows < 2 || all < 2 * row + need)
        return 0;
    for (size_t i = 0; i < FLAT_PLACES; i++) {
        const u8 *p = s->pixels + part.first * row + row + pixel;
        if (narrow) /* places span rows, which stand behind one another */
            p += (all - row - need) * i / (FLAT_PLACES - 1) / pixel * pixel;
        else
            p += (rows - 2) * i / (FLAT_PLACES - 1) * row + (row - need) * (i * 29 % FLAT_PLACES) / (FLAT_PLACES - 1);
        for (size_t k = 0; k < FLAT_BYTES; k += SHORT_RUN) {
            u64 here = load64(p + k);
            flat += here == load64(p + k - pixel) || here == load64(p + k - row);
        }
    }
    return flat * 100 / (FLAT_PLACES * FLAT_BYTES / SHORT_RUN);
}

/* By the filter that promises more, if one is known. */
static void scan_glance(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t, int known) {
    if (known != FILTER_NONE)
        sample_matches(isa, s, b, m, t, FILTER_UP);
    if (known != FILTER_UP)
        sample_matches(isa, s, b, m, t, FILTER_NONE);
}

/* The first look. Returns whether matches may pay; if not, m->sum tells what runs leave. What is not dense is looked at
 * closely in any case, so it is not searched here. */
static int glance(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part) {
    tile tiles[GLANCES];
    const int count = place_glances(s, part, tiles);
    const int early = count < 2 * QUICK_GLANCES ? 1 : QUICK_GLANCES;
    sample *sum = &m->sum;
    for (int i = 0; i < early; i++)
        sample_runs(isa, s, b, m, tiles[i], 1);
    const int asked = s->level < 5, even = flat_share(s, part) >= FLAT, dense = asked && !even && is_dense(sum, QUICK_DENSE);
    const int known = dense ? repetitive_filter(isa, s, b, m, tiles, early) : FILTER_BEST;
    int hopeful = !dense || known != FILTER_BEST, searched = 0;
    for (; dense && searched < early && hopeful; searched++)
        scan_glance(isa, s, b, m, tiles[searched], known);
    hopeful = hopeful && (!dense || matches_pay(s, sum, QUICK_PAYS));
    for (int i = early; i < count; i++)
        sample_runs(isa, s, b, m, tiles[i], 1);
    if (!asked || even || !is_dense(sum, DENSE_SYMBOLS))
        return 1;
    for (; searched < count && hopeful; searched++)
        scan_glance(isa, s, b, m, tiles[searched], known);
    return hopeful && matches_pay(s, sum, SCAN_PAYS[s->level] + GLANCE_PAYS);
}

static const u8 SCANNED[5] = {FILTER_UP, FILTER_NONE, FILTER_BEST, FILTER_PAETH, FILTER_SUB};

/* A larger tile, and what runs leave of it. */
typedef struct {
    tile place;
    u64 bits;
} weighed_tile;

/* Orders tiles: the one that costs most, the one that costs least, the next ones of either end. What costs most decides, but a
 * photograph on a page of text is not to hide the text. */
static void order_tiles(weighed_tile *tiles, int count) {
    weighed_tile sorted[TILES];
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && sorted[at - 1].bits < tiles[i].bits; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = tiles[i];
    }
    for (int i = 0; i < count; i++)
        tiles[i] = sorted[i % 2 ? count - 1 - i / 2 : i / 2];
}

/* Places larger tiles, or bands of whole rows, and adds their statistics with runs alone. From level 5 on they stay in the order
 * of their places, since what is asked then is what the image is like on the whole. Returns how many. */
static int place_tiles(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part, int wide, weighed_tile *tiles) {
    const int small = s->level < 5 && (part.last - part.first) * s->row_bytes < NARROW_BELOW;
    const size_t rows = wide ? WIDE_ROWS : TILE_ROWS, bytes = wide ? WIDE_BYTES : small ? NARROW_BYTES : TILE_BYTES;
    const int count = count_tiles(s, part, rows, bytes, wide ? WIDE_SHARE : TILE_SHARE, wide ? WIDES : TILES);
    u64 sum = 0;
    clear_tiles(m, 4 * rows * bytes); /* few places meet in the table, as in that of the whole image */
    for (int i = 0; i < count; i++) {
        tiles[i].place = place_tile(s, part, i, count, rows, bytes);
        sample_runs(isa, s, b, m, tiles[i].place, !wide);
        if (wide) /* there is hardly anything to be sent as it is */
            m->sum.plain = m->sum.runs;
        const u64 all = runs_cost(s, &m->sum);
        tiles[i].bits = all > sum ? all - sum : 0;
        sum = all;
    }
    if (s->level < 5)
        order_tiles(tiles, count);
    return count;
}

/* What runs leave of the first tiles alone. It is less than their share of all, since statistics of few bytes flatter, and of dense
 * tiles a hundredth decides. */
static u64 count_again(int isa, const strip *s, const row_buffers *b, tile_memory *m, const weighed_tile *tiles, int count, int wide) {
    sample *sum = &m->sum;
    memset(&sum->runs, 0, sizeof sum->runs);
    memset(&sum->other_runs, 0, sizeof sum->other_runs);
    memset(&sum->plain, 0, sizeof sum->plain);
    sum->bytes = 0;
    for (int i = 0; i < count; i++)
        sample_runs(isa, s, b, m, tiles[i].place, !wide);
    if (wide)
        sum->plain = sum->runs;
    return runs_cost(s, sum);
}

/* The filters in a race: how many tiles each has seen, and what it left of them. */
typedef struct {
    int filters, tiles;
    int done[FILTER_COUNT + 1];
    u64 cost[FILTER_COUNT + 1];
    u64 seen[TILES + 1]; /* what runs leave of so many tiles */
} race;

/* The filter that may come to least on all tiles, if the others' luck holds for what it has not seen. */
static int leader(const race *r) {
    int best = SCANNED[0];
    u64 ratio = ~0ull, least = ~0ull;
    for (int k = 0; k < r->filters; k++) {
        const int f = SCANNED[k];
        if (!r->done[f])
            return f;
        const u64 one = r->cost[f] * PARTS / (r->seen[r->done[f]] + 1);
        ratio = one < ratio ? one : ratio;
    }
    ratio -= ratio / LUCK;
    for (int k = 0; k < r->filters; k++) {
        const int f = SCANNED[k];
        const u64 hope = r->cost[f] + (r->seen[r->tiles] - r->seen[r->done[f]]) * ratio / PARTS;
        if (hope < least) {
            least = hope;
            best = f;
        }
    }
    return best;
}

/* Whether the leader f is as good as through: it beats runs by enough even if it gains nothing on what it has not seen, or it
 * comes nowhere near them, or has left so many symbols that more of them tell little. */
static int is_decided(const strip *s, const sample *sum, const race *r, int f, int dense) {
    const u64 seen = r->seen[r->done[f]], all = r->seen[r->tiles], left = all - seen;
    if (s->level < 5 && r->done[f] >= SETTLED_TILES && (r->cost[f] + left) * 100 < all * SETTLED)
        return 1;
    if (s->level < 5 && r->done[f] >= HOPELESS_TILES && dense && r->cost[f] * 1000 > seen * QUICK_PAYS)
        return 1;
    return symbols_of(&sum->scanned[f]) > ENOUGH_SYMBOLS && (s->level >= 5 || left * 4 < all);
}

/* What the larger tiles told: the best filter, what it leaves with matches, and what runs leave of the tiles that it saw. */
typedef struct {
    int filter;
    u64 cost, runs;
} closer_look;

/* Looks at larger tiles in every way. Where nearly nothing is left, the ends of rows count: whole rows, which cost little
 * then. Two filters are as much as a small image is worth. */
static closer_look look_closely(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part, int wide) {
    sample *sum = &m->sum;
    weighed_tile tiles[TILES];
    race r;
    memset(&r, 0, sizeof r);
    r.filters = s->level < 5 && stream_bytes(s) <= SMALL ? 2 : 5;
    r.tiles = place_tiles(isa, s, b, m, part, wide, tiles);
    for (int i = 0; i < r.tiles; i++)
        r.seen[i + 1] = r.seen[i] + tiles[i].bits;
    const int dense = is_dense(sum, SPARSE_SYMBOLS), none_gains = !is_dense(sum, DENSE_SYMBOLS);
    int f = leader(&r);
    while (r.done[f] < r.tiles && !(r.done[f] && is_decided(s, sum, &r, f, dense))) {
        sample_matches(isa, s, b, m, tiles[r.done[f]++].place, f);
        r.cost[f] = whole_cost(&sum->scanned[f]);
        if (f == FILTER_NONE && none_gains) /* it gains more than others from what is before a tile */
            r.cost[f] = r.cost[f] / 100 * NONE_GAINS;
        f = leader(&r);
    }
    const u64 all = runs_cost(s, sum);
    return (closer_look){f, r.cost[f], r.done[f] < r.tiles ? count_again(isa, s, b, m, tiles, r.done[f], wide) : all};
}

/* A band of a dense image: rows as long as a match reaches, which no small tile is. */
static tile place_band(const strip *s, section part, size_t number, size_t rows) {
    const size_t row = s->row_bytes, bytes = (row < BAND_BYTES ? row : BAND_BYTES) / s->pixel_bytes * s->pixel_bytes;
    const size_t y = part.first + (part.last - part.first - rows) * (2 * number + 1) / (2 * BANDS);
    return (tile){y, (row - bytes) / s->pixel_bytes / 2 * s->pixel_bytes, rows, bytes};
}

/* Adds the statistics of a band with runs alone, of one length and after the best filter, and with matches after Up. */
static void sample_band(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t) {
    sample *sum = &m->sum;
    const size_t n = filter_tile(isa, s, b, m, t, FILTER_BEST), skipped = uncounted(t);
    add_runs(isa, m, m->stream + skipped, n - skipped, SHORT_RUN, &sum->runs);
    sum->bytes += n - skipped;
    sum->other_runs = sum->plain = sum->runs;
    sample_matches(isa, s, b, m, t, FILTER_UP);
}

/* Photographs that were enlarged, or decoded from a lossy file, may repeat themselves a few rows apart, which the small tiles
 * of the first look do not reach. A few rows say whether that may be, some bands whether it gains enough; where it does, the
 * filter is Up or the best of each row, the plan becomes a search, and the costs in m->scan are those of it. */
static void look_at_bands(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part, plan *p) {
    sample *sum = &m->sum;
    const size_t rows = part.last - part.first;
    if (s->level < 3 || s->level > 4 || s->sample_bytes > 1 || rows * s->row_bytes < BANDS_FROM || rows < BANDS * BAND_ROWS ||
        p->symbols >= PLAIN_SYMBOLS)
        return;
    clear_tiles(m, BAND_ROWS * BAND_BYTES);
    sample_band(isa, s, b, m, place_band(s, part, BANDS / 2, FEW_ROWS));
    if (!matches_pay(s, sum, BAND_HOPE))
        return;
    clear_tiles(m, 2 * BAND_ROWS * BAND_BYTES);
    for (size_t i = 0; i < BANDS; i++) {
        const tile t = place_band(s, part, i, BAND_ROWS);
        sample_band(isa, s, b, m, t);
        sample_matches(isa, s, b, m, t, FILTER_BEST);
    }
    const u64 up = whole_cost(&sum->scanned[FILTER_UP]), best = whole_cost(&sum->scanned[FILTER_BEST]);
    if ((up < best ? up : best) * 1000 >= runs_cost(s, sum) * SCAN_PAYS[s->level])
        return;
    *p = (plan){up < best ? FILTER_UP : FILTER_BEST, METHOD_SCAN, p->symbols, 0};
    learn_scan_costs(&m->scan, &sum->scanned[p->filter]);
}

/* Tells the search about the image. In 16-bit gray, high bytes repeat with any low ones between them, as a rule. */
static void begin_scan(scanner *scan, const strip *s) {
    scan->pixel_bytes = s->pixel_bytes;
    scan->step = s->pixel_bytes == 2 && s->sample_bytes == 2 ? 1 : s->pixel_bytes;
}

/* Decides for a section. The costs in m->scan are then those of the filter that is taken. */
static plan choose(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part) {
    sample *sum = &m->sum;
    if (s->level < 5 && stream_bytes(s) <= TINY)
        return (plan){FILTER_BEST, METHOD_RUNS, 0, 0};
    begin_scan(&m->scan, s);
    if (s->level < 5 && s->sample_bytes == 2) {
        tile tiles[GLANCES];
        const words_found words = look_at_words(isa, s, b, m, tiles, place_glances(s, part, tiles));
        if (words.repeat && !words.empty) {
            guess_scan_costs(&m->scan);
            m->scan.step = s->sample_bytes;
            return (plan){words.filter, METHOD_GREEDY, words.symbols, 0};
        }
        m->scan.step = words.repeat ? s->pixel_bytes : m->scan.step;
    }
    clear_tiles(m, GLANCE_ROWS * GLANCE_BYTES);
    const int hopeful = glance(isa, s, b, m, part), single = s->level == 1 ? single_filter(isa, s, b, m, part) : FILTER_BEST;
    plan by_glance = plan_runs(s, sum, single);
    if (!hopeful)
        look_at_bands(isa, s, b, m, part, &by_glance);
    if (!hopeful)
        return by_glance;
    const int wide = !is_dense(sum, SPARSE_SYMBOLS);
    const closer_look look = look_closely(isa, s, b, m, part, wide);
    plan p = plan_runs(s, sum, single);
    if (s->level <= 2) { /* the closer look has no single filters */
        p.filter = by_glance.filter;
        p.method = by_glance.method;
    }
    u64 pays = p.symbols < SPARSE_SYMBOLS ? SPARSE_SCAN_PAYS : SCAN_PAYS[s->level];
    if (s->sample_bytes == 2 && s->level < 5 && pays < 1000)
        pays = DEEP_SCAN_PAYS;
    if (s->level < 5 && p.symbols >= DENSE_SYMBOLS && (part.last - part.first) * s->row_bytes < UNSURE_BELOW)
        pays -= UNSURE;
    if (look.cost * 1000 < look.runs * pays) {
        p.method = m->scan.step == 1 && s->level < 5 && s->sample_bytes == 2 ? METHOD_GREEDY : METHOD_SCAN;
        p.plain_may_pay = 0;
        learn_scan_costs(&m->scan, &sum->scanned[look.filter]);
        p.filter = look.filter;
    } else if (s->level >= 5) { /* all matches will be looked for */
        p.filter = look.filter;
    } else {
        look_at_bands(isa, s, b, m, part, &p);
    }
    return p;
}

#endif
