/* The PNG kernel tested in C alone, so that it runs wherever a compiler or an emulator does: scripts/kernel_forms.py.
 *
 * kernel_test ROUNDS [SEED]: makes images of all sizes, pixels, depths and contents, compresses each at every level, in
 * one strip and in two, inflates what came out with the small decoder below, undoes the filters and compares. Prints one
 * line and exits with 0 if all pixels came back. */
#include "../../luna_farm/imaging/kernel/planes.h"
#include "../../luna_farm/imaging/kernel/strip.h"

#include <stdio.h>

static u64 state = 1;

static u32 random_below(u32 n) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return n ? (u32)(state >> 33) % n : 0;
}

/* An inflater without tables: right, small and slow (RFC 1951). */
typedef struct {
    const u8 *in;
    size_t size, bit;
} reader;

static int overrun;

static unsigned read_bits(reader *r, unsigned n) {
    unsigned v = 0;
    for (unsigned i = 0; i < n; i++, r->bit++) {
        if (r->bit / 8 >= r->size) {
            overrun = 1;
            return 0;
        }
        v |= (unsigned)(r->in[r->bit / 8] >> (r->bit % 8) & 1) << i;
    }
    return v;
}

typedef struct {
    u16 count[16], symbol[288];
} code;

static void make_code(code *c, const u8 *length, int n) {
    u16 start[16];
    memset(c, 0, sizeof *c);
    for (int i = 0; i < n; i++)
        c->count[length[i]]++;
    c->count[0] = start[1] = 0;
    for (int i = 1; i < 15; i++)
        start[i + 1] = (u16)(start[i] + c->count[i]);
    for (int i = 0; i < n; i++)
        if (length[i])
            c->symbol[start[length[i]]++] = (u16)i;
}

static int read_symbol(reader *r, const code *c) {
    int value = 0, first = 0, index = 0;
    for (int bits = 1; bits < 16 && !overrun; bits++) {
        value |= (int)read_bits(r, 1);
        if (value - first < c->count[bits])
            return c->symbol[index + value - first];
        index += c->count[bits];
        first = (first + c->count[bits]) << 1;
        value <<= 1;
    }
    overrun = 1;
    return END_OF_BLOCK;
}

static void read_codes(reader *r, code *litlen, code *dist) {
    static const u8 ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    u8 length[320] = {0}, small[19] = {0};
    code pre;
    int litlens = 257 + (int)read_bits(r, 5), dists = 1 + (int)read_bits(r, 5), precodes = 4 + (int)read_bits(r, 4);
    for (int i = 0; i < precodes; i++)
        small[ORDER[i]] = (u8)read_bits(r, 3);
    make_code(&pre, small, 19);
    for (int i = 0; i < litlens + dists && !overrun;) {
        int symbol = read_symbol(r, &pre), again = 1;
        u8 value = (u8)symbol;
        if (symbol >= 16) {
            again = symbol == 16 ? 3 + (int)read_bits(r, 2) : symbol == 17 ? 3 + (int)read_bits(r, 3) : 11 + (int)read_bits(r, 7);
            value = symbol == 16 && i ? length[i - 1] : 0;
        }
        while (again-- && i < litlens + dists)
            length[i++] = value;
    }
    make_code(litlen, length, litlens);
    make_code(dist, length + litlens, dists);
}

