/* The quick search for matches, for levels 1 to 4: one look at each pixel, four candidates.
 *
 * In images that were drawn, rendered or computed, what repeats is whole pixels: the pixel before (flat areas), the row
 * above (edges that run down), and somewhere else (patterns, text). So matches begin at pixels only. A segment of a row is
 * taken in two steps (scan_rows.h). First each pixel is looked up in a table of hashes; that asks nothing, so the
 * processor does many at a time. Then matches are chosen, only where the first step found that one may begin. Which of the
 * candidates is best is what no processor foretells, so they are rated and compared without a branch.
 *
 * Literals are copied behind one another as they are found. So a deflate block need not end with the buffer of filtered
 * bytes, and where nearly everything repeats, one Huffman code serves a whole image. */
#ifndef LUNA_SCAN_H
#define LUNA_SCAN_H

#include "block.h"
#include "costs.h"
#include "cpu.h"
#include "matches.h"
#include "runs.h"

typedef int32_t i32;

/* A match in one number, so that the better of two is the larger: its score (what it is worth, less its cost), its
 * length, and its distance less one, in 32, 16 and 16 bits. */
typedef int64_t rated;

INLINE rated rate(i32 score, u32 length, u32 less_one) {
    return (rated)((u64)(u32)score << 32 | (u64)length << 16 | less_one);
}

/* MOST_BITS: heads take 64 KB, little beside the second level cache; FEWEST_BITS: what suffices for a small image, and is
 * cleared in no time. CHUNK: bytes whose places are marked in one
 * word; whole pixels of every size. SEGMENT: what is looked up before matches are chosen in it. LEAD: so many bytes are
 * compared without asking. LONG_HASHED: where many places begin alike, the last one with so many
 * bytes the same is the longer match. LONG_MATCH: of longer matches so many bytes count in what a byte costs, and VALUE / 16 of that
 * is what covering one is worth (both measured: with less, short runs crowd out longer matches). */
enum { MOST_BITS = 14, FEWEST_BITS = 10, CHUNK = 48, SEGMENT = 40 * CHUNK, LEAD = 32, LONG_HASHED = 16, LONG_MATCH = 16, VALUE = 20 };
enum { SCAN_SLACK = 16, NEVER = -(1 << 28), ALWAYS = 1 << 28 };

/* Odd numbers whose product with bytes has all of them in its highest bits. */
#define FIRST_EIGHT 0x9e3779b185ebca87ull
#define LAST_EIGHT 0xc2b2ae3d27d4eb4full

/* For the greedy search: how many places of a match are remembered at either end, and odd numbers as above. */
enum { REMEMBERED = 16 };
#define FIRST_WORD 0x9e37u
#define SECOND_WORD 0x79b1u
#define THIRD_WORD 0x85ebu
#define FOURTH_WORD 0xca87u
#define FIFTH_WORD 0xa3d9u
#define SIXTH_WORD 0xb54du
#define SEVENTH_WORD 0xd1b7u
#define EIGHTH_WORD 0xe995u

typedef struct {
    u16 head[1 << MOST_BITS]; /* hash of a few bytes at a pixel -> the last position with it, its low 16 bits */
    u16 long_head[1 << MOST_BITS]; /* the same for LONG_HASHED bytes */
    /* Place in the segment -> how far before it these positions are, less one; the pixel before where nothing was looked up. */
    u16 last[SEGMENT], long_last[SEGMENT];
    u16 more_head[1 << MOST_BITS], more[SEGMENT]; /* of the greedy search alone: a third table, and hashes of places */
    u8 hits[SEGMENT / 8 + 16]; /* bit: place in the segment where a match may begin */
    costs cost;
    i32 mean_literal; /* cost */
    i32 value; /* what covering a byte by a match is worth, in sixteenths of `cost` */
    /* Matches of 0 .. LEAD bytes; those above lack the distance, those from afar what it costs as well. */
    rated before[LEAD + 1], above[LEAD + 1], from_far[LEAD + 1];
    i32 length_score[MAX_MATCH + 1];
    unsigned bits; /* of a hash */
    unsigned shift; /* leaves the bytes that are hashed */
    unsigned least_before, least_above; /* the shortest match that may pay */
    size_t pixel_bytes, stride;
    size_t step; /* from one place where a match may begin to the next: a pixel, or a byte of 16-bit gray */
    u32 start; /* the first position that a match may reach */
} scanner;

/* Tokens and literals that wait to be sent. */
typedef struct {
    token *tokens;
    u8 *literals;
    size_t count, literal_count;
    u32 tail; /* literals after the last match */
    size_t bytes; /* all that is described */
} sequence;

/* Forgets all positions, for a search through so many bytes. */
static void clear_scan(scanner *s, size_t bytes) {
    s->bits = FEWEST_BITS;
    while (s->bits < MOST_BITS && (size_t)4 << s->bits < bytes)
        s->bits++;
    memset(s->head, 0, sizeof s->head[0] << s->bits);
    memset(s->long_head, 0, sizeof s->long_head[0] << s->bits);
}

