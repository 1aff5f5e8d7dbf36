/* The greedy search (scan_greedily in scan.h) over rows of filtered bytes. Compiled once for each instruction set in simd.h,
 * so it has no include guard. It compares as scan_rows.h does. */

/* Hashes the words that begin at p: two, and with `step` 1 four and eight of them, else three and five. Sums of products of
 * 16 bits are what every processor has in vectors. */
INLINE TARGET void FN(hash_place)(const u8 *p, const size_t step, unsigned shift, u16 *few, u16 *more, u16 *most) {
    u16 sum = (u16)(load16(p) * FIRST_WORD + load16(p + 2) * SECOND_WORD);
    *few = (u16)(sum >> shift);
    sum = (u16)(sum + load16(p + 4) * THIRD_WORD);
    if (step == 2)
        *more = (u16)(sum >> shift);
    sum = (u16)(sum + load16(p + 6) * FOURTH_WORD);
    if (step == 1) {
        *more = (u16)(sum >> shift);
        sum = (u16)(sum + load16(p + 10) * SIXTH_WORD + load16(p + 12) * SEVENTH_WORD + load16(p + 14) * EIGHTH_WORD);
    }
    *most = (u16)((u16)(sum + load16(p + 8) * FIFTH_WORD) >> shift);
}

static TARGET NOINLINE void FN(hash_words)(scanner *s, const u8 *p, size_t places, unsigned shift) {
    u16 *RESTRICT few = s->last, *RESTRICT more = s->more, *RESTRICT most = s->long_last;
    for (size_t k = 0; k < places; k++)
        FN(hash_place)(p + 2 * k, 2, shift, few + k, more + k, most + k);
}

/* Two places at a time, since vectors hold every second one. Hashes one more than asked for. */
static TARGET NOINLINE void FN(hash_bytes)(scanner *s, const u8 *p, size_t places, unsigned shift) {
    u16 *RESTRICT few = s->last, *RESTRICT more = s->more, *RESTRICT most = s->long_last;
    for (size_t k = 0; k < places; k += 2) {
        FN(hash_place)(p + k, 1, shift, few + k, more + k, most + k);
        FN(hash_place)(p + k + 1, 1, shift, few + k + 1, more + k + 1, most + k + 1);
    }
}

/* Notes where the places i .. end - 1 stand, the first of them at `position`; of a long match its ends alone. Returns end,
 * counted and not copied: a processor guesses how often a loop goes round and goes on from there, while it would wait for the
 * length of the match, which is known last. */
INLINE TARGET size_t FN(remember)(scanner *s, size_t i, size_t end, u32 position, const size_t step) {
    const size_t pause = end - i > 2 * REMEMBERED ? i + REMEMBERED : end;
    for (; i < end; i++, position += (u32)step) {
        UNFORESEEN(i);
        if (i == pause) {
            position += (u32)(step * (end - REMEMBERED - i));
            i = end - REMEMBERED;
        }
        s->head[s->last[i]] = s->more_head[s->more[i]] = s->long_head[s->long_last[i]] = (u16)position;
    }
    return i;
}

/* Describes the places of row[0..step * places), which stand at `position` and are hashed, from place `i` on, as literals and
 * matches that end before byte n. What is before byte `*described` is, already. Returns the byte it got to. */
