/* One deflate block: from bytes and the matches found among them to bits. Decides between a Huffman code made for the
 * block, the fixed code and no compression by their exact sizes, so a block is never larger than stored. */
#ifndef LUNA_BLOCK_H
#define LUNA_BLOCK_H

#include "bits.h"
#include "huffman.h"
#include "symbols.h"

/* `literals` bytes as they are, then `length` bytes as they stood `distance` before. length 0: none (the last). */
typedef struct {
    u32 literals;
    u16 length;
    u16 distance; /* less one, so that 32768 fits */
} token;

typedef struct {
    u32 litlen[LITLEN_SYMBOLS];
    u32 dist[DIST_SYMBOLS];
    u64 extra_bits;
} histogram;

typedef struct {
    u8 litlen_bits[MAX_SYMBOLS];
    u16 litlen_code[MAX_SYMBOLS];
    u8 dist_bits[DIST_SYMBOLS + 2];
    u16 dist_code[DIST_SYMBOLS + 2];
    u32 length_code[MAX_MATCH + 1]; /* code and extra bits of a length, shifted by 5, and their count below */
    u8 low[256], high[256]; /* the literals' codes in bytes */
    int use_pairs;
    u32 pair[65536]; /* two literals at once: code << 5 | bits, or 0 where 27 bits do not hold them */
} codebook;

#include "literals.h"

/* Counts bytes in four tables by turns: equal neighbours would otherwise wait for each other's sum. */
static void count_bytes(u32 table[4][256], const u8 *p, size_t n) {
    for (; n >= 8; n -= 8, p += 8) {
        u64 v = load64(p);
        table[0][v & 255]++;
        table[1][v >> 8 & 255]++;
        table[2][v >> 16 & 255]++;
        table[3][v >> 24 & 255]++;
        table[0][v >> 32 & 255]++;
        table[1][v >> 40 & 255]++;
        table[2][v >> 48 & 255]++;
        table[3][v >> 56]++;
    }
    for (; n; n--)
        table[n & 3][*p++]++;
}

static void count_block(histogram *h, const u8 *data, const token *tokens, size_t count) {
    u32 table[4][256];
    memset(table, 0, sizeof table);
    memset(h, 0, sizeof *h);
    for (size_t i = 0; i < count; i++) {
        count_bytes(table, data, tokens[i].literals);
        data += tokens[i].literals + tokens[i].length;
        if (tokens[i].length) {
            unsigned slot = length_slot[tokens[i].length], far = dist_slot(tokens[i].distance + 1u);
            h->litlen[257 + slot]++;
            h->dist[far]++;
            h->extra_bits += LENGTH_EXTRA[slot] + dist_extra(far);
        }
    }
    for (int i = 0; i < 256; i++)
        h->litlen[i] = table[0][i] + table[1][i] + table[2][i] + table[3][i];
    h->litlen[END_OF_BLOCK] = 1;
}

static u64 coded_bits(const histogram *h, const u8 *litlen_bits, const u8 *dist_bits) {
    u64 bits = h->extra_bits;
    for (int i = 0; i < LITLEN_SYMBOLS; i++)
        bits += (u64)h->litlen[i] * litlen_bits[i];
    for (int i = 0; i < DIST_SYMBOLS; i++)
        bits += (u64)h->dist[i] * dist_bits[i];
    return bits;
}

static void fixed_lengths(codebook *book) {
    memset(book->litlen_bits, 8, MAX_SYMBOLS);
    memset(book->litlen_bits + 144, 9, 112);
    memset(book->litlen_bits + 256, 7, 24);
    memset(book->dist_bits, 5, sizeof book->dist_bits);
}

static void finish_codebook(codebook *book, int symbols, int dists, u64 literals) {
    canonical_codes(book->litlen_bits, symbols, book->litlen_code);
    canonical_codes(book->dist_bits, dists, book->dist_code);
    for (u32 length = MIN_MATCH; length <= MAX_MATCH; length++) {
        unsigned slot = length_slot[length], bits = book->litlen_bits[257 + slot];
        u32 code = book->litlen_code[257 + slot] | (length - LENGTH_BASE[slot]) << bits;
        book->length_code[length] = code << 5 | (bits + LENGTH_EXTRA[slot]);
    }
    prepare_literals(book, literals);
}