/* Inflates a zlib stream to exactly n bytes. Returns whether it is one. */
static int inflate_to(reader *r, u8 *out, size_t n) {
    size_t at = 0;
    int final = 0;
    overrun = 0;
    if ((read_bits(r, 8) & 15) != 8)
        return 0;
    read_bits(r, 8);
    while (!final && !overrun) {
        final = (int)read_bits(r, 1);
        unsigned type = read_bits(r, 2);
        if (type == 0) {
            r->bit = (r->bit + 7) / 8 * 8;
            unsigned size = read_bits(r, 16);
            if ((read_bits(r, 16) ^ size) != 0xffff || size > n - at)
                return 0;
            for (; size; size--)
                out[at++] = (u8)read_bits(r, 8);
            continue;
        }
        code litlen, dist;
        if (type == 1) {
            u8 length[288];
            memset(length, 8, 144);
            memset(length + 144, 9, 112);
            memset(length + 256, 7, 24);
            memset(length + 280, 8, 8);
            make_code(&litlen, length, 288);
            memset(length, 5, 30);
            make_code(&dist, length, 30);
        } else {
            read_codes(r, &litlen, &dist);
        }
        for (int symbol; !overrun && (symbol = read_symbol(r, &litlen)) != END_OF_BLOCK;) {
            if (symbol < 256) {
                if (at == n)
                    return 0;
                out[at++] = (u8)symbol;
                continue;
            }
            size_t length = LENGTH_BASE[symbol - 257] + read_bits(r, LENGTH_EXTRA[symbol - 257]);
            int slot = read_symbol(r, &dist);
            if (slot > 29)
                return 0;
            size_t far = DIST_BASE[slot] + read_bits(r, dist_extra((unsigned)slot));
            if (far > at || length > n - at)
                return 0;
            for (; length; length--, at++)
                out[at] = out[at - far];
        }
    }
    return !overrun && at == n;
}

static u8 paeth_of(int a, int b, int c) {
    int p = a + b - c, pa = abs(p - a), pb = abs(p - b), pc = abs(p - c);
    return (u8)(pa <= pb && pa <= pc ? a : pb <= pc ? b : c);
}

static int same_pixels(const strip *s, u8 *rows) {
    for (size_t y = 0; y < s->height; y++) {
        u8 *row = rows + y * (s->row_bytes + 1) + 1, *above = y ? row - s->row_bytes - 1 : NULL;
        for (size_t x = 0; x < s->row_bytes; x++) {
            int a = x < s->pixel_bytes ? 0 : row[x - s->pixel_bytes], b = above ? above[x] : 0;
            int c = above && x >= s->pixel_bytes ? above[x - s->pixel_bytes] : 0;
            int filter = row[-1];
            if (filter > 4)
                return 0;
            row[x] = (u8)(row[x] + (filter == 0 ? 0 : filter == 1 ? a : filter == 2 ? b : filter == 3 ? (a + b) / 2 : paeth_of(a, b, c)));
        }
    }
    for (size_t y = 0; y < s->height; y++)
        for (size_t x = 0; x < s->row_bytes; x++) {
            size_t from = s->sample_bytes == 1 || LUNA_BIG_ENDIAN ? x : x ^ 1; /* big-endian in the file */
            if (rows[y * (s->row_bytes + 1) + 1 + x] != s->pixels[y * s->row_bytes + from])
                return 0;
        }
    return 1;
}

static u8 content(int kind, size_t y, size_t x, size_t pixel, size_t channel) {
    switch (kind) {
    case 0: return (u8)random_below(256);
    case 1: return 200;
    case 2: return (u8)((y * 3 + pixel * 2 + channel * 40) / 4 + random_below(3));
    case 3: return (u8)((pixel / 9 + y / 7) % 2 * 255);
    case 4: return (u8)((pixel * pixel + y * y) / 300);
    case 5: return random_below(40) ? 7 : (u8)random_below(256);
    case 6: return (u8)((y % 13 * 31 + x % 39 * 17) & 255);
    case 7: return (u8)((pixel * (2 + channel / 2) + y) / 9 + (pixel * 7 + y * 3) % 5); /* of 16 bits, each byte twice */
    default: return (u8)(random_below(2) + channel);
    }
}