/* The same for the greedy search. */
static void clear_greedy(scanner *s, size_t bytes) {
    clear_scan(s, bytes);
    memset(s->more_head, 0, sizeof s->more_head[0] << s->bits);
}

/* Fewer bytes are not worth a match from afar: a far match costs about this much. */
enum { FAR_COST = 20 * BIT };

/* The shortest match, from `least` bytes on, that is cheaper than so many usual literals; 8 is always a hit. */
static unsigned shortest_match(const scanner *s, i32 distance_cost, unsigned least) {
    while (least < 8 && (i32)least * s->mean_literal <= (i32)s->cost.length[least] + distance_cost)
        least++;
    return least;
}

static void prepare_scan(scanner *s) {
    static const u8 HASHED_BYTES[9] = {0, 5, 4, 6, 8, 0, 6, 0, 8}; /* by the step */
    unsigned hashed = HASHED_BYTES[s->step];
    size_t pixel = s->pixel_bytes;
    while (hashed < 8 && (i32)hashed * s->mean_literal < FAR_COST)
        hashed++;
    s->shift = 64 - 8 * hashed;
    for (i32 n = 0; n <= MAX_MATCH; n++)
        s->length_score[n] = n < MIN_MATCH ? NEVER : (s->value * n >> 4) - (i32)s->cost.length[n];
    i32 cost_before = (i32)s->cost.dist[dist_slot((u32)pixel)], cost_one = (i32)s->cost.dist[0];
    cost_before = cost_before < cost_one ? cost_before : cost_one; /* see put_run */
    i32 cost_above = s->stride > WINDOW ? -NEVER : (i32)s->cost.dist[dist_slot((u32)s->stride)];
    for (u32 n = 0; n <= LEAD; n++) {
        i32 score = s->length_score[n];
        s->before[n] = rate(score - cost_before, n, (u32)pixel - 1);
        s->above[n] = rate(n < 4 ? NEVER : score - cost_above, n, 0);
        s->from_far[n] = rate(n < hashed ? NEVER : score, n, 0);
    }
    s->least_before = shortest_match(s, cost_before, MIN_MATCH);
    s->least_above = shortest_match(s, cost_above, MIN_MATCH + 1);
}

/* Costs as they usually come out, until a block is there to learn from. */
static void guess_scan_costs(scanner *s) {
    for (int i = 0; i < 256; i++)
        s->cost.literal[i] = 4 * BIT;
    for (int i = MIN_MATCH; i <= MAX_MATCH; i++)
        s->cost.length[i] = 4 * BIT + BIT * LENGTH_EXTRA[length_slot[i]];
    for (unsigned i = 0; i < DIST_SYMBOLS; i++)
        s->cost.dist[i] = 4 * BIT + BIT * dist_extra(i);
    s->mean_literal = 4 * BIT;
    s->value = BIT * 16;
}

/* Costs from a block for the next one. */
static void learn_scan_costs(scanner *s, const histogram *h) {
    u64 sum = 0, count = 0;
    set_costs(&s->cost, h);
    for (int i = 0; i < 256; i++) {
        sum += (u64)h->litlen[i] * s->cost.literal[i];
        count += h->litlen[i];
    }
    s->mean_literal = count ? (i32)(sum / count) : 5 * BIT;
    for (int i = 0; i < LITLEN_SYMBOLS - 257; i++)
        count += (u64)h->litlen[257 + i] * (LENGTH_BASE[i] < LONG_MATCH ? LENGTH_BASE[i] : LONG_MATCH);
    s->value = (i32)(whole_cost(h) * VALUE / (count + 1));
}

/* What a distance, given less one, costs. */
INLINE i32 distance_cost(const scanner *s, u32 less_one) { return (i32)s->cost.dist[dist_slot(less_one + 1)]; }

/* About what n bytes cost as literals: by the first four of them. */
INLINE i32 literals_cost(const scanner *s, const u8 *p, i32 n) {
    const u32 *cost = s->cost.literal;
    return (i32)(cost[p[0]] + cost[p[1]] + cost[p[2]] + cost[p[3]]) * n >> 2;
}

INLINE void copy_literals(u8 *to, const u8 *p, size_t n) {
    store64(to, load64(p)); /* most are a few pixels; both buffers have the slack */
    store64(to + 8, load64(p + 8));
    if (n > 16)
        memcpy(to + 16, p + 16, n - 16);
}

INLINE void add_literals(sequence *q, const u8 *p, size_t n) {
    copy_literals(q->literals + q->literal_count, p, n);
    q->literal_count += n;
    q->tail += (u32)n;
}

/* Puts a run, which repeats the pixel before, of any length, behind so many literals, in pieces that deflate can send.
 * What is one byte again and again is sent with distance 1, whatever a pixel is: the fewer distances, the shorter their
 * codes. Returns the end. */
