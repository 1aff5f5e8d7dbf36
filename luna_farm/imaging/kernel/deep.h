/* Decides at levels 1 to 4 whether what choose() finds gives way to one of the greedy searches, which begin matches at words
 * or at bytes: for sections of 16 bits, and at levels 3 and 4 for bytes (the last part). Of 16 bits, where there may be
 * something to find, each is tried on bands of the section, and the smallest is taken. */
#ifndef LUNA_DEEP_H
#define LUNA_DEEP_H

#include "choose.h"
#include "words.h"

/* Bands of at most one in BAND_SHARE bytes. What costs so many hundredths of the best is tried no further, once the best has
 * left TELLING of bits. A search must leave at most so many hundredths of what runs do: it takes longer. */
enum { DEEP_BANDS = 4, DEEP_BAND_BYTES = 4096, BAND_SHARE = 32, TRIED_ON = 104, SEARCH_PAYS = 97, TELLING = 24000 * BIT };
enum { MOST_CANDIDATES = 7, NEARLY_EMPTY = 5 };

typedef struct {
    u8 method, filter, step; /* step: of the search */
    int dropped;
    u64 cost;
    histogram sum;
} candidate;

static candidate *propose(candidate *to, int method, int filter, size_t step) {
    memset(to, 0, sizeof *to);
    to->method = (u8)method;
    to->filter = (u8)filter;
    to->step = (u8)step;
    return to + 1;
}

/* What a candidate leaves of a band. */
static void try_candidate(int isa, const strip *s, const row_buffers *b, tile_memory *m, tile t, candidate *c) {
    m->scan.step = c->step;
    if (c->method >= METHOD_SCAN) {
        sample_search(isa, s, b, m, t, c->filter, c->method == METHOD_SCAN ? scan : scan_greedily, &c->sum);
    } else {
        const size_t n = filter_tile(isa, s, b, m, t, c->filter), skipped = uncounted(t);
        add_runs(isa, m, m->stream + skipped, n - skipped, c->method == METHOD_RUNS ? SHORT_RUN : SHORTEST_RUN, &c->sum);
    }
    c->cost = whole_cost(&c->sum);
}

typedef struct {
    tile at[DEEP_BANDS];
    int count;
} bands;

static bands place_bands(const strip *s, section part, size_t share) {
    bands of = {{{0, 0, 0, 0}}, count_tiles(s, part, WIDE_ROWS, DEEP_BAND_BYTES, share, DEEP_BANDS)};
    for (size_t i = 0; i < (size_t)of.count; i++) {
        of.at[i] = place_tile(s, part, (int)i, of.count, WIDE_ROWS, DEEP_BAND_BYTES);
        of.at[i].y = part.first + (part.last - part.first - of.at[i].rows) * (2 * i + 1) / (2 * (size_t)of.count);
    }
    return of;
}

/* The cheapest of the candidates on bands. Runs are taken unless another one gains enough. */
static const candidate *cheapest(int isa, const strip *s, const row_buffers *b, tile_memory *m, const bands *of,
                                 candidate *first, const candidate *end) {
    const candidate *best = NULL;
    for (int i = 0; i < of->count; i++) {
        u64 least = ~0ull;
        for (candidate *c = first; c < end; c++) {
            if (!c->dropped)
                try_candidate(isa, s, b, m, of->at[i], c);
            least = !c->dropped && c->cost < least ? c->cost : least;
        }
        for (candidate *c = first; c < end; c++)
            c->dropped |= least > TELLING && c->cost > least / 100 * TRIED_ON;
    }
    u64 least = ~0ull;
    for (const candidate *c = first; c < end; c++) {
        u64 cost = c->method < METHOD_SCAN ? c->cost / 100 * SEARCH_PAYS : c->cost;
        if (!c->dropped && cost < least)
            best = c, least = cost;
    }
    return best;
}

