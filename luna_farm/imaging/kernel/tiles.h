/* The closer look: larger tiles, or bands of whole rows, in every way of filtering. */
#ifndef LUNA_TILES_H
#define LUNA_TILES_H

#include "weigh.h"

/* Tiles in a large section, and a smaller one's share of its bytes. */
enum { SECTION_BYTES = 4 << 20, TILES = 10, TILE_SHARE = 8, GLANCES = 6, GLANCE_SHARE = 128, WIDES = 4, WIDE_SHARE = 4 };
/* Bytes of an image that is sent sooner than any look at it ends, and of one that is looked at by two filters alone. */
enum { TINY = 512, SMALL = 4096 };
/* A filter is tried no further while another one is ahead even if what the first has not seen gains one part in LUCK more than
 * anything seen so far. Sampling ends when all is seen; when the best filter has left so many symbols, since then more tells
 * little; when after so many tiles it comes to less than so many hundredths of runs; or when after so many there is no hope. */
enum { LUCK = 12, PARTS = 4096, ENOUGH_SYMBOLS = 8000, SETTLED_TILES = 2, SETTLED = 85, HOPELESS_TILES = 7, NONE_GAINS = 97 };

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

/* What the larger tiles told: the best filter, what it leaves with matches, what runs leave of the tiles that it saw, and the
 * symbols that they leave of 100 bytes of all tiles. */
typedef struct {
    int filter;
    u64 cost, runs;
    unsigned symbols;
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
    closer_look look = {f, r.cost[f], runs_cost(s, sum), (unsigned)(symbols_of(&sum->runs) * 100 / sum->bytes)};
    if (r.done[f] < r.tiles)
        look.runs = count_again(isa, s, b, m, tiles, r.done[f], wide);
    return look;
}

#endif
