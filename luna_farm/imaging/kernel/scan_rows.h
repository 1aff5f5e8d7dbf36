/* The two steps of the quick search over rows of filtered bytes (scan.h). Compiled once for each instruction set in simd.h,
 * so it has no include guard. */

/* Bit i: p[i] == q[i]. */
INLINE TARGET u64 FN(same64)(const u8 *p, const u8 *q) {
#if LUNA_ISA == 256
    return V_SAME_BITS(p, q) | (u64)V_SAME_BITS(p + 32, q + 32) << 32;
#elif LUNA_ISA == 128
    return V_SAME_BITS(p, q) | (u64)V_SAME_BITS(p + 16, q + 16) << 16 | (u64)V_SAME_BITS(p + 32, q + 32) << 32 |
           (u64)V_SAME_BITS(p + 48, q + 48) << 48;
#else
    u64 mask = 0;
    for (int i = 0; i < 64; i += 8) {
        u64 differ = load64(p + i) ^ load64(q + i), low = 0x7f7f7f7f7f7f7f7full;
        u64 zero = ~(((differ & low) + low) | differ | low); /* the top bit of each zero byte */
        mask |= (zero >> 7) * 0x0102040810204080ull >> 56 << i;
    }
    return mask;
#endif
}

/* How many of LEAD bytes are equal before the first that differs. */
INLINE TARGET unsigned FN(lead)(const u8 *p, const u8 *q) {
#if LUNA_ISA == 256
    return low_zeros(~(u64)V_SAME_BITS(p, q));
#elif LUNA_ISA == 128
    return low_zeros(~(u64)(V_SAME_BITS(p, q) | V_SAME_BITS(p + 16, q + 16) << 16));
#else
    for (unsigned i = 0; i < LEAD; i += 8) {
        u64 differ = load64(p + i) ^ load64(q + i);
        if (differ)
            return i + low_zeros(differ) / 8;
    }
    return LEAD;
#endif
}

/* Looks up the pixels of p[0..n), which begins with one and stands at `position`. `near`: the start is less than a window
 * before. A table's entry may be out of date or another hash's, which does no harm: what it points at is compared. */
INLINE TARGET void FN(look_up_as)(scanner *s, const u8 *p, size_t n, u32 position, u32 above, const int near) {
    /* By the step: where matches may begin in a chunk. */
    static const u64 PLACES[9] = {
        0, 0xffffffffffff, 0x555555555555, 0x249249249249, 0x111111111111, 0, 0x041041041041, 0, 0x010101010101,
    };
    const u32 pixel = (u32)s->pixel_bytes;
    const unsigned shift = s->shift, spare = 64 - s->bits;
    const u64 all = PLACES[s->step], multiplier = FIRST_EIGHT << shift;
    const int before_3 = s->least_before <= 3, before_4 = s->least_before <= 5, above_4 = s->least_above <= 5;
    for (size_t base = 0; base < n; base += CHUNK) {
        const u8 *chunk = p + base;
        const u32 now = position + (u32)base, since = now - s->start;
        u16 *last_of = s->last + base, *long_last_of = s->long_last + base;
        u64 places = n - base < CHUNK ? all & ((1ull << (n - base)) - 1) : all;
        u64 before = FN(same64)(chunk, chunk - pixel), up = FN(same64)(chunk, chunk - above);
        for (int i = 0; i < CHUNK; i++)
            last_of[i] = long_last_of[i] = (u16)(pixel - 1);
        if (!~before | !~up) {
            /* In a flat place every pixel would find the one before it, which is a candidate anyhow; and so with the row above. */
            store64(s->hits + base / 8, places);
            continue;
        }
        u64 before2 = before & before >> 1, before4 = before2 & before2 >> 2, before8 = before4 & before4 >> 4;
        u64 up2 = up & up >> 1, up4 = up2 & up2 >> 2, up8 = up4 & up4 >> 4;
        u64 found = (before_3 ? before2 & before >> 2 : before_4 ? before4 : before8) | (above_4 ? up4 : up8);
        found &= places;
        for (u64 rest = places & ~before8; rest; rest &= rest - 1) {
            const unsigned at = low_zeros(rest);
            const u64 here = load64(chunk + at);
            u16 *head = s->head + (here * multiplier >> spare);
            u32 last = (now + at - 1 - *head) & (WINDOW - 1);
            *head = (u16)(now + at);
            if (near && last >= since + at)
                last = pixel - 1;
            last_of[at] = (u16)last;
            u64 more = load64(chunk + at + LONG_HASHED - 8);
            u16 *long_head = s->long_head + ((here * FIRST_EIGHT ^ more * LAST_EIGHT) >> spare);
            u32 long_last = (now + at - 1 - *long_head) & (WINDOW - 1);
            *long_head = (u16)(now + at);
            if (near && long_last >= since + at)
                long_last = pixel - 1;
            long_last_of[at] = (u16)long_last;
            found |= (u64)!((here ^ load64(chunk + at - last - 1)) << shift) << at;
        }
        store64(s->hits + base / 8, found);
    }
    store64(s->hits + n / 8, load64(s->hits + n / 8) | ~0ull << (n & 7)); /* ends the search for the next one */
}

