/* The quick search for matches, for levels 1 to 4: one look at each pixel, three or four candidates.
 *
 * In images that were drawn, rendered or computed, what repeats is whole pixels: the pixel before (flat areas), the row
 * above (edges that run down), and somewhere else (patterns, text). So only pixels are looked at, not every byte, and at
 * each of them the pixel before, the same place one row up, and the last place with the same hash. The three are
 * compared eight bytes at a time without a branch, because which of them fits is what no processor foretells.
 *
 * Literals are copied behind one another as they are found. So a deflate block need not end with the buffer of filtered
 * bytes, and where nearly everything repeats, one Huffman code serves a whole image. */
#ifndef LUNA_SCAN_H
#define LUNA_SCAN_H

#include "block.h"
#include "costs.h"
#include "matches.h"

typedef int32_t i32;

/* SCAN_BITS: 64 KB of heads, little beside the second level cache. DENSE: of longer matches only the
 * start is remembered; what lies inside is found again by the row above. */
enum { SCAN_BITS = 13, DENSE = 48, SCAN_SLACK = 16, NEVER = -(1 << 28), ALWAYS = 1 << 28 };

typedef struct {
    u32 head[1 << SCAN_BITS][2]; /* hash of the bytes at a pixel -> the last two positions with it */
    costs cost;
    i32 mean_literal; /* cost */
    i32 value; /* what covering a byte by a match is worth, in sixteenths of `cost` */
    i32 before8[9], above8[9], far8[9]; /* the score of a match of 0 .. 8 bytes, but for the distance of a far one */
    i32 length_score[MAX_MATCH + 1];
    unsigned shift; /* leaves the bytes that are hashed */
    int deep; /* whether the second last position with a hash is looked at too */
    unsigned skip; /* after 1 << skip misses every second pixel is looked at, and so on */
    size_t pixel_bytes, stride;
    u32 start; /* the first position that a match may reach */
} scanner;

typedef struct {
    u32 length, distance;
    i32 score; /* what it is worth, less its cost */
} found_match;

/* Tokens and literals that wait to be sent. */
typedef struct {
    token *tokens;
    u8 *literals;
    size_t count, literal_count;
    u32 tail; /* literals after the last match */
    size_t bytes; /* all that is described */
} sequence;

/* Fewer bytes are not worth a match from afar: a far match costs about this much. */
enum { FAR_COST = 20 * BIT };

