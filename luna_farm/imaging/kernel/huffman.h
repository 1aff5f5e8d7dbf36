/* Huffman codes for deflate: optimal code lengths under a limit, canonical codes, and the header that
 * describes them (RFC 1951, 3.2.2 and 3.2.7). */
#ifndef LUNA_HUFFMAN_H
#define LUNA_HUFFMAN_H

#include "common.h"

enum { LITLEN_SYMBOLS = 286, DIST_SYMBOLS = 30, MAX_SYMBOLS = 288, MAX_BITS = 15, PRECODE_BITS = 7, RADIX_PAYS = 32 };

/* Sorts the symbols with a count by it, least first, ties by symbol. Returns how many there are. A block's code of
 * distances has one symbol as a rule, and that of code lengths a dozen. */
static int sort_symbols(const u32 *count, int symbols, u16 *order) {
    u16 spare[MAX_SYMBOLS];
    int used = 0;
    u32 all = 0; /* the bits that any count has */
    for (int s = 0; s < symbols; s++) {
        order[used] = (u16)s;
        used += count[s] != 0;
        all |= count[s];
    }
    if (used < RADIX_PAYS) {
        for (int i = 1, j; i < used; i++) {
            u16 symbol = order[i];
            for (j = i; j > 0 && count[order[j - 1]] > count[symbol]; j--)
                order[j] = order[j - 1];
            order[j] = symbol;
        }
        return used;
    }
    u16 *from = order, *to = spare;
    for (unsigned shift = 0; shift < 32 && all >> shift; shift += 8) { /* radix sort: a pass for each byte of the counts */
        u16 start[257] = {0};
        for (int i = 0; i < used; i++)
            start[((count[from[i]] >> shift) & 255) + 1]++;
        for (int i = 0; i < 256; i++)
            start[i + 1] = (u16)(start[i + 1] + start[i]);
        for (int i = 0; i < used; i++)
            to[start[(count[from[i]] >> shift) & 255]++] = from[i];
        u16 *swap = from;
        from = to;
        to = swap;
    }
    if (from != order)
        memcpy(order, from, (size_t)used * sizeof *order);
    return used;
}

/* Depths of a Huffman tree over sorted weights by the two-queue method. Returns the greatest depth. */
static int tree_depths(const u32 *weight, int n, u8 *depth) {
    u32 inner[MAX_SYMBOLS]; /* weights of the joints, which come out in ascending order */
    u16 parent[2 * MAX_SYMBOLS], level[2 * MAX_SYMBOLS];
    int leaf = 0, joint = 0;
    for (int made = 0; made < n - 1; made++) {
        u32 sum = 0;
        for (int k = 0; k < 2; k++) {
            int pick_leaf = leaf < n && (joint >= made || weight[leaf] <= inner[joint]);
            sum += pick_leaf ? weight[leaf] : inner[joint];
            parent[pick_leaf ? leaf++ : n + joint++] = (u16)(n + made);
        }
        inner[made] = sum;
    }
    level[2 * n - 2] = 0;
    for (int i = 2 * n - 3; i >= 0; i--)
        level[i] = (u16)(level[parent[i]] + 1);
    int deepest = 0;
    for (int i = 0; i < n; i++) {
        deepest = level[i] > deepest ? level[i] : deepest;
        depth[i] = (u8)(level[i] < 255 ? level[i] : 255);
    }
    return deepest;
}

/* Brings depths of sorted weights, deepest first, down to `limit`: the deepest are cut, and while the code is over-full
 * one of them moves up to stand beside the next one above it, which goes down by one. */
static void limit_depths(int n, int limit, u8 *depth) {
    int have[MAX_SYMBOLS] = {0};
    u32 taken = 0;
    for (int i = 0; i < n; i++) {
        int d = depth[i] < limit ? depth[i] : limit;
        have[d]++;
        taken += 1u << (limit - d);
    }
    for (; taken > 1u << limit; taken--) {
        int d = limit - 1;
        while (!have[d])
            d--;
        have[d]--;
        have[d + 1] += 2;
        have[limit]--;
    }
    for (int i = 0, d = limit; i < n; i++) {
        while (!have[d])
            d--;
        have[d]--;
        depth[i] = (u8)d;
    }
}

/* Code lengths for `count`, none above `limit`, and optimal unless that cuts them; 0 for symbols that never occur. A
 * code of one symbol gets a second one, because some decoders refuse incomplete codes. */