static TARGET NOINLINE void FN(look_up)(scanner *s, const u8 *p, size_t n, u32 position, u32 above) {
    if (position - s->start < WINDOW)
        FN(look_up_as)(s, p, n, position, above, 1);
    else
        FN(look_up_as)(s, p, n, position, above, 0);
}

/* The next place from `at` on where a match may begin. */
INLINE TARGET size_t FN(next_hit)(const u8 *hit, size_t at) {
    u64 hits = load64(hit + at / 8) >> (at & 7);
    if (hits)
        return at + low_zeros(hits);
    at &= ~(size_t)7;
    do
        hits = load64(hit + (at += 56) / 8);
    while (!hits);
    return at + low_zeros(hits);
}

/* How many bytes of p and q are equal, up to `limit`, where the first LEAD of them are. */
INLINE TARGET unsigned FN(equal_further)(const u8 *p, const u8 *q, unsigned limit) {
    for (unsigned i = LEAD; i < limit; i += 64) {
        u64 differ = ~FN(same64)(p + i, q + i);
        if (differ) {
            unsigned same = i + low_zeros(differ);
            return same < limit ? same : limit;
        }
    }
    return limit;
}

/* The best of four matches, the first one with the pixel before, whose first `lead` bytes are known. */
static TARGET NOINLINE rated FN(longest)(const scanner *s, const u8 *p, unsigned limit, const u32 *lead, const u32 *less_one) {
    rated best = rate(NEVER, 0, 0);
    for (int i = 0; i < 4; i++) {
        unsigned length = lead[i] < limit ? lead[i] : limit;
        if (length == LEAD)
            length = FN(equal_further)(p, p - less_one[i] - 1, limit);
        if (i == 0 && length == limit && limit >= MIN_MATCH)
            return rate(ALWAYS, limit, less_one[0]);
        rated one = rate(s->length_score[length] - distance_cost(s, less_one[i]), length, less_one[i]);
        best = one > best ? one : best;
    }
    return best;
}

/* Describes row[0..end), which was looked up, from `i` on, as literals and matches that end
 * before n. What is before `*described` is, already. Returns where it got to. */