INLINE TARGET size_t FN(describe_greedily)(scanner *s, const u8 *row, size_t places, size_t i, size_t n, size_t *described,
                                           u32 position, sequence *q, const size_t step, const int near) {
    const size_t tail = n > LEAD ? n - LEAD : 0;
    size_t taken = *described;
    token *to = q->tokens + q->count;
    u8 *literals = q->literals + q->literal_count;
    u32 waiting = q->tail;
    while (i < places) {
        size_t at = step * i;
        const u8 *p = row + at;
        const u32 now = position + (u32)at;
        u32 less_one = (now - 1 - s->head[s->last[i]]) & (WINDOW - 1);
        u32 middle = (now - 1 - s->more_head[s->more[i]]) & (WINDOW - 1);
        u32 far = (now - 1 - s->long_head[s->long_last[i]]) & (WINDOW - 1);
        if (near) { /* nothing is before the start */
            less_one = less_one < now - s->start ? less_one : 1;
            middle = middle < now - s->start ? middle : 1;
            far = far < now - s->start ? far : 1;
        }
        u32 length = FN(lead)(p, p - less_one - 1);
        const u32 middle_length = FN(lead)(p, p - middle - 1), long_length = FN(lead)(p, p - far - 1);
        less_one = middle_length > length ? middle : less_one; /* where they are equal, the nearer one */
        length = middle_length > length ? middle_length : length;
        less_one = long_length > length ? far : less_one;
        length = long_length > length ? long_length : length;
        if ((length == LEAD) | (at >= tail)) {
            const unsigned limit = match_limit(n - at);
            length = length < limit ? length : limit;
            if (length == LEAD)
                length = FN(equal_further)(p, p - less_one - 1, limit);
        }
        if (literals_cost(s, p, (i32)length) <= (i32)s->cost.length[length] + distance_cost(s, less_one)) {
            i = FN(remember)(s, i, i + 1, now, step);
            continue;
        }
        copy_literals(literals, row + taken, at - taken);
        literals += at - taken;
        *to++ = (token){waiting + (u32)(at - taken), (u16)length, (u16)less_one};
        waiting = 0;
        taken = at += length;
        const size_t after = (at + step - 1) / step;
        if (after >= places) {
            FN(remember)(s, i, places, now, step);
            i = after;
            break;
        }
        i = FN(remember)(s, i, after, now, step);
    }
    *described = taken;
    q->count = (size_t)(to - q->tokens);
    q->literal_count = (size_t)(literals - q->literals);
    q->tail = waiting;
    return step * i;
}

/* Looks up and describes row[0..n) from byte `i` on; `all` bytes may be matched. */
INLINE TARGET size_t FN(search_greedily)(scanner *s, const u8 *row, size_t n, size_t i, size_t all, size_t *described,
                                         u32 position, sequence *q, const size_t step) {
    const size_t places = n / step, first = (i + step - 1) / step;
    (step == 1 ? FN(hash_bytes) : FN(hash_words))(s, row, places, 16 - s->bits);
    if (position - s->start < WINDOW)
        return FN(describe_greedily)(s, row, places, first, all, described, position, q, step, 1);
    return FN(describe_greedily)(s, row, places, first, all, described, position, q, step, 0);
}

static TARGET NOINLINE size_t FN(search_bytes)(scanner *s, const u8 *row, size_t n, size_t i, size_t all, size_t *described,
                                               u32 position, sequence *q) {
    return FN(search_greedily)(s, row, n, i, all, described, position, q, 1);
}

static TARGET NOINLINE size_t FN(search_words)(scanner *s, const u8 *row, size_t n, size_t i, size_t all, size_t *described,
                                               u32 position, sequence *q) {
    return FN(search_greedily)(s, row, n, i, all, described, position, q, 2);
}

static TARGET void FN(scan_greedily)(scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, sequence *q) {
    size_t i = 0, taken = 0, at = 0;
    if (position == s->start) { /* nothing is before the first pixel */
        i = at = 1 + s->pixel_bytes;
        row_end = s->stride;
    }
    while (at < n) {
        if (at == row_end) { /* the number of a filter */
            row_end += s->stride;
            at++;
            continue;
        }
        size_t end = row_end < n ? row_end : n;
        end = end - at > SEGMENT ? at + SEGMENT : end;
        i = i < at ? at : i;
        if (i < end) { /* else it lies within a match */
            size_t done = taken - at;
            i = at + (s->step == 1 ? FN(search_bytes) : FN(search_words))(s, data + at, end - at, i - at, n - at, &done,
                                                                          position + (u32)at, q);
            taken = at + done;
        }
        at = end;
    }
    if (taken < n)
        add_literals(q, data + taken, n - taken);
    q->bytes += n;
}
