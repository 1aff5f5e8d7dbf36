/* What symbols cost to send, by the statistics of a block. */
#ifndef LUNA_COSTS_H
#define LUNA_COSTS_H

#include "codebook.h"

/* Costs are in sixteenths of a bit: Huffman codes have whole bits, but the next pass may shift them. */
enum { BIT = 16 };

typedef struct {
    u32 literal[256], length[MAX_MATCH + 1], dist[DIST_SYMBOLS];
} costs;

/* BIT * log2(v) for 1 <= v < 2^31; off by at most a hundredth of a bit. Without a branch, so that compilers do many at a
 * time: the exponent and the fraction stand in a float's own bits (IEEE 754). */
INLINE u32 log2_cost(u32 v) {
    float m = (float)(int32_t)v;
    u32 bits, one = 127u << 23;
    memcpy(&bits, &m, sizeof bits);
    float top = (float)(int32_t)(bits >> 23) - 127.0f;
    bits = (bits & 0x7fffff) | one;
    memcpy(&m, &bits, sizeof m);
    return (u32)(int32_t)((float)BIT * (top + (2.0f - m / 3.0f) * m - 5.0f / 3.0f) + 0.5f);
}

/* The cost of each symbol of an alphabet; one that was never used costs as if it were used half a time. */
static void cost_symbols(const u32 *count, int symbols, u32 *cost) {
    u32 total = 0;
    for (int i = 0; i < symbols; i++)
        total += count[i];
    u32 whole = log2_cost(2 * total + 1);
    for (int i = 0; i < symbols; i++) {
        u32 one = whole - log2_cost(2 * count[i] + (count[i] == 0));
        cost[i] = one < BIT ? BIT : one > MAX_BITS * BIT ? MAX_BITS * BIT : one;
    }
}

static void set_costs(costs *p, const histogram *h) {
    u32 litlen[LITLEN_SYMBOLS];
    cost_symbols(h->litlen, LITLEN_SYMBOLS, litlen);
    cost_symbols(h->dist, DIST_SYMBOLS, p->dist);
    memcpy(p->literal, litlen, sizeof p->literal);
    for (int length = MIN_MATCH; length <= MAX_MATCH; length++)
        p->length[length] = litlen[257 + length_slot[length]] + BIT * LENGTH_EXTRA[length_slot[length]];
    for (unsigned slot = 0; slot < DIST_SYMBOLS; slot++)
        p->dist[slot] += BIT * dist_extra(slot);
}

/* About the size, in sixteenths of a bit, of what a histogram counts, by its own costs. */
static u64 whole_cost(const histogram *h) {
    u32 litlen[LITLEN_SYMBOLS], dist[DIST_SYMBOLS];
    u64 sum = h->extra_bits * BIT;
    cost_symbols(h->litlen, LITLEN_SYMBOLS, litlen);
    cost_symbols(h->dist, DIST_SYMBOLS, dist);
    for (int i = 0; i < LITLEN_SYMBOLS; i++)
        sum += (u64)h->litlen[i] * litlen[i];
    for (int i = 0; i < DIST_SYMBOLS; i++)
        sum += (u64)h->dist[i] * dist[i];
    return sum;
}

static void add_histogram(histogram *sum, const histogram *h) {
    for (int i = 0; i < LITLEN_SYMBOLS; i++)
        sum->litlen[i] += h->litlen[i];
    for (int i = 0; i < DIST_SYMBOLS; i++)
        sum->dist[i] += h->dist[i];
    sum->extra_bits += h->extra_bits;
}

#endif