static int check(strip s, u8 *pixels, int kind) {
    size_t bytes = s.height * (s.row_bytes + 1), cut = s.height > 1 ? 1 + random_below((u32)s.height - 1) : s.height;
    for (size_t i = 0; i < s.height * s.row_bytes; i++)
        pixels[i] = content(kind, i / s.row_bytes, i % s.row_bytes, i % s.row_bytes / s.pixel_bytes, i % s.pixel_bytes);
    s.pixels = pixels;
    s.last_row = s.height;
    if (luna_check_strip(&s, s.height * s.row_bytes) != LUNA_OK || luna_check_strip(&s, s.height * s.row_bytes - 1) != LUNA_ROWS_OUTSIDE)
        return 0;
    for (s.level = 0; s.level < 10; s.level++)
        for (int strips = 1; strips <= 2; strips++) {
            u8 *zlib = malloc(2 * (bytes + LARGEST_BLOCK) + 8192), *rows = malloc(bytes), *to = zlib;
            u32 adler = 1;
            for (s.first_row = 0; s.first_row < s.height; s.first_row = s.last_row) {
                s.last_row = strips == 2 && s.first_row == 0 ? cut : s.height;
                u32 part;
                size_t room = luna_idat_bound(&s);
                u8 *out = malloc(room);
                size_t written;
                if (luna_put_idat(&s, out, &written, &part) != LUNA_OK || written > room || crc32_of(ISA_BASE, out + 4, written - 8) !=
                    ((u32)out[written - 4] << 24 | (u32)out[written - 3] << 16 | (u32)out[written - 2] << 8 | out[written - 1]))
                    return 0;
                memcpy(to, out + 8, written - 12);
                to += written - 12;
                adler = luna_adler32_join(adler, part, (s.last_row - s.first_row) * (s.row_bytes + 1));
                free(out);
            }
            reader r = {zlib, (size_t)(to - zlib), 0};
            int fine = inflate_to(&r, rows, bytes) && adler == adler32_update(ISA_BASE, 1, rows, bytes) && same_pixels(&s, rows);
            free(zlib);
            free(rows);
            if (!fine)
                return 0;
        }
    return 1;
}

static int check_floats(void) {
    enum { N = 270007, SMALL = 1000 }; /* above and below what goes past the caches */
    static float src[3 * N];
    static u8 space[4 * N + 64];
    for (int i = 0; i < 3 * N; i++)
        src[i] = (float)random_below(1300) / 1000 - 0.1f;
    for (int shift = 0; shift < 2; shift++) /* whether it may depends on where it begins */
        for (int n = SMALL; n <= N; n += N - SMALL) {
            u8 *flat = space + (32 - (uintptr_t)space % 32) + shift, *planes = flat + (n + 31) / 32 * 32;
            luna_quantize_floats(src, flat, (size_t)n);
            luna_quantize_planes(src, N, planes, (size_t)n);
            for (int i = 0; i < n; i++) {
                float v = src[i] * 255.0f;
                if (flat[i] != (u8)(v < 0 ? 0 : v > 255 ? 255 : v) || planes[3 * i] != flat[i])
                    return 0;
            }
        }
    return 1;
}

int main(int count, char **arguments) {
    static const u8 PIXELS[6] = {1, 2, 3, 4, 6, 8};
    int rounds = count > 1 ? atoi(arguments[1]) : 20;
    state = count > 2 ? (u64)atoi(arguments[2]) : 1;
    if (!check_floats()) {
        printf("FAILED: floats\n");
        return 1;
    }
    for (int i = 0; i < rounds; i++) {
        u32 top = i % 4 ? 60 : 300, pixel = PIXELS[random_below(6)];
        strip s = {NULL, 1 + random_below(top), 0, pixel, 1 + (size_t)(pixel % 2 == 0 && random_below(2)), 0, 0, 0, FILTER_ASKED};
        if (i % 2)
            s.filter = (int)random_below(FILTER_ASKED);
        s.row_bytes = pixel * (1 + random_below(top));
        if (i % 16 == 5) { /* a row longer than a block */
            s.height = 1 + random_below(2);
            s.row_bytes = pixel * (500000 / pixel + random_below(1000));
        }
        u8 *pixels = malloc(s.height * s.row_bytes);
        int kind = (int)random_below(9);
        if (!check(s, pixels, kind)) {
            printf("FAILED: image %d, %u rows of %u bytes, pixels of %u, content %d\n", i, (unsigned)s.height,
                   (unsigned)s.row_bytes, (unsigned)pixel, kind);
            return 1;
        }
        free(pixels);
    }
    printf("%d images at every level, instruction set %d, no difference\n", rounds, detect_isa());
    return 0;
}
