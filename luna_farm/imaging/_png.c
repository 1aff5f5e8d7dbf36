/* luna_farm.imaging._png: the PNG kernel, the float quantiser and the scores of images for Python.
 *
 * Only glue: arguments in, judged, GIL released, kernel called. What it does stands in kernel/. Any argument of any
 * type or size is either taken or refused with an exception; tests/imaging/test_png_interface.py tries them. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernel/planes.h"
#include "kernel/scores.h"
#include "kernel/strip.h"

typedef struct {
    Py_buffer pixels, out;
} buffers;

static void release(buffers *b) {
    PyBuffer_Release(&b->pixels);
    PyBuffer_Release(&b->out);
}

static int refuse_number(void) {
    if (PyErr_ExceptionMatches(PyExc_OverflowError))
        PyErr_SetString(PyExc_ValueError, "a size is a whole number from 0 to 2**64 - 1");
    return 0;
}

/* Converters for PyArg_ParseTuple: "K" would wrap what is negative or too large. */
static int to_size(PyObject *object, void *to) {
    size_t value = PyLong_AsSize_t(object);
    if (value == (size_t)-1 && PyErr_Occurred())
        return refuse_number();
    *(size_t *)to = value;
    return 1;
}

static int to_u64(PyObject *object, void *to) {
    unsigned long long value = PyLong_AsUnsignedLongLong(object);
    if (value == (unsigned long long)-1 && PyErr_Occurred())
        return refuse_number();
    *(u64 *)to = value;
    return 1;
}

/* What is wrong with a strip whose pixels have so many bytes, or NULL. */
static const char *refused_strip(const strip *s, size_t bytes) {
    luna_status status = luna_check_strip(s, bytes);
    return status == LUNA_OK ? NULL : luna_status_text(status);
}

static int overlap(const Py_buffer *a, const Py_buffer *b) {
    const u8 *first = a->buf, *second = b->buf;
    return a->len && b->len && first < second + b->len && second < first + a->len;
}

PyDoc_STRVAR(idat_doc,
"idat(pixels, height, row_bytes, pixel_bytes, sample_bytes, first_row, last_row, level, out[, filter]) -> (written, adler)"
"\n\n"
"Compresses rows first_row .. last_row - 1 into `out` as one IDAT chunk, with the GIL released. The strip that begins\n"
"at row 0 opens the zlib stream and the one that ends at the last row ends it; the Adler-32 of the filtered bytes is\n"
"written only by a strip that is the whole image, and returned always. filter: that of all rows at levels 5 to 9, 0 to 5\n"
"as in filter(), or 6 for what a sample says. Memory: see kernel/strip.h.");

