/* Decides by a sample how a section of an image is compressed: which filter, and whether to look for matches.
 *
 * Photographs hold no repetition after filtering but runs; then the cheapest filter for each row and runs alone are best,
 * at three gigabytes a second. What was drawn, rendered or computed repeats itself, often best in unfiltered pixels or
 * after Up. Which of them it is, and by how much, is measured on small tiles spread over the section: each is filtered in
 * every way and scanned. A first look at a few small tiles lets photographs and noise pass.
 *
 * What is looked at is a share of the section, so that a small image does not wait for its own sample. */
#ifndef LUNA_CHOOSE_H
#define LUNA_CHOOSE_H

#include "tiles.h"

/* Bands of dense images; of less than BANDS_FROM bytes they would take too much of the time. */
enum { BANDS = 3, BAND_ROWS = 8, BAND_BYTES = 4096, BANDS_FROM = 1 << 19, BAND_HOPE = 1020, FEW_ROWS = 4 };
/* After so many small tiles, where runs leave so many symbols, matches that can begin in fewer places of 100 or that cost
 * so many thousandths are tried no further. */
enum { QUICK_GLANCES = 2, QUICK_DENSE = 50, QUICK_HITS = 12, FLAT = 45 };

/* Level 1 has one filter for all rows, which a few small tiles choose. Where so many places of 100 are flat, the rest of the section
 * may be nothing like those tiles: each row gets its best filter, and runs of SHORT_RUN. */
enum { UNEVEN = 25 };

/* Small images get few tiles, and those may all miss the text beside a photograph. One that is flat in many places is searched
 * unless its tiles cost so many thousandths of what runs leave of them. */
enum { MIXED_BELOW = 2 << 20, MIXED_PAYS = 1060 };

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

/* Tells the search about the image. In 16-bit gray, high bytes repeat with any low ones between them. */
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
    clear_tiles(m, GLANCE_ROWS * GLANCE_BYTES);
    const int hopeful = glance(isa, s, b, m, part), single = s->level == 1 ? single_filter(isa, s, b, m, part) : FILTER_BEST;
    plan by_glance = plan_runs(s, sum, single);
    if (s->level == 1 && by_glance.method == METHOD_RUNS && flat_share(s, part) >= UNEVEN) {
        by_glance.filter = FILTER_BEST;
        by_glance.method = METHOD_SHORT_RUNS;
    }
    if (!hopeful)
        look_at_bands(isa, s, b, m, part, &by_glance);
    if (!hopeful)
        return by_glance;
    const int wide = !is_dense(sum, SPARSE_SYMBOLS);
    const closer_look look = look_closely(isa, s, b, m, part, wide);
    plan p = plan_runs(s, sum, single);
    if (s->level < 5)
        p.symbols = look.symbols;
    if (s->level <= 2) { /* the closer look has no single filters */
        p.filter = by_glance.filter;
        p.method = by_glance.method;
    }
    u64 pays = scan_pays(s->level, p.symbols);
    if (s->level < 5 && p.symbols >= DENSE_SYMBOLS && (part.last - part.first) * s->row_bytes < UNSURE_BELOW)
        pays -= UNSURE;
    if (s->level < 5 && pays < MIXED_PAYS && (part.last - part.first) * s->row_bytes < MIXED_BELOW && flat_share(s, part) >= FLAT)
        pays = MIXED_PAYS;
    if (look.cost * 1000 < look.runs * pays) {
        p.method = METHOD_SCAN;
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