static void code_lengths(const u32 *count, int symbols, int limit, u8 *length) {
    u16 order[MAX_SYMBOLS];
    u32 weight[MAX_SYMBOLS];
    u8 depth[MAX_SYMBOLS];
    int used = sort_symbols(count, symbols, order);
    memset(length, 0, (size_t)symbols);
    if (used < 2) {
        int only = used ? order[0] : 0;
        length[only] = 1;
        length[only == 0 ? 1 : 0] = 1;
        return;
    }
    for (int i = 0; i < used; i++)
        weight[i] = count[order[i]];
    if (tree_depths(weight, used, depth) > limit)
        limit_depths(used, limit, depth);
    for (int i = 0; i < used; i++)
        length[order[i]] = depth[i];
}

INLINE u32 reverse_bits(u32 code, unsigned bits) {
    code = (code & 0x5555) << 1 | (code >> 1 & 0x5555);
    code = (code & 0x3333) << 2 | (code >> 2 & 0x3333);
    code = (code & 0x0f0f) << 4 | (code >> 4 & 0x0f0f);
    return ((code & 0xff) << 8 | code >> 8) >> (16 - bits);
}

/* The canonical codes of given lengths, bit-reversed as deflate sends them. */
static void canonical_codes(const u8 *length, int symbols, u16 *code) {
    u32 next[MAX_BITS + 2] = {0};
    u32 have[MAX_BITS + 1] = {0};
    for (int s = 0; s < symbols; s++)
        have[length[s]]++;
    have[0] = 0;
    for (int bits = 1; bits <= MAX_BITS; bits++)
        next[bits + 1] = (next[bits] + have[bits]) << 1;
    for (int s = 0; s < symbols; s++)
        code[s] = length[s] ? (u16)reverse_bits(next[length[s]]++, length[s]) : 0;
}

/* The description of two codes at the head of a dynamic block, run-length coded by the "precode". */
typedef struct {
    int litlens, dists, precodes; /* how many lengths of each are sent */
    int items;
    u8 item[LITLEN_SYMBOLS + DIST_SYMBOLS]; /* precode symbols 0..18 */
    u8 extra[LITLEN_SYMBOLS + DIST_SYMBOLS];
    u8 length[19];
    u16 code[19];
    u32 bits; /* size of it all, the three block-type bits left out */
} header;

static const u8 PRECODE_ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

INLINE unsigned precode_extra_bits(unsigned symbol) {
    return symbol < 16 ? 0 : symbol == 16 ? 2 : symbol == 17 ? 3 : 7;
}

INLINE void add_item(header *h, unsigned symbol, unsigned extra) {
    h->item[h->items] = (u8)symbol;
    h->extra[h->items++] = (u8)extra;
}

static void describe_codes(header *h, const u8 *litlen, const u8 *dist) {
    u8 all[LITLEN_SYMBOLS + DIST_SYMBOLS];
    h->litlens = LITLEN_SYMBOLS;
    while (h->litlens > 257 && !litlen[h->litlens - 1])
        h->litlens--;
    h->dists = DIST_SYMBOLS;
    while (h->dists > 1 && !dist[h->dists - 1])
        h->dists--;
    memcpy(all, litlen, (size_t)h->litlens);
    memcpy(all + h->litlens, dist, (size_t)h->dists);
    int total = h->litlens + h->dists;
    h->items = 0;
    for (int i = 0; i < total;) {
        int run = 1;
        while (i + run < total && all[i + run] == all[i])
            run++;
        int left = run;
        if (all[i] == 0) {
            for (; left >= 11; left -= left < 138 ? left : 138)
                add_item(h, 18, (unsigned)((left < 138 ? left : 138) - 11));
            if (left >= 3) {
                add_item(h, 17, (unsigned)(left - 3));
                left = 0;
            }
        } else if (left >= 4) {
            add_item(h, all[i], 0);
            left--;
            for (; left >= 3; left -= left < 6 ? left : 6)
                add_item(h, 16, (unsigned)((left < 6 ? left : 6) - 3));
        }
        for (; left > 0; left--)
            add_item(h, all[i], 0);
        i += run;
    }
    u32 count[19] = {0};
    for (int i = 0; i < h->items; i++)
        count[h->item[i]]++;
    code_lengths(count, 19, PRECODE_BITS, h->length);
    canonical_codes(h->length, 19, h->code);
    h->precodes = 19;
    while (h->precodes > 4 && !h->length[PRECODE_ORDER[h->precodes - 1]])
        h->precodes--;
    h->bits = (u32)(5 + 5 + 4 + 3 * h->precodes);
    for (int i = 0; i < h->items; i++)
        h->bits += h->length[h->item[i]] + precode_extra_bits(h->item[i]);
}

#endif