static PyObject *py_idat(PyObject *self, PyObject *args) {
    strip s;
    buffers b;
    u32 adler = 1;
    size_t written;
    luna_status status;
    (void)self;
    s.filter = FILTER_ASKED;
    if (!PyArg_ParseTuple(args, "y*O&O&O&O&O&O&iw*|i:idat", &b.pixels, to_size, &s.height, to_size, &s.row_bytes, to_size,
                          &s.pixel_bytes, to_size, &s.sample_bytes, to_size, &s.first_row, to_size, &s.last_row,
                          &s.level, &b.out, &s.filter))
        return NULL;
    s.pixels = b.pixels.buf;
    const char *wrong = refused_strip(&s, (size_t)b.pixels.len);
    if (!wrong && (size_t)b.out.len < luna_idat_bound(&s))
        wrong = "the destination is smaller than bound() says";
    if (!wrong && overlap(&b.pixels, &b.out))
        wrong = "the destination overlaps the pixels";
    if (wrong) {
        release(&b);
        PyErr_SetString(PyExc_ValueError, wrong);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = luna_put_idat(&s, b.out.buf, &written, &adler);
    Py_END_ALLOW_THREADS
    release(&b);
    if (status != LUNA_OK)
        return PyErr_NoMemory();
    return Py_BuildValue("nk", (Py_ssize_t)written, (unsigned long)adler);
}

PyDoc_STRVAR(filter_doc,
"filter(pixels, height, row_bytes, pixel_bytes, sample_bytes, first_row, last_row, filter, out) -> None\n\n"
"Filters rows first_row .. last_row - 1 into `out`, row_bytes + 1 bytes each, as a PNG's zlib stream holds them, with\n"
"the GIL released. filter: 0 to 4, or 5 for the best of each row.");

static PyObject *py_filter(PyObject *self, PyObject *args) {
    strip s;
    buffers b;
    int filter;
    luna_status status;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*O&O&O&O&O&O&iw*:filter", &b.pixels, to_size, &s.height, to_size, &s.row_bytes, to_size,
                          &s.pixel_bytes, to_size, &s.sample_bytes, to_size, &s.first_row, to_size, &s.last_row, &filter,
                          &b.out))
        return NULL;
    s.pixels = b.pixels.buf;
    s.level = 6;
    s.filter = FILTER_ASKED;
    const char *wrong = refused_strip(&s, (size_t)b.pixels.len);
    if (!wrong && (size_t)b.out.len != stream_bytes(&s))
        wrong = "the destination holds row bytes + 1 bytes for each row";
    if (!wrong && overlap(&b.pixels, &b.out))
        wrong = "the destination overlaps the pixels";
    if (!wrong && (filter < 0 || filter > FILTER_BEST))
        wrong = luna_status_text(LUNA_BAD_FILTER);
    if (wrong) {
        release(&b);
        PyErr_SetString(PyExc_ValueError, wrong);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = luna_filter_strip(&s, filter, b.out.buf);
    Py_END_ALLOW_THREADS
    release(&b);
    if (status != LUNA_OK)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(sample_doc,
"sample(pixels, height, row_bytes, pixel_bytes, sample_bytes) -> (filter, method, symbols)\n\n"
"What a sample says of the whole image: the filter that leaves most to matches; 0 or 1 where matches gain nothing over\n"
"runs, 2 where they do; and how many symbols runs leave of 100 bytes.");

static PyObject *py_sample(PyObject *self, PyObject *args) {
    strip s;
    Py_buffer pixels;
    plan p;
    luna_status status;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*O&O&O&O&:sample", &pixels, to_size, &s.height, to_size, &s.row_bytes, to_size,
                          &s.pixel_bytes, to_size, &s.sample_bytes))
        return NULL;
    s.pixels = pixels.buf;
    s.first_row = 0;
    s.last_row = s.height;
    s.level = 6;
    s.filter = FILTER_ASKED;
    const char *wrong = refused_strip(&s, (size_t)pixels.len);
    if (wrong) {
        PyBuffer_Release(&pixels);
        PyErr_SetString(PyExc_ValueError, wrong);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = luna_plan_strip(&s, &p);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&pixels);
    if (status != LUNA_OK)
        return PyErr_NoMemory();
    return Py_BuildValue("iiI", p.filter, p.method, p.symbols);
}

PyDoc_STRVAR(bound_doc, "bound(rows, row_bytes) -> int\n\nThe most bytes that idat() writes for so many rows.");

static PyObject *py_bound(PyObject *self, PyObject *args) {
    size_t rows, row_bytes;
    (void)self;
    if (!PyArg_ParseTuple(args, "O&O&:bound", to_size, &rows, to_size, &row_bytes))
        return NULL;
    if (!luna_fits_strip(rows, row_bytes)) {
        PyErr_SetString(PyExc_ValueError, "rows x (row bytes + 1) lies between 2 and 2**30");
        return NULL;
    }
    strip s = {NULL, rows, row_bytes, 1, 1, 0, rows, 0, FILTER_ASKED};
    return PyLong_FromSize_t(luna_idat_bound(&s));
}

PyDoc_STRVAR(adler_doc, "adler_join(first, second, second_bytes) -> int\n\n"
"The Adler-32 of two pieces put together, from theirs and the length of the second.");

static PyObject *py_adler_join(PyObject *self, PyObject *args) {
    u64 first, second, bytes;
    (void)self;
    if (!PyArg_ParseTuple(args, "O&O&O&:adler_join", to_u64, &first, to_u64, &second, to_u64, &bytes))
        return NULL;
    if (first > 0xffffffffu || second > 0xffffffffu) {
        PyErr_SetString(PyExc_ValueError, "an Adler-32 has 32 bits");
        return NULL;
    }
    return PyLong_FromUnsignedLong(luna_adler32_join((u32)first, (u32)second, bytes));
}

PyDoc_STRVAR(quantize_doc, "quantize(src, dst) -> bool\n\n"
"dst[i] = truncate(255 * src[i]) clipped to 0..255, NaN as 0; src float32, dst bytes, with the GIL released. "
"Returns whether a value needs a closer look: NaN, infinite, or further from 0 than 8.");

static PyObject *py_quantize(PyObject *self, PyObject *args) {
    buffers b;
    int odd = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*:quantize", &b.pixels, &b.out))
        return NULL;
    int fits = b.pixels.len % 4 == 0 && b.pixels.len / 4 == b.out.len && (uintptr_t)b.pixels.buf % 4 == 0;
    fits = fits && !overlap(&b.pixels, &b.out);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        odd = luna_quantize_floats(b.pixels.buf, b.out.buf, (size_t)b.out.len);
        Py_END_ALLOW_THREADS
    }
    release(&b);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "src holds as many aligned float32 as dst holds bytes, elsewhere");
        return NULL;
    }
    return PyBool_FromLong(odd);
}

