/* Scores of an 8-bit image, as scores.py defines them and computes them without the kernel: the same pixels are read.
 *
 * Luma is a whole number of thousandths (299 R + 587 G + 114 B), so sums over it are exact. Memory: two rows of luma. */
#ifndef LUNA_SCORES_H
#define LUNA_SCORES_H

#include "cpu.h"
#include "status.h"

#define SCORES_GRID 64             /* GRID in scores.py */
#define SCORES_WHOLE (16 * 1024)   /* SAMPLED_PIXELS: an image with more pixels is not read whole */
#define SCORES_PAIRS 32            /* PAIRS of rows, */
#define SCORES_PIECES 8            /* PIECES of a row, */
#define SCORES_PIECE 32            /* and PIECE pixels of each that edges are measured in */
#define SCORES_FREQUENCIES 11      /* _FREQUENCIES in each direction */
#define SCORES_BITS 64

typedef struct {
    const u8 *pixels;
    size_t height, width, channels;
    const float *down, *across; /* cosines: SCORES_FREQUENCIES times as many as the grid has rows, and columns */
} scores_image;

typedef struct {
    double variance, edges, clipped; /* of luma in thousandths; clipped is a share 0..1 */
    int blank;
    u64 hash;
} luna_scores;

INLINE size_t scores_side(size_t length) { return length < SCORES_GRID ? length : SCORES_GRID; }

/* Where number `at` of `count` evenly spread places lies, in the middle of its share. */
INLINE size_t scores_place(size_t at, size_t count, size_t length) {
    return (size_t)(((double)at + 0.5) * ((double)length / (double)count));
}

INLINE u32 scores_luma(const u8 *pixel, size_t channels) {
    return channels < 3 ? 1000u * pixel[0] : 299u * pixel[0] + 587u * pixel[1] + 114u * pixel[2];
}

INLINE u32 scores_distance(u32 a, u32 b) { return a < b ? b - a : a - b; }

INLINE void scores_row(const u8 *pixels, size_t count, size_t channels, u32 *RESTRICT luma) {
    if (channels == 3) /* a constant stride is what compilers vectorize */
        for (size_t x = 0; x < count; x++)
            luma[x] = scores_luma(pixels + 3 * x, 3);
    else
        for (size_t x = 0; x < count; x++)
            luma[x] = scores_luma(pixels + channels * x, channels);
}

/* Of luma as u32: u32 * u32 is what vectors multiply. */
typedef struct {
    u64 sum, squares, count, down, across, downs, acrosses;
} scores_sums;

INLINE void scores_add_levels(scores_sums *sums, const u32 *luma, size_t count) {
    u64 sum = 0, squares = 0;
    for (size_t x = 0; x < count; x++) {
        sum += luma[x];
        squares += (u64)luma[x] * luma[x];
    }
    sums->sum += sum;
    sums->squares += squares;
    sums->count += count;
}

INLINE void scores_add_across(scores_sums *sums, const u32 *luma, size_t count) {
    u64 across = 0;
    for (size_t x = 1; x < count; x++)
        across += scores_distance(luma[x], luma[x - 1]);
    sums->across += across;
    sums->acrosses += count - 1;
}

INLINE void scores_add_down(scores_sums *sums, const u32 *luma, const u32 *above, size_t count) {
    u64 down = 0;
    for (size_t x = 0; x < count; x++)
        down += scores_distance(luma[x], above[x]);
    sums->down += down;
    sums->downs += count;
}

/* Every pixel of a small or narrow image. `rows` holds two rows of luma. */
INLINE void scores_whole(const scores_image *image, u32 *rows, scores_sums *sums) {
    for (size_t y = 0; y < image->height; y++) {
        u32 *luma = rows + (y & 1) * image->width, *above = rows + (~y & 1) * image->width;
        scores_row(image->pixels + y * image->width * image->channels, image->width, image->channels, luma);
        scores_add_levels(sums, luma, image->width);
        scores_add_across(sums, luma, image->width);
        if (y)
            scores_add_down(sums, luma, above, image->width);
    }
}

