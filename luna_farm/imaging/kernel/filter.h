/* Chooses and applies a PNG filter for each row. */
#ifndef LUNA_FILTER_H
#define LUNA_FILTER_H

#include "common.h"

/* Zero bytes on either side of a row in its buffer: the widest vector. */
enum { MARGIN = 64 };
enum { FILTER_NONE, FILTER_SUB, FILTER_UP, FILTER_AVERAGE, FILTER_PAETH, FILTER_COUNT };

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
#define LUNA_ISA 512
#include "simd.h"
#include "filter_rows.h"
#undef LUNA_ISA
#endif

static u64 filter_row(int isa, int filter, int priced, const u8 *row, const u8 *above, size_t bytes, size_t step,
                      u8 *out) {
#ifdef LUNA_DISPATCH
    if (isa == ISA_AVX512)
        return filter_row_avx512(filter, priced, row, above, bytes, step, out);
    if (isa == ISA_AVX2)
        return filter_row_avx2(filter, priced, row, above, bytes, step, out);
#endif
    (void)isa;
    return filter_row_base(filter, priced, row, above, bytes, step, out);
}

/* Copies a row of the picture into a row buffer; 16-bit samples become big-endian, as PNG wants them. */
static void take_row(u8 *RESTRICT row, const u8 *RESTRICT pixels, size_t bytes, size_t sample_bytes) {
    if (sample_bytes == 1 || LUNA_BIG_ENDIAN) {
        memcpy(row, pixels, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i += 2) {
        row[i] = pixels[i + 1];
        row[i + 1] = pixels[i];
    }
}

#endif