static void prepare_scan(scanner *s) {
    static const u8 HASHED_BYTES[9] = {0, 5, 4, 6, 8, 0, 6, 0, 8}; /* by the bytes of a pixel */
    unsigned hashed = HASHED_BYTES[s->pixel_bytes];
    while (hashed < 8 && (i32)hashed * s->mean_literal < FAR_COST)
        hashed++;
    s->shift = 64 - 8 * hashed;
    for (i32 n = 0; n <= MAX_MATCH; n++)
        s->length_score[n] = n < MIN_MATCH ? NEVER : (s->value * n >> 4) - (i32)s->cost.length[n];
    for (unsigned n = 0; n <= 8; n++) {
        s->before8[n] = s->length_score[n] - (i32)s->cost.dist[dist_slot((u32)s->pixel_bytes)];
        s->above8[n] = n < 4 || s->stride > WINDOW ? NEVER : s->length_score[n] - (i32)s->cost.dist[dist_slot((u32)s->stride)];
        s->far8[n] = n < hashed ? NEVER : s->length_score[n];
    }
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

/* Costs from a block of `bytes`, for the next one. */
static void learn_scan_costs(scanner *s, const histogram *h, size_t bytes) {
    u64 sum = 0, count = 0;
    set_costs(&s->cost, h);
    for (int i = 0; i < 256; i++) {
        sum += (u64)h->litlen[i] * s->cost.literal[i];
        count += h->litlen[i];
    }
    s->mean_literal = count ? (i32)(sum / count) : 5 * BIT;
    s->value = (i32)(whole_cost(h) * 24 / (bytes + 1)); /* half as much again as a byte costs now: measured */
}

INLINE u32 scan_hash(const scanner *s, u64 bytes) {
    return (u32)((bytes << s->shift) * 0x9e3779b185ebca87ull >> (64 - SCAN_BITS));
}

INLINE unsigned first_equal(u64 differ) { return differ ? low_zeros(differ) >> 3 : 8; }

INLINE i32 distance_cost(const scanner *s, u32 distance) { return (i32)s->cost.dist[dist_slot(distance)]; }

/* The best match for the pixel at p, whose position is remembered. `above` is the distance of the row above, or that of
 * the pixel before where there is none. limit is at least 8. */
INLINE found_match scan_pixel(scanner *s, const u8 *p, u32 position, unsigned limit, const u32 before, u32 above, const int deep) {
    u64 here = load64(p);
    u32 *slot = s->head[scan_hash(s, here)], far = position - slot[0], older = position - slot[1];
    if (deep)
        slot[1] = slot[0];
    slot[0] = position;
    far = far - 1 < WINDOW ? far : before;
    older = older - 1 < WINDOW ? older : before;
    u64 differ_before = here ^ load64(p - before), differ_above = here ^ load64(p - above), differ_far = here ^ load64(p - far);
    u32 n_before = first_equal(differ_before), n_above = first_equal(differ_above), n_far = first_equal(differ_far);
    i32 score_before = s->before8[n_before], score_above = s->above8[n_above];
    i32 score_far = s->far8[n_far] - distance_cost(s, far);
    if (!differ_before | !differ_above | !differ_far) { /* a match as long as can be is taken at once */
        if (!differ_before) {
            n_before = 8 + equal_bytes(p + 8, p + 8 - before, limit - 8);
            if (n_before == limit)
                return (found_match){n_before, before, ALWAYS};
            score_before = s->length_score[n_before] - distance_cost(s, before);
        }
        if (!differ_above) {
            n_above = 8 + equal_bytes(p + 8, p + 8 - above, limit - 8);
            score_above = s->length_score[n_above] - distance_cost(s, above);
        }
        if (!differ_far) {
            n_far = 8 + equal_bytes(p + 8, p + 8 - far, limit - 8);
            score_far = s->length_score[n_far] - distance_cost(s, far);
        }
    }
    found_match best = {n_before, before, score_before};
    if (score_above > best.score)
        best = (found_match){n_above, above, score_above};
    if (score_far > best.score)
        best = (found_match){n_far, far, score_far};
    if (deep && load64(p - older) == here) {
        u32 n_older = 8 + equal_bytes(p + 8, p + 8 - older, limit - 8);
        i32 score_older = s->length_score[n_older] - distance_cost(s, older);
        if (score_older > best.score)
            best = (found_match){n_older, older, score_older};
    }
    return best;
}

/* Whether a match is cheaper than its bytes as literals. */
INLINE int match_pays(const scanner *s, const u8 *p, found_match m) {
    i32 sum[9], cost;
    if (m.score < NEVER / 2)
        return 0;
    sum[0] = 0;
    for (int i = 0; i < 8; i++)
        sum[i + 1] = sum[i] + (i32)s->cost.literal[p[i]];
    cost = m.length <= 8 ? sum[m.length] : sum[8] + (i32)(m.length - 8) * s->mean_literal;
    return cost > (i32)s->cost.length[m.length] + distance_cost(s, m.distance);
}

INLINE void add_literals(sequence *q, const u8 *p, size_t n) {
    u8 *to = q->literals + q->literal_count;
    q->literal_count += n;
    q->tail += (u32)n;
    if (n <= 16) { /* most are a few pixels; both buffers have the slack */
        store64(to, load64(p));
        store64(to + 8, load64(p + 8));
    } else {
        memcpy(to, p, n);
    }
}

INLINE void add_match(sequence *q, u32 length, u32 distance) {
    q->tokens[q->count++] = (token){q->tail, (u16)length, (u16)(distance - 1)};
    q->tail = 0;
}

/* Adds a run, which repeats the pixel before, of any length, in pieces that deflate can send. What is one byte again and
 * again is sent with distance 1, whatever a pixel is: the fewer distances, the shorter their codes. */
static void add_run(sequence *q, const u8 *p, size_t length, u32 distance) {
    if (load64(p) == p[-1] * 0x0101010101010101ull)
        distance = 1;
    for (; length > MAX_MATCH + MIN_MATCH; length -= MAX_MATCH)
        add_match(q, MAX_MATCH, distance);
    if (length > MAX_MATCH) {
        add_match(q, (u32)length - MIN_MATCH, distance);
        length = MIN_MATCH;
    }
    add_match(q, (u32)length, distance);
}

/* Remembers the positions inside a match, but not all of a long one: the row above finds those again. */
INLINE void remember_inside(scanner *s, const u8 *data, u32 position, size_t i, size_t end, const u32 pixel, const int deep) {
    size_t stop = end < i + DENSE ? end : i + DENSE;
    for (; i < stop; i += pixel) {
        u32 *slot = s->head[scan_hash(s, load64(data + i))];
        if (deep)
            slot[1] = slot[0];
        slot[0] = position + (u32)i;
    }
}

INLINE unsigned match_limit(size_t left) { return left < MAX_MATCH ? (unsigned)left : MAX_MATCH; }

/* How far back the row above is for the row that ends at `row_end`, or the pixel before where that is out of reach. */
INLINE u32 distance_above(const scanner *s, u32 row_end) {
    return (u32)(s->stride <= WINDOW && row_end >= s->start + 2 * s->stride ? s->stride : s->pixel_bytes);
}

/* scan(), compiled once for each size of a pixel. */
INLINE void scan_pixels(scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, const u32 pixel,
                        sequence *q, const int deep) {
    const size_t stride = s->stride;
    size_t i = 0, taken = 0, misses = 0;
    if (position == s->start) { /* nothing is before the first pixel */
        i = 1 + pixel;
        row_end = stride;
    }
    u32 above = distance_above(s, position + (u32)row_end);
    while (i + SCAN_SLACK <= n) {
        const u8 *p = data + i;
        unsigned limit = match_limit(n - i);
        size_t end;
        if (i == row_end) { /* the number of a filter: with the row above, or not at all */
            row_end += stride;
            above = distance_above(s, position + (u32)row_end);
            u64 next = load64(p + 1);
            if (next == (u8)next * 0x0101010101010101ull && n - i > 64) { /* one byte again and again */
                add_literals(q, data + taken, i + 2 - taken);
                end = i + 2 + equal_bytes(p + 2, p + 1, (unsigned)(n - i - 2));
                add_run(q, p + 2, end - i - 2, 1);
            } else if (above == stride && load64(p) == load64(p - stride)) {
                add_literals(q, data + taken, i - taken);
                end = i + equal_bytes(p, p - stride, limit);
                add_match(q, (u32)(end - i), above);
            } else {
                i++;
                continue;
            }
        } else {
            found_match m = scan_pixel(s, p, position + (u32)i, limit, pixel, above, deep);
            if (m.score != ALWAYS && !match_pays(s, p, m)) {
                i += pixel * (1 + (misses++ >> s->skip));
                i = i < row_end ? i : row_end;
                continue;
            }
            misses = 0;
            add_literals(q, data + taken, i - taken);
            end = i + m.length;
            if (m.distance != pixel || m.length < 8) {
                add_match(q, m.length, m.distance);
            } else {
                if (m.score == ALWAYS)
                    end += equal_bytes(data + end, data + end - pixel, (unsigned)(n - end));
                add_run(q, p, end - i, pixel);
            }
            remember_inside(s, data, position, i + pixel, end, pixel, deep);
        }
        taken = end;
        if (end > row_end) {
            while (end > row_end)
                row_end += stride;
            above = distance_above(s, position + (u32)row_end);
        }
        i = end + (row_end - end) % pixel; /* on to the next pixel */
    }
    if (taken < n)
        add_literals(q, data + taken, n - taken);
    q->bytes += n;
}

/* Adds to q the matches and literals of data[0..n), which stands at `position`. The first row that begins in it begins
 * at row_end. data[n .. n + 24) is readable. */
static void scan(scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, sequence *q) {
    prepare_scan(s);
    switch (s->pixel_bytes << 1 | (size_t)s->deep) {
    case 2: scan_pixels(s, data, n, position, row_end, 1, q, 0); break;
    case 3: scan_pixels(s, data, n, position, row_end, 1, q, 1); break;
    case 4: scan_pixels(s, data, n, position, row_end, 2, q, 0); break;
    case 5: scan_pixels(s, data, n, position, row_end, 2, q, 1); break;
    case 6: scan_pixels(s, data, n, position, row_end, 3, q, 0); break;
    case 7: scan_pixels(s, data, n, position, row_end, 3, q, 1); break;
    case 8: scan_pixels(s, data, n, position, row_end, 4, q, 0); break;
    case 9: scan_pixels(s, data, n, position, row_end, 4, q, 1); break;
    case 12: scan_pixels(s, data, n, position, row_end, 6, q, 0); break;
    case 13: scan_pixels(s, data, n, position, row_end, 6, q, 1); break;
    case 16: scan_pixels(s, data, n, position, row_end, 8, q, 0); break;
    default: scan_pixels(s, data, n, position, row_end, 8, q, 1); break;
    }
}

static void clear_sequence(sequence *q) { q->count = q->literal_count = q->bytes = q->tail = 0; }

static void count_sequence(histogram *h, const sequence *q) {
    u32 table[8][256];
    memset(table, 0, sizeof table);
    memset(h, 0, sizeof *h);
    count_bytes(table, q->literals, q->literal_count);
    for (int i = 0; i < 256; i++)
        for (int k = 0; k < 8; k++)
            h->litlen[i] += table[k][i];
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
static void put_sequence(bitstream *s, codebook *book, sequence *q, const histogram *h, const u8 *data, int final) {
    q->tokens[q->count] = (token){q->tail, 0, 0};
    if (begin_block(s, book, h, data ? q->bytes : 0, final))
        put_tokens(s, book, q->literals, q->tokens, q->count + 1, q->literal_count, 0);
    else
        put_stored(s, data, q->bytes, final);
    clear_sequence(q);
}

#endif
