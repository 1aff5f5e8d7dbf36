/* Chooses which matches to send: the cheapest path through a block by the costs of its own Huffman codes. */
#ifndef LUNA_PARSE_H
#define LUNA_PARSE_H

#include "block.h"
#include "costs.h"
#include "matches.h"

/* What the parser needs beside the block: for n bytes, n + 1 of each but `found`, which has 2 * n + MOST_FOUND. */
typedef struct {
    chains links;
    costs cost;
    int is_set; /* whether `cost` holds what the block before led to */
    u32 *path_cost; /* of the cheapest path from a position to the end */
    u8 *many; /* how many matches a position has; `found` holds them one after the other */
    match *parse_step; /* the first step of the cheapest path; length 1: a literal */
    match *found;
} parser;

/* Costs for a first block: its bytes as literals, and matches as they usually come out. */
static void guess_costs(costs *p, const u8 *data, size_t n) {
    token all = {(u32)n, 0, 0};
    histogram h;
    count_tokens(&h, data, &all, 1);
    for (int i = 257; i < LITLEN_SYMBOLS; i++)
        h.litlen[i] = (u32)(n / 400 + 1);
    for (int i = 0; i < DIST_SYMBOLS; i++)
        h.dist[i] = 1;
    set_costs(p, &h);
}

/* Costs of the literals up to each position. */
static void sum_literals(const costs *cost, const u8 *data, size_t n, u32 *sum) {
    sum[0] = 0;
    for (size_t i = 0; i < n; i++)
        sum[i + 1] = sum[i] + cost->literal[data[i]];
}

/* Finds the matches at the positions of data[0..n), which stands at `position`: at all of them but those inside a match
 * that is nice enough, and, where nothing pays for long, ever fewer. Returns how many. data[n .. n + 8) is readable. */
static size_t find_all(parser *p, const u8 *data, size_t n, u32 position, const effort *how) {
    size_t used = 0, room = 2 * n, misses = 0;
    u32 *sum = p->path_cost; /* not needed until the path is looked for */
    sum_literals(&p->cost, data, n, sum);
    memset(p->many, 0, n);
    for (size_t i = 0; i + 8 <= n && used < room;) {
        unsigned limit = n - i < MAX_MATCH ? (unsigned)(n - i) : MAX_MATCH;
        unsigned count = find_matches(&p->links, data + i, position + (u32)i, limit, how, p->found + used);
        p->many[i] = (u8)count;
        used += count;
        if (count) {
            match longest = p->found[used - 1];
            u32 cost = p->cost.length[longest.length] + p->cost.dist[dist_slot(longest.distance + 1u)];
            misses = sum[i + longest.length] - sum[i] > cost ? 0 : misses + 1;
            if (longest.length >= how->nice) {
                size_t end = i + longest.length;
                for (i++; i < end; i++)
                    if (n - i >= 8)
                        remember(&p->links, hash_of(hashed_bytes(data + i)), position + (u32)i);
                continue;
            }
        } else {
            misses++;
        }
        i += 1 + (misses >> how->patience);
    }
    return used;
}

/* The cheapest path from each position to the end, from the last one back. */
static void find_path(parser *p, const u8 *data, size_t n, size_t used) {
    const costs *cost = &p->cost;
    const match *found = p->found + used;
    u32 *path_cost = p->path_cost, next = 0;
    path_cost[n] = 0;
    for (size_t i = n; i-- > 0;) {
        u32 best = cost->literal[data[i]] + next;
        match parse_step = {1, 0};
        unsigned many = p->many[i];
        if (many) {
            unsigned length = HASHED;
            found -= many;
            for (unsigned k = 0; k < many; k++) {
                u32 far = cost->dist[dist_slot(found[k].distance + 1u)];
                for (; length <= found[k].length; length++) {
                    u32 whole = far + cost->length[length] + path_cost[i + length];
                    if (whole < best) {
                        best = whole;
                        parse_step = (match){(u16)length, found[k].distance};
                    }
                }
            }
        }
        path_cost[i] = next = best;
        p->parse_step[i] = parse_step;
    }
}