PyDoc_STRVAR(planes_doc, "quantize_planes(src, dst, first, count) -> bool\n\n"
"As quantize, from three planes of float32 behind one another in src to interleaved bytes in dst: `count` pixels from "
"`first` of each plane.");

static PyObject *py_quantize_planes(PyObject *self, PyObject *args) {
    buffers b;
    size_t first, count;
    int odd = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*O&O&:quantize_planes", &b.pixels, &b.out, to_size, &first, to_size, &count))
        return NULL;
    size_t plane = (size_t)b.out.len / 3;
    int fits = b.out.len % 3 == 0 && b.pixels.len % 4 == 0 && b.pixels.len / 4 == b.out.len;
    fits = fits && (uintptr_t)b.pixels.buf % 4 == 0 && !overlap(&b.pixels, &b.out);
    fits = fits && first <= plane && count <= plane - first;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        odd = luna_quantize_planes((const float *)b.pixels.buf + first, plane, (u8 *)b.out.buf + 3 * first, count);
        Py_END_ALLOW_THREADS
    }
    release(&b);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "src holds three planes of as many aligned float32 as dst holds pixels");
        return NULL;
    }
    return PyBool_FromLong(odd);
}

PyDoc_STRVAR(scores_doc, "scores(pixels, height, width, channels, down, across) -> (variance, edges, clipped, blank, hash)\n\n"
"Of an image of bytes with 1, 3 or 4 channels, as scores.py defines them: variance and edges of luma in thousandths.\n"
"down, across: float32 cosines, 11 times as many as the grid has rows and columns.");

static const char *refused_scores(const scores_image *image, const Py_buffer *pixels, const Py_buffer *down,
                                  const Py_buffer *across) {
    size_t bytes = (size_t)pixels->len;
    if (image->channels != 1 && image->channels != 3 && image->channels != 4)
        return "channels are 1, 3 or 4";
    if (!image->height || !image->width || image->width > bytes / image->channels ||
        image->height != bytes / image->channels / image->width ||
        image->height * image->width * image->channels != bytes)
        return "the pixels are height times width times channels bytes, and not none";
    if ((size_t)down->len != SCORES_FREQUENCIES * scores_side(image->height) * sizeof(float) ||
        (size_t)across->len != SCORES_FREQUENCIES * scores_side(image->width) * sizeof(float) ||
        (uintptr_t)down->buf % sizeof(float) || (uintptr_t)across->buf % sizeof(float))
        return "down and across are 11 aligned float32 for each row and column of the grid";
    return NULL;
}

static PyObject *py_scores(PyObject *self, PyObject *args) {
    scores_image image;
    luna_scores found;
    luna_status status = LUNA_OK;
    Py_buffer pixels, down, across;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*O&O&O&y*y*:scores", &pixels, to_size, &image.height, to_size, &image.width, to_size,
                          &image.channels, &down, &across))
        return NULL;
    const char *wrong = refused_scores(&image, &pixels, &down, &across);
    if (!wrong) {
        image.pixels = pixels.buf, image.down = down.buf, image.across = across.buf;
        Py_BEGIN_ALLOW_THREADS
        status = luna_score(&image, &found);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&pixels);
    PyBuffer_Release(&down);
    PyBuffer_Release(&across);
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, wrong);
        return NULL;
    }
    if (status != LUNA_OK)
        return PyErr_NoMemory();
    return Py_BuildValue("dddNK", found.variance, found.edges, found.clipped, PyBool_FromLong(found.blank),
                         (unsigned long long)found.hash);
}

static PyMethodDef methods[] = {
    {"idat", py_idat, METH_VARARGS, idat_doc},
    {"filter", py_filter, METH_VARARGS, filter_doc},
    {"sample", py_sample, METH_VARARGS, sample_doc},
    {"bound", py_bound, METH_VARARGS, bound_doc},
    {"adler_join", py_adler_join, METH_VARARGS, adler_doc},
    {"quantize", py_quantize, METH_VARARGS, quantize_doc},
    {"quantize_planes", py_quantize_planes, METH_VARARGS, planes_doc},
    {"scores", py_scores, METH_VARARGS, scores_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_png", "PNG kernel, float quantiser, scores; see luna_farm.imaging.encoders.png.", 0, methods,
    slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__png(void) { return PyModuleDef_Init(&definition); }