static void put_header(bitstream *s, const header *h) {
    put_bits(s, (u64)(h->litlens - 257) | (u64)(h->dists - 1) << 5 | (u64)(h->precodes - 4) << 10, 14);
    for (int i = 0; i < h->precodes; i++)
        put_bits(s, h->length[PRECODE_ORDER[i]], 3);
    for (int i = 0; i < h->items; i++) {
        unsigned item = h->item[i], bits = h->length[item];
        put_bits(s, h->code[item] | (u64)h->extra[i] << bits, bits + precode_extra_bits(item));
    }
}

static void put_tokens(bitstream *s, const codebook *book, const u8 *data, const token *tokens, size_t count) {
    bitstream local = *s; /* in registers, which a pointer to it would forbid */
    for (size_t i = 0; i < count; i++) {
        put_literals(&local, book, data, tokens[i].literals);
        data += tokens[i].literals + tokens[i].length;
        if (tokens[i].length) {
            u32 code = book->length_code[tokens[i].length], bits = code & 31;
            unsigned slot = dist_slot(tokens[i].distance + 1u), dist_bits = book->dist_bits[slot];
            u64 value = code >> 5 | (u64)book->dist_code[slot] << bits;
            bits += dist_bits;
            value |= (u64)(tokens[i].distance + 1u - DIST_BASE[slot]) << bits;
            put_bits(&local, value, bits + dist_extra(slot));
        }
    }
    put_bits(&local, book->litlen_code[END_OF_BLOCK], book->litlen_bits[END_OF_BLOCK]);
    *s = local;
}

/* Stored blocks hold at most 65,535 bytes each. n == 0 gives one empty block, which also fills up to a byte. */
static void put_stored(bitstream *s, const u8 *data, size_t n, int final) {
    do {
        size_t piece = n < 65535 ? n : 65535;
        n -= piece;
        put_bits(s, (u64)(final && !n), 3);
        fill_byte(s);
        put_bits(s, (u64)piece | (u64)(piece ^ 65535) << 16, 32);
        memcpy(s->at, data, piece);
        s->at += piece;
        data += piece;
    } while (n);
}

INLINE u64 stored_bits(u64 n) { return 8 * n + 42 * (n / 65535 + 1); }

/* Sends data[0..n), which `tokens` describe entirely. `h` is filled with the block's statistics. */
static void put_block(bitstream *s, codebook *book, histogram *h, const u8 *data, size_t n, const token *tokens,
                      size_t count, int final) {
    header head;
    count_block(h, data, tokens, count);
    u64 literals = 0;
    for (int i = 0; i < 256; i++)
        literals += h->litlen[i];
    fixed_lengths(book);
    u64 fixed = coded_bits(h, book->litlen_bits, book->dist_bits);
    code_lengths(h->litlen, LITLEN_SYMBOLS, MAX_BITS, book->litlen_bits);
    code_lengths(h->dist, DIST_SYMBOLS, MAX_BITS, book->dist_bits);
    describe_codes(&head, book->litlen_bits, book->dist_bits);
    u64 dynamic = head.bits + coded_bits(h, book->litlen_bits, book->dist_bits);
    if (stored_bits(n) <= dynamic && stored_bits(n) <= fixed) {
        put_stored(s, data, n, final);
        return;
    }
    if (fixed <= dynamic) {
        fixed_lengths(book);
        finish_codebook(book, MAX_SYMBOLS, DIST_SYMBOLS + 2, literals);
        put_bits(s, (u64)final | 1 << 1, 3);
    } else {
        finish_codebook(book, LITLEN_SYMBOLS, DIST_SYMBOLS, literals);
        put_bits(s, (u64)final | 2 << 1, 3);
        put_header(s, &head);
    }
    put_tokens(s, book, data, tokens, count);
}

#endif
