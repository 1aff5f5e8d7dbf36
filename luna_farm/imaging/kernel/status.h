/* What a call of the kernel comes to, and the sentence for it. */
#ifndef LUNA_STATUS_H
#define LUNA_STATUS_H

typedef enum {
    LUNA_OK,
    LUNA_NO_MEMORY,
    LUNA_BAD_PIXEL_BYTES,
    LUNA_BAD_SAMPLE_BYTES,
    LUNA_BAD_ROW_BYTES,
    LUNA_ROWS_OUTSIDE,
    LUNA_STRIP_TOO_LARGE,
    LUNA_BAD_LEVEL,
    LUNA_BAD_FILTER,
    LUNA_STATUS_COUNT
} luna_status;

/* What is allowed, where a status is a refusal. */
static const char *luna_status_text(luna_status status) {
    static const char *const TEXT[LUNA_STATUS_COUNT] = {
        [LUNA_OK] = "done",
        [LUNA_NO_MEMORY] = "there is not enough memory",
        [LUNA_BAD_PIXEL_BYTES] = "pixel bytes are 1, 2, 3, 4, 6 or 8",
        [LUNA_BAD_SAMPLE_BYTES] = "sample bytes are 1 or 2 and divide pixel bytes",
        [LUNA_BAD_ROW_BYTES] = "row bytes is a multiple of pixel bytes",
        [LUNA_ROWS_OUTSIDE] = "rows first..last lie in the image, and the image in the buffer",
        [LUNA_STRIP_TOO_LARGE] = "a strip has at most 2**30 bytes",
        [LUNA_BAD_LEVEL] = "level is 0..9",
        [LUNA_BAD_FILTER] = "filter is 0..5, or 6 where a sample may decide",
    };
    return TEXT[status];
}

#endif
