/* The search by words (scan_words in scan.h) over rows of filtered bytes. Compiled once for each instruction set in simd.h,
 * so it has no include guard. It compares as scan_rows.h does. */

/* Hashes two, three and five words from each of p's on. Sums of products of 16 bits are what every processor has in
 * vectors. */
static TARGET NOINLINE void FN(hash_words)(scanner *s, const u8 *p, size_t words, unsigned shift) {
    u16 *RESTRICT two = s->last, *RESTRICT three = s->three, *RESTRICT five = s->long_last;
    for (size_t k = 0; k < words; k++) {
        u16 a = load16(p + 2 * k), b = load16(p + 2 * k + 2), c = load16(p + 2 * k + 4), d = load16(p + 2 * k + 6);
        u16 e = load16(p + 2 * k + 8), sum = (u16)(a * FIRST_WORD + b * SECOND_WORD);
        two[k] = (u16)(sum >> shift);
        sum = (u16)(sum + c * THIRD_WORD);
        three[k] = (u16)(sum >> shift);
        five[k] = (u16)((u16)(sum + d * FOURTH_WORD + e * FIFTH_WORD) >> shift);
    }
}

/* Notes where the words i .. end - 1 stand, the first of them at `position`; of a long match its ends alone. Returns end,
 * counted and not copied: a processor guesses how often a loop goes round and goes on from there, while it would wait for the
 * length of the match, which is known last. */
INLINE TARGET size_t FN(remember_words)(scanner *s, size_t i, size_t end, u32 position) {
    const size_t pause = end - i > 2 * REMEMBERED ? i + REMEMBERED : end;
    for (; i < end; i++, position += 2) {
        UNFORESEEN(i);
        if (i == pause) {
            position += 2 * (u32)(end - REMEMBERED - i);
            i = end - REMEMBERED;
        }
        s->head[s->last[i]] = s->three_head[s->three[i]] = s->long_head[s->long_last[i]] = (u16)position;
    }
    return i;
}

/* Describes the words of row[0..2 * words), which stand at `position` and are hashed, from word `i` on, as literals and
 * matches that end before byte n. What is before byte `*described` is, already. Returns the byte it got to. */
INLINE TARGET size_t FN(describe_words_as)(scanner *s, const u8 *row, size_t words, size_t i, size_t n, size_t *described,
                                           u32 position, sequence *q, const int near) {
    const size_t tail = n > LEAD ? n - LEAD : 0;
    size_t taken = *described;
    token *to = q->tokens + q->count;
    u8 *literals = q->literals + q->literal_count;
    u32 waiting = q->tail;
    while (i < words) {
        const u8 *p = row + 2 * i;
        size_t at = 2 * i;
        const u32 now = position + (u32)at;
        u32 less_one = (now - 1 - s->head[s->last[i]]) & (WINDOW - 1);
        u32 middle = (now - 1 - s->three_head[s->three[i]]) & (WINDOW - 1);
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
            i = FN(remember_words)(s, i, i + 1, now);
            continue;
        }
        copy_literals(literals, row + taken, at - taken);
        literals += at - taken;
        *to++ = (token){waiting + (u32)(at - taken), (u16)length, (u16)less_one};
        waiting = 0;
        taken = at += length;
        const size_t after = (at + 1) / 2;
        if (after >= words) {
            FN(remember_words)(s, i, words, now);
            i = after;
            break;
        }
        i = FN(remember_words)(s, i, after, now);
    }
    *described = taken;
    q->count = (size_t)(to - q->tokens);
    q->literal_count = (size_t)(literals - q->literals);
    q->tail = waiting;
    return 2 * i;
}

static TARGET NOINLINE size_t FN(describe_words)(scanner *s, const u8 *row, size_t words, size_t i, size_t n,
                                                 size_t *described, u32 position, sequence *q) {
    if (position - s->start < WINDOW)
        return FN(describe_words_as)(s, row, words, i, n, described, position, q, 1);
    return FN(describe_words_as)(s, row, words, i, n, described, position, q, 0);
}

static TARGET void FN(scan_words)(scanner *s, const u8 *data, size_t n, u32 position, size_t row_end, sequence *q) {
    const unsigned shift = 16 - s->bits;
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
            size_t words = (end - at) / 2, done = taken - at;
            FN(hash_words)(s, data + at, words, shift);
            i = at + FN(describe_words)(s, data + at, words, (i - at + 1) / 2, n - at, &done, position + (u32)at, q);
            taken = at + done;
        }
        at = end;
    }
    if (taken < n)
        add_literals(q, data + taken, n - taken);
    q->bytes += n;
}