static size_t take_path(const parser *p, size_t n, token *tokens) {
    size_t count = 0;
    u32 literals = 0;
    for (size_t i = 0; i < n; i += p->parse_step[i].length) {
        if (p->parse_step[i].length == 1) {
            literals++;
        } else {
            tokens[count++] = (token){literals, p->parse_step[i].length, p->parse_step[i].distance};
            literals = 0;
        }
    }
    tokens[count++] = (token){literals, 0, 0};
    return count;
}

/* The match at p that saves the most against literals, whose costs up to each position are summed in `sum`; length 0
 * and 0 saved if none does. Remembers the position. */
INLINE match best_match(parser *p, const u8 *at, const u32 *sum, u32 position, unsigned limit, unsigned depth,
                        u32 *saved) {
    u64 bytes = hashed_bytes(at);
    u32 hash = hash_of(bytes), candidate = p->links.head[hash];
    match best = {0, 0};
    *saved = 0;
    remember(&p->links, hash, position);
    for (; depth; depth--) {
        u32 distance = position - candidate;
        const u8 *q = at - (distance < WINDOW ? distance : WINDOW);
        if ((hashed_bytes(q) == bytes) & (distance - 1 < WINDOW)) {
            unsigned length = equal_bytes(at, q, limit);
            u32 cost = p->cost.length[length] + p->cost.dist[dist_slot(distance)], literals = sum[length] - sum[0];
            if (literals > cost + *saved) {
                *saved = literals - cost;
                best = (match){(u16)length, (u16)(distance - 1)};
            }
        }
        candidate = p->links.earlier[candidate % WINDOW];
    }
    return best;
}

/* The quick way: the first match that saves anything, unless the next position has one that saves more. Where nothing
 * is found for long, positions are skipped, ever more of them. */
static size_t go_quickly(parser *p, const u8 *data, size_t n, u32 position, const effort *how, token *tokens) {
    u32 *sum = p->path_cost;
    size_t count = 0, taken = 0, i = 0, misses = 0;
    sum_literals(&p->cost, data, n, sum);
    while (i + 8 < n) {
        u32 saved, saved_next;
        unsigned limit = n - i < MAX_MATCH ? (unsigned)(n - i) : MAX_MATCH;
        match m = best_match(p, data + i, sum + i, position + (u32)i, limit, how->depth, &saved);
        if (!saved) {
            i += 1 + (misses++ >> how->patience);
            continue;
        }
        if (m.length < how->nice && i + 9 < n) {
            unsigned limit_next = n - i - 1 < MAX_MATCH ? (unsigned)(n - i - 1) : MAX_MATCH;
            match next = best_match(p, data + i + 1, sum + i + 1, position + (u32)i + 1, limit_next, how->depth,
                                    &saved_next);
            if (saved_next > saved) {
                m = next;
                i++;
            }
        }
        tokens[count++] = (token){(u32)(i - taken), m.length, m.distance};
        taken = i + m.length;
        for (i += 2; i < taken; i++)
            if (n - i >= 8)
                remember(&p->links, hash_of(hashed_bytes(data + i)), position + (u32)i);
        i = taken;
        misses = 0;
    }
    tokens[count++] = (token){(u32)(n - taken), 0, 0};
    return count;
}

/* Splits data[0..n), which stands at `position`, into tokens and counts them in `h`. Returns the number of tokens, at
 * most n / HASHED + 1. The bytes before, back to position WINDOW or WINDOW bytes of them, are readable. */
static size_t find_tokens(parser *p, const u8 *data, size_t n, u32 position, const effort *how, token *tokens,
                          histogram *h) {
    size_t count = 0;
    if (!p->is_set)
        guess_costs(&p->cost, data, n);
    if (!how->passes) {
        count = go_quickly(p, data, n, position, how, tokens);
        count_tokens(h, data, tokens, count);
        set_costs(&p->cost, h);
        p->is_set = 1;
        return count;
    }
    size_t used = find_all(p, data, n, position, how);
    for (unsigned pass = 0; pass < how->passes; pass++) {
        find_path(p, data, n, used);
        count = take_path(p, n, tokens);
        count_tokens(h, data, tokens, count);
        set_costs(&p->cost, h);
    }
    p->is_set = 1;
    return count;
}

#endif
