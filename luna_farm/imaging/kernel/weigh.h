/* Weighs by the statistics of a sample what runs alone and what matches would leave. */
#ifndef LUNA_WEIGH_H
#define LUNA_WEIGH_H

#include "sample.h"

enum { METHOD_RUNS, METHOD_SHORT_RUNS, METHOD_SCAN, METHOD_GREEDY };

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
/* Of so few bytes a sample may be wrong by a hundredth or two. */
enum { FEW_BYTES = 4096, FEW_BYTES_PAY = 960 };
/* What short runs must leave of what long ones do, in hundredths, for levels 1 and 2. */
enum { LONG_RUNS_COST_1 = 95, LONG_RUNS_COST_2 = 97 };
/* Of a small dense image a few tiles are all that there is time for; matches must promise so much more there. */
enum { UNSURE_BELOW = 1 << 18, UNSURE = 40 };
enum { DENSE_SYMBOLS = 40, SPARSE_SYMBOLS = 20, SPARSE_SCAN_PAYS = 1050 };
/* What no filter must come to after some tiles, in thousandths of runs, for the search to go on. */
enum { QUICK_PAYS = 1020 };

/* Whether shorter runs than a level usually has gain enough for their time: SHORTEST_RUN over SHORT_RUN, and at levels 1
 * and 2 SHORT_RUN, with the best filter of each row, over LONG_RUN as `filter` leaves it. Entropy does not tell: where most
 * bytes are 0, one costs a whole bit as a literal, and two bits when runs have taken most of them. */
static int short_runs_pay(const strip *s, const sample *sum, int filter) {
    const histogram *runs = &sum->runs, *other = &sum->other_runs;
    if (s->level > 2)
        return (u64)(other->dist[0] - runs->dist[0]) * 1000 >= sum->bytes * SHORT_RUNS_NEED &&
               exact_bits(other) * 1000 < exact_bits(runs) * (sum->bytes < FEW_BYTES ? FEW_BYTES_PAY : SHORT_RUNS_PAY);
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

/* What SCAN_PAYS is for larger tiles. The fewer symbols runs leave, the more is gained from what lies before a tile and is not
 * seen by it: all of that up to SPARSE_SYMBOLS, nothing from DENSE_SYMBOLS on. */
static u64 scan_pays(int level, unsigned symbols) {
    const u64 dense = SCAN_PAYS[level], sparse = SPARSE_SCAN_PAYS;
    if (symbols < SPARSE_SYMBOLS)
        return sparse;
    if (symbols >= DENSE_SYMBOLS || level < 3 || level >= 5)
        return dense;
    return dense + (sparse - dense) * (DENSE_SYMBOLS - symbols) / (DENSE_SYMBOLS - SPARSE_SYMBOLS);
}

/* Whether matches in the tiles looked at come to at most so many thousandths of runs alone. */
static int matches_pay(const strip *s, const sample *sum, u64 thousandths) {
    const histogram *up_sum = &sum->scanned[FILTER_UP], *none_sum = &sum->scanned[FILTER_NONE];
    u64 up = up_sum->litlen[END_OF_BLOCK] ? whole_cost(up_sum) : ~0ull;
    u64 none = none_sum->litlen[END_OF_BLOCK] ? whole_cost(none_sum) : ~0ull;
    return (up < none ? up : none) * 1000 < runs_cost(s, sum) * thousandths;
}

#endif
