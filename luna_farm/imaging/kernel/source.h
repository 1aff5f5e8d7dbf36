/* From the rows of an image to filtered bytes, the stream that PNG compresses: of each row the number of its filter,
 * then its bytes. Rows of any length are filtered in pieces, so that no buffer grows with the image. */
#ifndef LUNA_SOURCE_H
#define LUNA_SOURCE_H

#include "filter.h"
#include "status.h"

/* A block's filtered bytes: enough for a Huffman code to pay, little enough for the second level cache. */
enum { BLOCK_BYTES = 320 * 1024, SMALL_BLOCK_BYTES = 128 * 1024, LARGEST_BLOCK = BLOCK_BYTES + BLOCK_BYTES / 2 };
/* Filtered bytes of a strip: positions are counted in 32 bits, and a PNG chunk holds less than 2**31. */
#define LARGEST_STRIP ((size_t)1 << 30)

typedef struct {
    const u8 *pixels; /* the whole image, row after row */
    size_t height, row_bytes;
    size_t pixel_bytes;
    size_t sample_bytes; /* 1, or 2 for 16-bit samples in the machine's order */
    size_t first_row, last_row; /* the strip: rows first_row .. last_row - 1 */
    int level;
    int filter; /* of all rows at levels 5 to 9, where the caller has found it by trials; FILTER_ASKED: the sample's */
} strip;

/* Where filtering has got to: `done` bytes of row `y` are filtered, its number included; 0: not begun. */
typedef struct {
    size_t y, done;
    int filter; /* of row y, once it is begun */
} cursor;

/* Two rows, or pieces of rows, with MARGIN zero bytes on either side. */
typedef struct {
    u8 *row, *above;
} row_buffers;

/* Whether so many rows are something that the kernel counts in 32 bits and a PNG chunk holds. */
static int luna_fits_strip(size_t rows, size_t row_bytes) {
    return rows && row_bytes && row_bytes < LARGEST_STRIP && rows <= LARGEST_STRIP / (row_bytes + 1);
}

/* Judges a strip whose pixels have so many bytes. Nothing else in the kernel checks its arguments. */
static luna_status luna_check_strip(const strip *s, size_t bytes) {
    if (s->pixel_bytes < 1 || s->pixel_bytes > 8 || s->pixel_bytes == 5 || s->pixel_bytes == 7)
        return LUNA_BAD_PIXEL_BYTES;
    if (s->sample_bytes < 1 || s->sample_bytes > 2 || s->pixel_bytes % s->sample_bytes)
        return LUNA_BAD_SAMPLE_BYTES;
    if (!s->row_bytes || s->row_bytes % s->pixel_bytes)
        return LUNA_BAD_ROW_BYTES;
    if (s->first_row >= s->last_row || s->last_row > s->height || s->height > bytes / s->row_bytes)
        return LUNA_ROWS_OUTSIDE;
    if (!luna_fits_strip(s->last_row - s->first_row, s->row_bytes))
        return LUNA_STRIP_TOO_LARGE;
    if (s->filter < FILTER_NONE || s->filter > FILTER_ASKED)
        return LUNA_BAD_FILTER;
    return s->level < 0 || s->level > 9 ? LUNA_BAD_LEVEL : LUNA_OK;
}

INLINE size_t stream_bytes(const strip *s) { return (s->last_row - s->first_row) * (s->row_bytes + 1); }

/* Bytes of a block: whole rows, all blocks of about one size and at most half as large again as asked for (a small one
 * at the end would cost as much as the others); of rows longer than that, pieces. */
static size_t block_bytes(const strip *s, size_t wanted) {
    size_t stride = s->row_bytes + 1, all = stream_bytes(s), blocks = (all + wanted / 2) / wanted;
    size_t rows = blocks <= 1 ? s->last_row - s->first_row : (s->last_row - s->first_row + blocks - 1) / blocks;
    if (stride > wanted + wanted / 2)
        return wanted;
    while (rows > 1 && rows * stride > wanted + wanted / 2)
        rows--;
    return rows * stride;
}

/* The most bytes of a row that are filtered at once into so much room. */
static size_t longest_piece(const strip *s, size_t room) { return s->row_bytes < room ? s->row_bytes : room; }