static token *put_run(token *to, u32 literals, const u8 *p, size_t length, u32 distance) {
    if (load64(p) == p[-1] * 0x0101010101010101ull)
        distance = 1;
    for (; length > MAX_MATCH + MIN_MATCH; length -= MAX_MATCH, literals = 0)
        *to++ = (token){literals, MAX_MATCH, (u16)(distance - 1)};
    if (length > MAX_MATCH) {
        *to++ = (token){literals, (u16)(length - MIN_MATCH), (u16)(distance - 1)};
        length = MIN_MATCH;
        literals = 0;
    }
    *to++ = (token){literals, (u16)length, (u16)(distance - 1)};
    return to;
}

/* A run of one byte. Where what waits ends with one, which the end of a buffer cut off, that is lengthened first. */
INLINE void add_run(sequence *q, const u8 *p, size_t length) {
    if (q->count && !q->tail && length >= MAX_MATCH + MIN_MATCH) {
        token *last = q->tokens + q->count - 1;
        size_t more = last->distance ? 0 : MAX_MATCH - last->length;
        last->length = (u16)(last->length + more);
        p += more;
        length -= more;
    }
    q->count = (size_t)(put_run(q->tokens + q->count, q->tail, p, length, 1) - q->tokens);
    q->tail = 0;
}

INLINE unsigned match_limit(size_t left) { return left < MAX_MATCH ? (unsigned)left : MAX_MATCH; }

/* How far back the row above is for the row that ends at `row_end`, or the pixel before where that is out of reach. */
INLINE u32 distance_above(const scanner *s, u32 row_end) {
    return (u32)(s->stride <= WINDOW && row_end >= s->start + 2 * s->stride ? s->stride : s->pixel_bytes);
}

#ifdef LUNA_X86
#define LUNA_ISA 128
#else
#define LUNA_ISA 1
#endif
#include "simd.h"
#include "scan_rows.h"
#include "greedy_rows.h"
#undef LUNA_ISA
#ifdef LUNA_DISPATCH
#define LUNA_ISA 256
#include "simd.h"
#include "scan_rows.h"
#include "greedy_rows.h"
#undef LUNA_ISA
#endif

/* Describes data[0..n), which stands at `position`, and adds that to q. `row_end` is where the number of the next row's
 * filter stands; 0 where data begins with it. */
static void scan(int isa, scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, sequence *q) {
    prepare_scan(s);
#ifdef LUNA_DISPATCH
    if (isa >= ISA_AVX2) {
        scan_avx2(s, data, n, position, row_end, q);
        return;
    }
#endif
    (void)isa;
    scan_base(s, data, n, position, row_end, q);
}

/* The same for 16 bits: greedily, the longest of three matches, a word or, in gray, a byte at a time. Where nearly every place
 * ends one match and begins another, that is smaller than the quick search, and only places that it gets to are looked up. */
static void scan_greedily(int isa, scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, sequence *q) {
    for (int i = 0; i < MIN_MATCH; i++)
        s->cost.length[i] = ALWAYS;
#ifdef LUNA_DISPATCH
    if (isa >= ISA_AVX2) {
        scan_greedily_avx2(s, data, n, position, row_end, q);
        return;
    }
#endif
    (void)isa;
    scan_greedily_base(s, data, n, position, row_end, q);
}

/* In how many places of whole rows, each of less than SEGMENT bytes, a match may begin, by the costs as they are. */
static unsigned count_hits(int isa, scanner *s, const u8 *data, size_t n, u32 position) {
    prepare_scan(s);
#ifdef LUNA_DISPATCH
    if (isa >= ISA_AVX2)
        return count_hits_avx2(s, data, n, position);
#endif
    (void)isa;
    return count_hits_base(s, data, n, position);
}

static void clear_sequence(sequence *q) { q->count = q->literal_count = q->bytes = q->tail = 0; }

static void count_sequence(histogram *h, const sequence *q) {
    u32 table[8][256];
    memset(table, 0, sizeof table);
    memset(h, 0, sizeof *h);
    count_bytes(table, q->literals, q->literal_count);
    add_tables(h->litlen, table);
    for (size_t i = 0; i < q->count; i++) {
        unsigned slot = length_slot[q->tokens[i].length], far = dist_slot(q->tokens[i].distance + 1u);
        h->litlen[257 + slot]++;
        h->dist[far]++;
        h->extra_bits += LENGTH_EXTRA[slot] + dist_extra(far);
    }
    h->litlen[END_OF_BLOCK] = 1;
}

/* Sends the sequence as a block and empties it; `h` counts it. data[0 .. q->bytes) is what it describes, or NULL where
 * that is no longer at hand. */
static void put_sequence(int isa, bitstream *s, codebook *book, sequence *q, const histogram *h, const u8 *data, int final) {
    q->tokens[q->count] = (token){q->tail, 0, 0};
    if (begin_block(s, book, h, data ? q->bytes : 0, final))
        put_tokens(isa, s, book, q->literals, q->tokens, q->count + 1, q->literal_count, 0);
    else
        put_stored(s, data, q->bytes, final);
    clear_sequence(q);
}

#endif
