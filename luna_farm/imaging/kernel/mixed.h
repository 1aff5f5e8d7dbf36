/* Text, drawings and screens beside photographs: blocks that are searched although runs alone were planned for their section.
 *
 * A plan is made for a section by a few tiles of it, and a narrow picture or a large page shows them too little. What those
 * tiles missed shows in the runs of each block: in text a run ends where something else begins, in a photograph where a
 * smooth area goes on a little brighter. That costs no further look at the pixels. Where many runs end sharply, a part of
 * the block is searched, after the best filter of each row, and so is the block if that gains enough. */
#ifndef LUNA_MIXED_H
#define LUNA_MIXED_H

#include "workspace.h"

/* A run ends sharply where the next byte differs by SHARP or more. A block has many of those if there is one in SHARP_EVERY
 * bytes (of LONG_RUN, of which there are fewer: in SHARP_LONG_EVERY). Of 490 blocks of photographs to tune on 18 have: ten of
 * upscaled squares, where a search gains nothing, and eight where it gains 2 % or more, as it does in 86 of 100 of the other blocks
 * that have. One part in PARTS_OF_BLOCK is tried first. */
enum { SHARP = 12, SHARP_EVERY = 5000, SHARP_LONG_EVERY = 16000, PARTS_OF_BLOCK = 8 };
/* A photograph is not to wait for this, so one edge in LOOKED_AT is looked at: the end of every fourth run. */
enum { LOOKED_AT = EDGES_AFTER }; /* notes end with as many that stop the walk */
/* What a search must leave of what runs do, in thousandths, on the part that is tried; and a greedy one, which takes longer, of
 * what the quick one leaves. It is not tried where that leaves HOPELESS thousandths of runs. */
static const u16 SEARCH_LEAVES[5] = {0, 930, 950, 975, 985};
enum { GREEDY_LEAVES = 980, HOPELESS = 1030 };

/* Counts sharp ends of runs, as find_runs() left them in `edge`. Returns the part of the block that has most of them, or -1
 * where there are few. */
static int sharpest_part(const u8 *data, size_t n, const u32 *edge, int least) {
    size_t sharp[PARTS_OF_BLOCK] = {0}, sum = 0;
    const size_t every = least == LONG_RUN ? SHARP_LONG_EVERY : SHARP_EVERY;
    int most = 0;
    for (const u32 *end = edge + 1; *end < n; end += LOOKED_AT)
        if ((u8)(data[*end] - data[*end - 1] + SHARP - 1) > 2 * SHARP - 2)
            sharp[*end * PARTS_OF_BLOCK / n]++;
    for (int i = 0; i < PARTS_OF_BLOCK; i++) {
        sum += sharp[i];
        if (sharp[i] > sharp[most])
            most = i;
    }
    return sum * every * (LOOKED_AT / 2) < n ? -1 : most;
}

/* Begins a search anew, through so many bytes. */
static void forget_places(workspace *w, const strip *s, int method, size_t bytes) {
    scanner *scan = &w->tiles->scan;
    (method == METHOD_SCAN ? clear_scan : clear_greedy)(scan, bytes);
    scan->pixel_bytes = s->pixel_bytes;
    scan->step = method == METHOD_SCAN ? s->pixel_bytes : 1;
    scan->stride = s->row_bytes + 1;
    scan->start = FIRST_POSITION;
}

/* Searches data[0..n), whole rows, into the empty sequence. Returns about what is left; `h` counts it. */
static u64 search_rows(workspace *w, int method, const u8 *data, size_t n, u32 position, histogram *h) {
    clear_sequence(&w->waiting);
    (method == METHOD_SCAN ? scan : scan_greedily)(w->isa, &w->tiles->scan, data, n, position, 0, &w->waiting);
    count_sequence(h, &w->waiting);
    return whole_cost(h);
}

/* Which search pays for a part of a block, or METHOD_RUNS. */
static int try_part(workspace *w, const strip *s, u8 *block, size_t n, u32 position, int part, int least) {
    const size_t stride = s->row_bytes + 1, rows = n / stride, parts = rows < PARTS_OF_BLOCK ? 1 : PARTS_OF_BLOCK;
    const size_t first = parts == 1 ? 0 : rows * (size_t)part / parts, bytes = rows / parts * stride;
    u8 *data = block + first * stride;
    histogram h, found;
    count_runs(&h, data, bytes, w->tokens, find_runs(w->isa, data, bytes, least, w->covered, w->edges, w->tokens), 0);
    const u64 runs = whole_cost(&h);
    learn_scan_costs(&w->tiles->scan, &h);
    forget_places(w, s, METHOD_SCAN, bytes);
    const u64 quick = search_rows(w, METHOD_SCAN, data, bytes, position + (u32)(first * stride), &found);
    u64 greedy = quick;
    int method = METHOD_SCAN;
    if (s->level > 2 && quick * 1000 < runs * HOPELESS) {
        learn_scan_costs(&w->tiles->scan, &found);
        forget_places(w, s, METHOD_GREEDY, bytes);
        greedy = search_rows(w, METHOD_GREEDY, data, bytes, position + (u32)(first * stride), &h);
        if (greedy * 1000 < quick * GREEDY_LEAVES)
            method = METHOD_GREEDY;
    }
    if ((method == METHOD_GREEDY ? greedy : quick) * 1000 >= runs * SEARCH_LEAVES[s->level])
        return METHOD_RUNS;
    learn_scan_costs(&w->tiles->scan, method == METHOD_GREEDY ? &h : &found);
    forget_places(w, s, method, (s->last_row - s->first_row) * stride);
    return method;
}

#endif
