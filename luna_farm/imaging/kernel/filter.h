/* Chooses and applies a PNG filter for each row. */
#ifndef LUNA_FILTER_H
#define LUNA_FILTER_H

#include "cpu.h"

/* Zero bytes on either side of a row in its buffer: the widest vector. */
enum { MARGIN = 64, LONG_ROW = 1024 };
enum { FILTER_NONE, FILTER_SUB, FILTER_UP, FILTER_AVERAGE, FILTER_PAETH, FILTER_COUNT, FILTER_BEST = FILTER_COUNT, FILTER_ASKED };

/* What cost() in filter_rows.h makes of 0 .. 15 where it cannot look it up: 4 min(v, 1) + 2 min(v, 3) + min(v, 7) + v. */
static const u8 COSTS[16] = {0, 8, 12, 16, 18, 20, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32};

#ifdef LUNA_X86
#define LUNA_ISA 128
#else
#define LUNA_ISA 1
#endif
#include "simd.h"
#include "filter_rows.h"
#undef LUNA_ISA
#ifdef LUNA_DISPATCH
#define LUNA_ISA 256
#include "simd.h"
#include "filter_rows.h"
#undef LUNA_ISA
#endif
#ifdef LUNA_AVX512
#define LUNA_ISA 512
#include "simd.h"
#include "filter_rows.h"
#undef LUNA_ISA
#endif

static void filter_row(int isa, int filter, const u8 *row, const u8 *above, size_t bytes, size_t pixel_bytes, u8 *out) {
#ifdef LUNA_AVX512
    if (isa == ISA_AVX512) {
        filter_row_avx512(filter, row, above, bytes, pixel_bytes, out);
        return;
    }
#endif
#ifdef LUNA_DISPATCH
    if (isa == ISA_AVX2) {
        filter_row_avx2(filter, row, above, bytes, pixel_bytes, out);
        return;
    }
#endif
    (void)isa;
    filter_row_base(filter, row, above, bytes, pixel_bytes, out);
}

static void cost_row(int isa, const u8 *row, const u8 *above, size_t bytes, size_t pixel_bytes, size_t skip, u64 *costs) {
#ifdef LUNA_AVX512
    if (isa == ISA_AVX512) {
        cost_row_avx512(row, above, bytes, pixel_bytes, skip, costs);
        return;
    }
#endif
#ifdef LUNA_DISPATCH
    if (isa == ISA_AVX2) {
        cost_row_avx2(row, above, bytes, pixel_bytes, skip, costs);
        return;
    }
#endif
    (void)isa;
    cost_row_base(row, above, bytes, pixel_bytes, skip, costs);
}

/* The filter whose result is cheapest to send; Paeth where they are equal, which wins most rows. Of a long row every
 * second vector speaks for all. */
static int best_filter(int isa, const u8 *row, const u8 *above, size_t bytes, size_t pixel_bytes) {
    u64 costs[FILTER_COUNT];
    int best = FILTER_PAETH;
    cost_row(isa, row, above, bytes, pixel_bytes, bytes >= LONG_ROW ? 2 : 1, costs);
    for (int f = FILTER_PAETH - 1; f >= 0; f--)
        if (costs[f] < costs[best])
            best = f;
    return best;
}

/* Puts samples of 16 bits into the order of a file, high byte first. */
static void order_samples(u8 *p, size_t bytes) {
    for (size_t i = 0; i < bytes && !LUNA_BIG_ENDIAN; i += 2) {
        u16 v = load16(p + i);
        v = (u16)(v >> 8 | v << 8);
        memcpy(p + i, &v, 2);
    }
}

#endif