static TARGET NOINLINE size_t FN(describe)(scanner *s, const u8 *row, size_t end, size_t i, size_t n, size_t *described,
                                           const u32 above, sequence *q) {
    const u32 pixel = (u32)s->pixel_bytes;
    const u64 but_one = (1ull << 8 * (pixel - 1)) - 1; /* of a pixel's bytes */
    const size_t tail = n > LEAD ? n - LEAD : 0; /* from here on a match could reach beyond the end */
    size_t taken = *described;
    token *to = q->tokens + q->count;
    u8 *literals = q->literals + q->literal_count;
    u32 waiting = q->tail;
    while (i < end && (i = FN(next_hit)(s->hits, i)) < end) {
        const u8 *p = row + i;
        const u32 last = s->last[i], long_last = s->long_last[i]; /* distances less one */
        const u32 n_before = FN(lead)(p, p - pixel), n_above = FN(lead)(p, p - above), n_last = FN(lead)(p, p - last - 1);
        const u32 n_long = FN(lead)(p, p - long_last - 1);
        rated best = s->before[n_before], next = s->above[n_above] + (above - 1);
        best = next > best ? next : best;
        next = s->from_far[n_last] - ((rated)distance_cost(s, last) << 32) + last;
        best = next > best ? next : best;
        next = s->from_far[n_long] - ((rated)distance_cost(s, long_last) << 32) + long_last;
        best = next > best ? next : best;
        if (((best >> 16 & 0xffff) == LEAD) | (i >= tail)) {
            const u32 lead[4] = {n_before, n_above, n_last, n_long}, less_one[4] = {pixel - 1, above - 1, last, long_last};
            best = FN(longest)(s, p, match_limit(n - i), lead, less_one);
            if (best >> 32 == ALWAYS) {
                size_t length = best >> 16 & 0xffff;
                length += equal_bytes(p + length, p + length - pixel, (unsigned)(n - i - length));
                copy_literals(literals, row + taken, i - taken);
                literals += i - taken;
                to = put_run(to, waiting + (u32)(i - taken), p, length, pixel);
                waiting = 0;
                taken = i += length;
                continue;
            }
        }
        const u32 length = best >> 16 & 0xffff;
        u32 distance = best & 0xffff;
        if (literals_cost(s, p, (i32)length) <= (s->value * (i32)length >> 4) - (i32)(best >> 32)) {
            i++;
            continue;
        }
        /* What is one byte again and again has distance 1: the fewer distances, the shorter their codes. */
        u64 before = load64(p - pixel);
        u32 to_one = (u32)!((before ^ before >> 8) & but_one) & (u32)(distance == pixel - 1);
        distance &= to_one - 1;
        copy_literals(literals, row + taken, i - taken);
        literals += i - taken;
        *to++ = (token){waiting + (u32)(i - taken), (u16)length, (u16)distance};
        waiting = 0;
        taken = i += length;
    }
    *described = taken;
    q->count = (size_t)(to - q->tokens);
    q->literal_count = (size_t)(literals - q->literals);
    q->tail = waiting;
    return i; /* if it was a place without a match, one behind the end */
}

/* In how many places of n bytes a match may begin. They begin a row, as a scan() from s->start on does. */
static TARGET unsigned FN(count_hits)(scanner *s, const u8 *data, size_t n, u32 position) {
    unsigned hits = 0;
    for (size_t at = 0; at < n; at += s->stride) {
        size_t bytes = s->stride - 1, whole = bytes / 64;
        FN(look_up)(s, data + at + 1, bytes, position + (u32)at + 1, distance_above(s, position + (u32)(at + s->stride)));
        for (size_t i = 0; i < whole; i++)
            hits += count_ones(load64(s->hits + 8 * i));
        hits += count_ones(load64(s->hits + 8 * whole) & ((1ull << bytes % 64) - 1));
    }
    return hits;
}

static TARGET void FN(scan)(scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, sequence *q) {
    const size_t stride = s->stride, pixel = s->pixel_bytes;
    size_t i = 0, taken = 0, at = 0;
    if (position == s->start) { /* nothing is before the first pixel */
        i = at = 1 + pixel;
        row_end = stride;
    }
    u32 above = distance_above(s, position + (u32)row_end);
    while (at < n) {
        if (at == row_end) { /* the number of a filter: with the row above, or not at all */
            const u8 *p = data + at;
            row_end += stride;
            above = distance_above(s, position + (u32)row_end);
            if (i <= at && n - at > 64) {
                u64 next = load64(p + 1);
                if (next == (u8)next * 0x0101010101010101ull) { /* one byte again and again */
                    const size_t run = p[0] == p[1] ? at + (p[-1] != p[1]) : at + 2; /* begins behind its first byte */
                    add_literals(q, data + taken, run - taken);
                    i = run + equal_bytes(data + run, data + run - 1, (unsigned)(n - run));
                    add_run(q, data + run, i - run);
                    taken = i;
                } else if (above == stride && load64(p) == load64(p - stride)) {
                    add_literals(q, data + taken, at - taken);
                    i = at + equal_bytes(p, p - stride, match_limit(n - at));
                    q->tokens[q->count++] = (token){q->tail, (u16)(i - at), (u16)(above - 1)};
                    q->tail = 0;
                    taken = i;
                }
            }
            at++;
            i = i < at ? at : i;
            continue;
        }
        size_t end = row_end < n ? row_end : n;
        end = end - at > SEGMENT ? at + SEGMENT : end;
        if (i < end) { /* else it lies within a run */
            FN(look_up)(s, data + at, end - at, position + (u32)at, above);
            size_t done = taken - at;
            i = at + FN(describe)(s, data + at, end - at, i - at, n - at, &done, above, q);
            taken = at + done;
        }
        at = end;
    }
    if (taken < n)
        add_literals(q, data + taken, n - taken);
    q->bytes += n;
}