/* The bytes that a piece of a row needs in row_buffers, both together. */
static size_t row_buffer_bytes(size_t longest_piece) { return 2 * ((longest_piece + MARGIN - 1) / MARGIN + 2) * MARGIN; }

static row_buffers row_buffers_in(u8 *memory, size_t longest_piece) {
    size_t each = row_buffer_bytes(longest_piece) / 2;
    memset(memory, 0, 2 * each);
    return (row_buffers){memory + MARGIN, memory + each + MARGIN};
}

/* Copies n bytes from byte x of a row into a row buffer, with the pixel to the left of them. What is behind them is
 * set to zero, so that the last vector costs nothing. */
static void copy_piece(const strip *s, u8 *to, const u8 *row, size_t x, size_t n) {
    size_t left = x ? s->pixel_bytes : 0;
    memset(to - s->pixel_bytes, 0, s->pixel_bytes);
    memcpy(to - left, row + x - left, n + left);
    memset(to + n, 0, MARGIN);
}

/* The first pixel of a row, which has nothing to its left: there Paeth is Up, and the average half of what is above. */
static void filter_edge(int filter, const u8 *row, const u8 *above, size_t pixel_bytes, u8 *out) {
    for (size_t i = 0; i < pixel_bytes; i++)
        out[i] = (u8)(row[i] - (filter < FILTER_UP ? 0 : filter == FILTER_AVERAGE ? above[i] >> 1 : above[i]));
}

/* Filters n bytes of row y from byte x on to `out`, which has room for n rounded up to MARGIN. FILTER_BEST takes the one
 * that is cheapest here. Returns the filter. */
static int filter_piece(int isa, const strip *s, const row_buffers *b, size_t y, size_t x, size_t n, int filter, u8 *out) {
    const size_t bytes = s->row_bytes;
    const u8 *row = s->pixels + y * bytes, *above = row - (y ? bytes : 0);
    /* In the midst of an image a row is filtered where it stands: what is read beside it are other pixels, and only
     * those to the left matter. Elsewhere it is copied between margins. */
    int in_place = y >= 2 && (s->height - y) * bytes - x - n >= MARGIN && bytes >= s->pixel_bytes;
    if (in_place) {
        row += x;
        above += x;
    } else {
        copy_piece(s, b->row, row, x, n);
        if (y)
            copy_piece(s, b->above, above, x, n);
        else
            memset(b->above - MARGIN, 0, n + 2 * MARGIN);
        row = b->row;
        above = b->above;
    }
    if (filter == FILTER_BEST)
        filter = best_filter(isa, row, above, n, s->pixel_bytes);
    filter_row(isa, filter, row, above, n, s->pixel_bytes, out);
    if (in_place && x == 0)
        filter_edge(filter, row, above, s->pixel_bytes < n ? s->pixel_bytes : n, out);
    if (s->sample_bytes == 2) /* a filter takes each byte by itself, in any order */
        order_samples(out, n);
    return filter;
}

/* Filters up to `room` bytes from the cursor on, whole rows unless a row alone is longer. Returns how many bytes; MARGIN
 * zeros stand behind them. */
static size_t fill_block(int isa, const strip *s, const row_buffers *b, cursor *at, int filter, u8 *out, size_t room) {
    const size_t stride = s->row_bytes + 1;
    size_t n = 0;
    while (at->y < s->last_row && n < room) {
        size_t left = stride - at->done, piece = left < room - n ? left : room - n;
        if (piece < left && n)
            break;
        if (piece < left) /* the next piece begins with a pixel */
            piece -= (at->done + piece - 1) % s->pixel_bytes;
        u8 *to = out + n;
        n += piece;
        if (at->done == 0) {
            at->filter = filter_piece(isa, s, b, at->y, 0, piece - 1, filter, to + 1);
            *to = (u8)at->filter;
        } else {
            filter_piece(isa, s, b, at->y, at->done - 1, piece, at->filter, to);
        }
        at->done += piece;
        if (at->done == stride) {
            at->done = 0;
            at->y++;
        }
    }
    memset(out + n, 0, MARGIN);
    return n;
}

#endif
