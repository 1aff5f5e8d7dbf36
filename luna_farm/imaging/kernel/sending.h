/* One block of filtered bytes in each of the ways that a plan may say. */
#ifndef LUNA_SENDING_H
#define LUNA_SENDING_H

#include "mixed.h"

/* What levels 5 to 9 do where the kernel's own parser serves; see effort. */
static const effort EFFORTS[10] = {
    [5] = {.depth = 2, .nice = 32, .passes = 0, .patience = 5},
    [6] = {.depth = 8, .nice = 48, .passes = 1, .patience = 7},
    [7] = {.depth = 12, .nice = 64, .passes = 2, .patience = 7},
    [8] = {.depth = 24, .nice = 96, .passes = 2, .patience = 7},
    [9] = {.depth = 32, .nice = 128, .passes = 3, .patience = 7},
};

/* Sends a block with runs alone, the shortest of `least` bytes, which are found and, unless thinned, counted in `h`. */
static void put_found_runs(workspace *w, const strip *s, const u8 *data, size_t n, size_t count, int least, bitstream *bits, int final) {
    histogram h;
    const unsigned thin = n < SAMPLED_BYTES ? 0 : s->level <= 3 ? 4 : 3;
    count_runs(&h, data, n, w->tokens, count, thin);
    put_block(w->isa, bits, w->book, &h, data, n, w->tokens, count, w->covered, least, final);
}

/* Searches whole rows that runs alone were planned for, in pieces of which each goes out in the smaller way: so codes and costs
 * follow what changes from piece to piece. Returns how many bytes are literals, about. */
static size_t put_mixed(workspace *w, const strip *s, u8 *data, size_t n, u32 position, int least, bitstream *bits, int final) {
    const size_t stride = s->row_bytes + 1, pieces = (n + SMALL_BLOCK_BYTES / 2) / SMALL_BLOCK_BYTES, rows = n / stride;
    const size_t most = rows / (pieces < 1 ? 1 : pieces) * stride;
    histogram runs, h;
    u64 sum = 0, less = 0;
    size_t literals = 0;
    for (size_t at = 0; at < n;) {
        const size_t piece = n - at < most + most / 2 ? n - at : most;
        const int last = final && at + piece == n;
        size_t count = find_runs(w->isa, data + at, piece, least, w->covered, w->edges, w->tokens);
        count_runs(&runs, data + at, piece, w->tokens, count, 0);
        const u64 cost = whole_cost(&runs), found = search_rows(w, w->mixed, data + at, piece, position + (u32)at, &h);
        literals += found < cost ? w->waiting.literal_count : piece;
        if (found < cost) {
            put_sequence(w->isa, bits, w->book, &w->waiting, &h, data + at, last);
            learn_scan_costs(&w->tiles->scan, &h);
        } else {
            clear_sequence(&w->waiting);
            count = find_runs(w->isa, data + at, piece, least, w->covered, w->edges, w->tokens);
            put_block(w->isa, bits, w->book, &runs, data + at, piece, w->tokens, count, w->covered, least, last);
        }
        sum += cost;
        less += found < cost ? found : cost;
        at += piece;
    }
    if (less * 1000 >= sum * SEARCH_LEAVES[s->level]) {
        w->mixed = METHOD_RUNS;
        w->pause = w->pauses = 2 * w->pauses + 1;
    } else {
        w->pauses = 0;
    }
    return literals;
}

enum { RUNS_STAND, RUNS_LOST, MIXED };

/* Whether a block is to be searched though runs alone were planned: MIXED, and it is filtered by the best filter of each row; else
 * whether a trial wrote over its runs. */
