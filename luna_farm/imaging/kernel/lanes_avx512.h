/* Sending a block's tokens 64 bytes at a time on processors that look bytes up in registers (AVX-512 VBMI). */
#ifndef LUNA_LANES_AVX512_H
#define LUNA_LANES_AVX512_H

#define VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi,bmi2")))

/* A lane holds the bits of eight neighbouring bytes. Lanes are made in batches and then sent: the two halves of the
 * work would otherwise wait for each other. A match follows its lane's literals, so it must not end in the lane it
 * begins in: every match is at least this long. */
enum { LANE_BYTES = 8, BATCH_LANES = 32, MOST_LANES = 40, LONGEST_LANE = 56 };

typedef struct {
    __m512i t[4];
} table256; /* 256 bytes in registers */

typedef struct {
    u64 bits[BATCH_LANES + MOST_LANES], count[BATCH_LANES + MOST_LANES];
    size_t filled;
} lanes;

VBMI INLINE table256 load_table(const u8 *bytes) {
    table256 out;
    for (int i = 0; i < 4; i++)
        out.t[i] = _mm512_loadu_si512(bytes + 64 * i);
    return out;
}

/* The entries for 64 indices; 0 where `in` has no bit. */
VBMI INLINE __m512i look_up(table256 table, __m512i index, __mmask64 in) {
    __mmask64 upper = _mm512_movepi8_mask(index);
    __m512i high = _mm512_maskz_permutex2var_epi8(in & upper, table.t[2], index, table.t[3]);
    return _mm512_or_si512(high, _mm512_maskz_permutex2var_epi8(in & ~upper, table.t[0], index, table.t[1]));
}

/* Joins the codes of neighbours: 16-bit parts with their sizes to 32-bit ones, and those to 64-bit ones. */
VBMI INLINE void join(__m512i *code, __m512i *size) {
    const __m512i low16 = _mm512_set1_epi32(0xffff), low32 = _mm512_set1_epi64(0xffffffff);
    __m512i first = _mm512_and_si512(*size, low16);
    __m512i second = _mm512_sllv_epi32(_mm512_srli_epi32(*code, 16), first);
    __m512i joined = _mm512_or_si512(_mm512_and_si512(*code, low16), second);
    __m512i sizes = _mm512_add_epi32(first, _mm512_srli_epi32(*size, 16));
    first = _mm512_and_si512(sizes, low32);
    second = _mm512_sllv_epi64(_mm512_srli_epi64(joined, 32), first);
    *code = _mm512_or_si512(_mm512_and_si512(joined, low32), second);
    *size = _mm512_add_epi64(first, _mm512_srli_epi64(sizes, 32));
}

INLINE void add_lane(lanes *l, u64 bits, u64 count) {
    l->bits[l->filled] = bits;
    l->count[l->filled++] = count;
}

VBMI INLINE void send_lanes(bitstream *s, lanes *l) {
    for (size_t i = 0; i < l->filled; i++)
        put_bits(s, l->bits[i], (unsigned)l->count[i]);
    l->filled = 0;
}

/* Lanes for 64 bytes where the usual eight would overflow: as many as it takes. */
VBMI static void add_split(lanes *l, const codebook *book, const u64 *bits, const u64 *count, const token *match,
                           const u8 *match_at, size_t matches) {
    size_t next = 0;
    for (unsigned half = 0; half < 16; half++) {
        if (count[half] > LONGEST_LANE) { /* at most 60 */
            add_lane(l, bits[half] & 0xffffffff, 32);
            add_lane(l, bits[half] >> 32, count[half] - 32);
        } else {
            add_lane(l, bits[half], count[half]);
        }
        if (half % 2 && next < matches && match_at[next] == half / 2) {
            unsigned size;
            u64 code = match_code(book, match[next++], &size);
            add_lane(l, code, size);
        }
    }
}

/* Sends data[0..n) as `tokens` describe it, every match being at least LANE_BYTES long; `covered` has a one bit for
 * each byte that is not sent as a literal. data[n .. n + 64) is readable. */
VBMI static void put_tokens_vbmi(bitstream *s, const codebook *book, const u8 *data, size_t n, const token *tokens,
                                 const u64 *covered) {
    const table256 low = load_table(book->low), high = load_table(book->high), sizes = load_table(book->litlen_bits);
    const __m512i zero = _mm512_setzero_si512(), longest = _mm512_set1_epi64(LONGEST_LANE);
    lanes l;
    u8 match_at[64 / LANE_BYTES];
    bitstream out = *s;
    size_t match = tokens->length ? tokens->literals : n; /* where the next match begins */
    l.filled = 0;
    for (size_t word = 0; word < n; word += 64) {
        u64 in = ~covered[word / 64];
        if (!in && match >= word + 64)
            continue;
        __m512i bytes = _mm512_loadu_si512(data + word);
        __m512i code_low = look_up(low, bytes, in), code_high = look_up(high, bytes, in);
        __m512i each = look_up(sizes, bytes, in);
        __m512i code_a = _mm512_unpacklo_epi8(code_low, code_high), size_a = _mm512_unpacklo_epi8(each, zero);
        __m512i code_b = _mm512_unpackhi_epi8(code_low, code_high), size_b = _mm512_unpackhi_epi8(each, zero);
        join(&code_a, &size_a);
        join(&code_b, &size_b);
        u64 *bits = l.bits + l.filled, *count = l.count + l.filled;
        __m512i size = _mm512_add_epi64(_mm512_unpacklo_epi64(size_a, size_b), _mm512_unpackhi_epi64(size_a, size_b));
        __m512i upper = _mm512_sllv_epi64(_mm512_unpackhi_epi64(code_a, code_b), _mm512_unpacklo_epi64(size_a, size_b));
        _mm512_storeu_si512(bits, _mm512_or_si512(_mm512_unpacklo_epi64(code_a, code_b), upper));
        _mm512_storeu_si512(count, size);
        const token *first = tokens;
        int fits = !_mm512_cmpgt_epu64_mask(size, longest);
        for (; match < word + 64 && tokens->length; tokens++) {
            unsigned match_size, lane = (unsigned)(match - word) / LANE_BYTES;
            match_at[tokens - first] = (u8)lane;
            bits[lane] |= match_code(book, *tokens, &match_size) << (count[lane] & 63);
            count[lane] += match_size;
            fits &= count[lane] <= LONGEST_LANE;
            match += tokens->length + tokens[1].literals;
        }
        if (fits) {
            l.filled += 8;
        } else {
            u64 halves[16], sizes_of[16];
            const __m512i front = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), back = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
            _mm512_storeu_si512(halves, _mm512_permutex2var_epi64(code_a, front, code_b));
            _mm512_storeu_si512(halves + 8, _mm512_permutex2var_epi64(code_a, back, code_b));
            _mm512_storeu_si512(sizes_of, _mm512_permutex2var_epi64(size_a, front, size_b));
            _mm512_storeu_si512(sizes_of + 8, _mm512_permutex2var_epi64(size_a, back, size_b));
            add_split(&l, book, halves, sizes_of, first, match_at, (size_t)(tokens - first));
        }
        if (l.filled >= BATCH_LANES)
            send_lanes(&out, &l);
    }
    send_lanes(&out, &l);
    put_bits(&out, book->litlen_code[END_OF_BLOCK], book->litlen_bits[END_OF_BLOCK]);
    *s = out;
}

#endif