/* The edges of a larger image, in pieces of two rows that are spread evenly. */
INLINE void scores_pieces(const scores_image *image, scores_sums *sums) {
    size_t row_step = image->height / SCORES_PAIRS, step = image->width / SCORES_PIECES;
    size_t length = step < SCORES_PIECE ? step : SCORES_PIECE, row_bytes = image->width * image->channels;
    u32 luma[SCORES_PIECE], below[SCORES_PIECE];
    for (size_t pair = 0; pair < SCORES_PAIRS; pair++)
        for (size_t piece = 0; piece < SCORES_PIECES; piece++) {
            const u8 *at = image->pixels + ((row_step - 1) / 2 + pair * row_step) * row_bytes;
            at += ((step - length) / 2 + piece * step) * image->channels;
            scores_row(at, length, image->channels, luma);
            scores_row(at + row_bytes, length, image->channels, below);
            scores_add_across(sums, luma, length);
            scores_add_across(sums, below, length);
            scores_add_down(sums, below, luma, length);
        }
}

#define SCORES_LANES 8

/* Cosine transform of the grid: rows first, then columns. Both are padded with zeros to a width that compilers turn into
 * whole vectors. */
INLINE void scores_frequencies(const scores_image *image, const float *level, size_t rows, size_t columns,
                               float found[SCORES_FREQUENCIES][SCORES_FREQUENCIES]) {
    float across[SCORES_FREQUENCIES][SCORES_GRID] = {{0}}, lines[SCORES_FREQUENCIES][SCORES_GRID];
    for (size_t g = 0; g < SCORES_FREQUENCIES; g++)
        memcpy(across[g], image->across + g * columns, columns * sizeof(float));
    for (size_t x = 0; x < SCORES_GRID; x += SCORES_LANES) {
        float sums[SCORES_FREQUENCIES][SCORES_LANES] = {{0}};
        for (size_t y = 0; y < rows; y++)
            for (size_t f = 0; f < SCORES_FREQUENCIES; f++)
                for (size_t lane = 0; lane < SCORES_LANES; lane++)
                    sums[f][lane] += image->down[f * rows + y] * level[y * SCORES_GRID + x + lane];
        for (size_t f = 0; f < SCORES_FREQUENCIES; f++)
            memcpy(lines[f] + x, sums[f], sizeof sums[f]);
    }
    for (size_t f = 0; f < SCORES_FREQUENCIES; f++)
        for (size_t g = 0; g < SCORES_FREQUENCIES; g++) {
            float sums[SCORES_LANES] = {0}, sum = 0;
            for (size_t x = 0; x < SCORES_GRID; x += SCORES_LANES)
                for (size_t lane = 0; lane < SCORES_LANES; lane++)
                    sums[lane] += lines[f][x + lane] * across[g][x + lane];
            for (size_t lane = 0; lane < SCORES_LANES; lane++)
                sum += sums[lane];
            found[f][g] = sum;
        }
}

/* Bit 63 is the lowest frequency: each is compared with the median of all. After the mean they are taken by rising sum
 * of their numbers, then by rows. */
INLINE u64 scores_hash(const scores_image *image, const u32 *grid, size_t rows, size_t columns, double mean) {
    float level[SCORES_GRID * SCORES_GRID] = {0}, all[SCORES_FREQUENCIES][SCORES_FREQUENCIES];
    float found[SCORES_BITS], sorted[SCORES_BITS];
    for (size_t y = 0; y < rows; y++)
        for (size_t x = 0; x < columns; x++)
            level[y * SCORES_GRID + x] = (float)grid[y * columns + x] - (float)mean;
    scores_frequencies(image, level, rows, columns, all);
    size_t count = 0;
    for (size_t sum = 1; count < SCORES_BITS; sum++)
        for (size_t f = 0; f <= sum && count < SCORES_BITS; f++) {
            if (f >= SCORES_FREQUENCIES || sum - f >= SCORES_FREQUENCIES)
                continue;
            float value = all[f][sum - f];
            size_t at = count;
            for (; at && sorted[at - 1] > value; at--)
                sorted[at] = sorted[at - 1];
            sorted[at] = value;
            found[count++] = value;
        }
    u64 bits = 0;
    for (size_t i = 0; i < SCORES_BITS; i++)
        bits = bits << 1 | (found[i] > sorted[SCORES_BITS / 2 - 1]);
    return bits;
}