/* What to do where words may repeat each other, or the usual plan is a search: that is `usual`. */
static plan choose_search(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part, plan usual, int none) {
    static const u8 OTHERS[2] = {FILTER_UP, FILTER_SUB};
    const bands of = place_bands(s, part, BAND_SHARE);
    candidate candidates[MOST_CANDIDATES], other, *end = candidates;
    clear_tiles(m, WIDE_ROWS * DEEP_BAND_BYTES);
    clear_greedy(&m->scan, WIDE_ROWS * DEEP_BAND_BYTES);
    end = propose(end, usual.method, usual.filter, s->pixel_bytes);
    end = propose(end, METHOD_GREEDY, FILTER_BEST, 2);
    end = propose(end, METHOD_GREEDY, FILTER_BEST, 1);
    end = propose(end, METHOD_SCAN, FILTER_BEST, s->pixel_bytes);
    if (usual.method >= METHOD_SCAN)
        end = propose(end, METHOD_RUNS, FILTER_BEST, 1);
    if (none) {
        end = propose(end, METHOD_GREEDY, FILTER_NONE, 2);
        end = propose(end, METHOD_SCAN, FILTER_NONE, s->pixel_bytes);
    }
    candidate best = *cheapest(isa, s, b, m, &of, candidates, end);
    for (int k = 0; k < 2 && best.method == METHOD_GREEDY && best.filter != FILTER_NONE; k++) {
        propose(&other, best.method, OTHERS[k], best.step);
        for (int i = 0; i < of.count && other.cost < best.cost; i++)
            try_candidate(isa, s, b, m, of.at[i], &other);
        if (other.cost < best.cost)
            best = other;
    }
    m->scan.step = best.step;
    if (best.method >= METHOD_SCAN)
        learn_scan_costs(&m->scan, &best.sum);
    return best.method == usual.method && best.filter == usual.filter ? usual : (plan){best.filter, best.method, usual.symbols, 0};
}

/* A section of bytes that the quick search is planned for: whether the greedy one, a byte at a time, leaves at most BYTES_PAY
 * hundredths, since it takes a quarter longer. It does where flat colours have smooth edges, as in cel shading: what repeats there
 * is often less than two pixels, or begins in the midst of one. After each band it is given up if it leaves more than BYTES_HOPE.
 * Where runs leave few symbols, pixels are what repeats (no image of less than BYTES_SYMBOLS gained anything).
 * Few bands mislead: with one, RGBA of 400x400 was 38 % larger. So BYTES_SHARE is large, and pixels of four bytes, of which
 * bands mislead even so and which gain least, keep the quick search. */
enum { BYTES_PAY = 94, BYTES_HOPE = 98, BYTES_FROM = 1 << 18, BYTES_SYMBOLS = 8, BYTES_SHARE = 10, BYTES_MOST_PIXEL = 3 };
static plan choose_bytes(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part, plan usual) {
    const size_t step = m->scan.step;
    const bands of = place_bands(s, part, BYTES_SHARE);
    candidate tried[3], *best = tried;
    m->position = FIRST_POSITION;
    clear_greedy(&m->scan, WIDE_ROWS * DEEP_BAND_BYTES);
    propose(propose(propose(tried, usual.method, usual.filter, step), METHOD_GREEDY, FILTER_UP, 1), METHOD_GREEDY, FILTER_NONE, 1);
    for (int i = 0; i < of.count && !(tried[1].dropped && tried[2].dropped); i++)
        for (candidate *c = tried; c < tried + 3; c++) {
            if (!c->dropped)
                try_candidate(isa, s, b, m, of.at[i], c);
            c->dropped |= c != tried && c->cost > tried[0].cost / 100 * BYTES_HOPE;
        }
    for (candidate *c = tried + 1; c < tried + 3; c++)
        if (!c->dropped && c->cost < (best == tried ? best->cost / 100 * BYTES_PAY : best->cost))
            best = c;
    m->scan.step = best->step;
    learn_scan_costs(&m->scan, best == tried ? &m->sum.scanned[usual.filter] : &best->sum);
    return (plan){best->filter, best->method, usual.symbols, 0};
}