static int look_for_mixture(workspace *w, const strip *s, cursor from, u8 *data, size_t n, u32 position, int least) {
    const int refiltered = w->plan.filter != FILTER_BEST;
    cursor at = from;
    if (s->sample_bytes != 1 || from.done || n % (s->row_bytes + 1))
        return RUNS_STAND;
    const int part = sharpest_part(data, n, w->edges, least);
    if (part < 0)
        return RUNS_STAND;
    if (w->pause) {
        w->pause--;
        return RUNS_STAND;
    }
    if (open_literals(w) != LUNA_OK)
        return RUNS_STAND; /* runs need no further memory */
    if (refiltered)
        fill_block(w->isa, s, &w->rows, &at, FILTER_BEST, data, n);
    if (w->mixed == METHOD_RUNS)
        w->mixed = try_part(w, s, data, n, position, part, least);
    if (w->mixed != METHOD_RUNS)
        return MIXED;
    clear_sequence(&w->waiting);
    w->pause = w->pauses = 2 * w->pauses + 1;
    at = from;
    if (refiltered)
        fill_block(w->isa, s, &w->rows, &at, w->plan.filter, data, n);
    return RUNS_LOST;
}

/* Sends a block with runs alone, or whatever its runs ask for. */
static void put_runs(workspace *w, const strip *s, cursor from, u8 *data, size_t n, u32 position, bitstream *bits, int final) {
    const int quick = s->level <= 2, shorter = w->plan.method == METHOD_SHORT_RUNS;
    const int least = quick ? (shorter ? SHORT_RUN : LONG_RUN) : (shorter ? SHORTEST_RUN : SHORT_RUN);
    size_t count = find_runs(w->isa, data, n, least, w->covered, w->edges, w->tokens);
    const int found = look_for_mixture(w, s, from, data, n, position, least);
    if (found == MIXED) {
        put_mixed(w, s, data, n, position, least, bits, final);
        return;
    }
    if (found == RUNS_LOST)
        count = find_runs(w->isa, data, n, least, w->covered, w->edges, w->tokens);
    put_found_runs(w, s, data, n, count, least, bits, final);
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

/* Sends a block that the plan's filter does not suit as what is mixed: each piece in the best way for it. `refill`: it is filtered
 * by the plan. */
static void put_misled(workspace *w, const strip *s, cursor from, u8 *data, size_t n, u32 position, int refill, bitstream *bits,
                       int final) {
    const size_t step = w->tiles->scan.step;
    if (w->waiting.bytes)
        put_waiting(w, NULL, 0, bits, 0);
    if (refill)
        fill_block(w->isa, s, &w->rows, &from, FILTER_BEST, data, n);
    if (w->mixed == METHOD_RUNS)
        w->mixed = try_part(w, s, data, n, position, PARTS_OF_BLOCK / 2, SHORT_RUN);
    if (w->mixed == METHOD_RUNS)
        w->mixed = METHOD_SCAN;
    clear_sequence(&w->waiting);
    w->misled = put_mixed(w, s, data, n, position, SHORT_RUN, bits, final) * REPETITIVE > n;
    if (!w->misled) {
        forget_places(w, s, w->plan.method, (s->last_row - s->first_row) * (s->row_bytes + 1));
        w->tiles->scan.step = step;
    }
}

/* Searches data[0..n), a block that begins at `from`, and sends what waits. */
static luna_status put_searched(workspace *w, const strip *s, cursor from, u8 *data, size_t n, u32 position, size_t row_end,
                                bitstream *bits, int final) {
    search *const find = w->plan.method == METHOD_SCAN ? scan : scan_greedily;
    const section part = {from.y, from.y + n / (s->row_bytes + 1)};
    const int whole_rows = from.done == 0 && n % (s->row_bytes + 1) == 0, bytes = s->sample_bytes == 1;
    if (open_literals(w) != LUNA_OK)
        return LUNA_NO_MEMORY;
    if (w->misled && whole_rows && bytes) {
        put_misled(w, s, from, data, n, position, 0, bits, final);
        return LUNA_OK;
    }
    const sequence before = w->waiting;
    find(w->isa, &w->tiles->scan, data, n, position, row_end, &w->waiting);
    if (w->misled) {
        w->misled = (w->waiting.literal_count - before.literal_count) * REPETITIVE > n;
    } else if (w->plan.filter != FILTER_BEST && whole_rows && is_misled(w, s, &before, part, n)) {
        w->misled = 1;
        w->waiting = before;
        if (bytes) {
            put_misled(w, s, from, data, n, position, 1, bits, final);
            return LUNA_OK;
        }
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
        put_runs(w, s, from, data, n, position, bits, final);
    }
    return LUNA_OK;
}

#endif