/* Luma of a row of the grid; returns how many of its pixels have a channel at an end. */
INLINE size_t scores_grid_row(const u8 *row, const size_t *places, size_t columns, size_t channels, u32 *luma) {
    size_t clipped = 0;
    for (size_t x = 0; x < columns; x++) {
        const u8 *pixel = row + places[x];
        u32 ends = (u8)(pixel[0] + 1) <= 1;
        if (channels > 1)
            ends |= (u32)((u8)(pixel[1] + 1) <= 1) | (u32)((u8)(pixel[2] + 1) <= 1);
        clipped += ends;
        luma[x] = scores_luma(pixel, channels);
    }
    return clipped;
}

/* Whether every pixel equals the first. Most images show in two that they do not. */
INLINE int scores_blank(const scores_image *image) {
    size_t channels = image->channels, bytes = image->height * image->width * channels;
    if (memcmp(image->pixels, image->pixels + bytes - channels, channels))
        return 0;
    return !memcmp(image->pixels, image->pixels + channels, bytes - channels); /* equal to itself one pixel on */
}

/* Returns LUNA_NO_MEMORY where there is none for two rows. */
INLINE luna_status scores_score(const scores_image *image, luna_scores *out) {
    size_t rows = scores_side(image->height), columns = scores_side(image->width), channels = image->channels;
    int narrow = image->height < 2 * SCORES_PAIRS || image->width < 2 * SCORES_PAIRS;
    int whole = narrow || image->height * image->width <= SCORES_WHOLE;
    u32 grid[SCORES_GRID * SCORES_GRID];
    size_t clipped = 0, places[SCORES_GRID];
    int blank = scores_blank(image);
    scores_sums sums = {0}, spread = {0};
    for (size_t x = 0; x < columns; x++)
        places[x] = scores_place(x, columns, image->width) * channels;
    for (size_t y = 0; y < rows; y++) {
        const u8 *row = image->pixels + scores_place(y, rows, image->height) * image->width * channels;
        u32 *luma = grid + y * columns; /* a constant number of channels is what compilers unroll */
        if (channels == 3)
            clipped += scores_grid_row(row, places, columns, 3, luma);
        else if (channels == 4)
            clipped += scores_grid_row(row, places, columns, 4, luma);
        else
            clipped += scores_grid_row(row, places, columns, 1, luma);
    }
    scores_add_levels(&spread, grid, rows * columns);
    out->hash = blank ? 0 : scores_hash(image, grid, rows, columns, (double)spread.sum / (double)spread.count);
    if (whole) {
        u32 *memory = malloc(2 * image->width * sizeof *memory);
        if (!memory)
            return LUNA_NO_MEMORY;
        scores_whole(image, memory, &sums);
        free(memory);
    } else {
        scores_pieces(image, &sums);
        sums.sum = spread.sum, sums.squares = spread.squares, sums.count = spread.count;
    }
    double mean = (double)sums.sum / (double)sums.count;
    out->variance = (double)sums.squares / (double)sums.count - mean * mean;
    out->variance = out->variance > 0 && !blank ? out->variance : 0;
    out->edges = 0;
    if (sums.downs)
        out->edges += (double)sums.down / (double)sums.downs / 2;
    if (sums.acrosses)
        out->edges += (double)sums.across / (double)sums.acrosses / 2;
    out->clipped = (double)clipped / (double)(rows * columns);
    out->blank = blank;
    return LUNA_OK;
}

static luna_status scores_base(const scores_image *image, luna_scores *out) { return scores_score(image, out); }

#ifdef LUNA_DISPATCH
TARGET_AVX2 static luna_status scores_avx2(const scores_image *image, luna_scores *out) {
    return scores_score(image, out);
}
#endif

static luna_status luna_score(const scores_image *image, luna_scores *out) {
#ifdef LUNA_DISPATCH
    if (detect_isa() >= ISA_AVX2)
        return scores_avx2(image, out);
#endif
    return scores_base(image, out);
}

#endif