/* Whether a quarter of a section or more is gray that is stored as colours, by so many places of it. Flat ground does not count. */
enum { GRAY_PLACES = 64, GRAY_FROM = GRAY_PLACES / 4 };
static int is_gray(const strip *s, section part) {
    const size_t rows = part.last - part.first, size = s->pixel_bytes, pixels = s->row_bytes / size;
    int gray = 0;
    if (size < 3 || s->sample_bytes != 1 || pixels < 2)
        return 0;
    for (size_t i = 0; i < GRAY_PLACES; i++) {
        const size_t y = part.first + rows * i / GRAY_PLACES, x = 1 + (pixels - 1) * (i * 29 % GRAY_PLACES) / GRAY_PLACES;
        const u8 *p = s->pixels + y * s->row_bytes + size * x;
        gray += p[0] == p[1] && p[1] == p[2] && p[0] != *(p - size);
    }
    return gray >= GRAY_FROM;
}

/* A section with gray in colour that runs alone were planned for. Such a pixel says the same thing three times: as a match with any
 * pixel of its value it takes a third less than as literals, however rough the image (a scanned page, grass), which the first look
 * takes for a photograph. */
static plan choose_gray(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part, plan usual) {
    static const u8 FILTERS[4] = {FILTER_BEST, FILTER_UP, FILTER_SUB, FILTER_NONE};
    const bands of = place_bands(s, part, BAND_SHARE);
    candidate candidates[MOST_CANDIDATES], *end = candidates;
    m->position = FIRST_POSITION;
    clear_tiles(m, WIDE_ROWS * DEEP_BAND_BYTES);
    clear_greedy(&m->scan, WIDE_ROWS * DEEP_BAND_BYTES);
    end = propose(end, usual.method, usual.filter, s->pixel_bytes);
    for (int k = 0; k < 4; k++)
        end = propose(end, METHOD_SCAN, FILTERS[k], s->pixel_bytes);
    const candidate best = *cheapest(isa, s, b, m, &of, candidates, end);
    if (best.method == usual.method)
        return usual;
    m->scan.step = best.step;
    learn_scan_costs(&m->scan, &best.sum);
    return (plan){best.filter, best.method, usual.symbols, 0};
}

/* As choose(), for any section. */
static plan choose_any(int isa, const strip *s, const row_buffers *b, tile_memory *m, section part) {
    if (s->sample_bytes == 1 || s->level >= 5 || stream_bytes(s) <= SMALL) {
        const plan usual = choose(isa, s, b, m, part);
        /* what was counted for `usual` is still in m->sum, so that a search which is not replaced starts as it would have */
        const int may_pay = s->level > 2 && s->level < 5 && usual.method == METHOD_SCAN && usual.symbols >= BYTES_SYMBOLS &&
                            usual.symbols < PLAIN_SYMBOLS && s->pixel_bytes <= BYTES_MOST_PIXEL &&
                            (part.last - part.first) * s->row_bytes >= BYTES_FROM;
        if (s->level < 5 && usual.method < METHOD_SCAN && stream_bytes(s) > TINY && is_gray(s, part))
            return choose_gray(isa, s, b, m, part, usual);
        return may_pay ? choose_bytes(isa, s, b, m, part, usual) : usual;
    }
    tile tiles[GLANCES];
    begin_scan(&m->scan, s);
    const words_found words = look_at_words(isa, s, b, m, tiles, place_glances(s, part, tiles));
    const plan runs = {FILTER_BEST, METHOD_RUNS, words.symbols, 0};
    const plan usual = words.repeat && !words.empty ? runs : choose(isa, s, b, m, part);
    if ((!words.repeat && usual.method < METHOD_SCAN) || usual.symbols < NEARLY_EMPTY)
        return usual;
    return choose_search(isa, s, b, m, part, usual, words.filter == FILTER_NONE);
}

#endif
