/* luna_farm.imaging._png: the PNG kernel and the float quantiser for Python.
 *
 * Only glue: arguments in, GIL released, kernel called. What it does stands in kernel/. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernel/planes.h"
#include "kernel/strip.h"

typedef struct {
    Py_buffer pixels, out;
} buffers;

static int read_strip(PyObject *args, strip *s, buffers *b) {
    unsigned long long height, row_bytes, first, last;
    int step, sample, level;
    if (!PyArg_ParseTuple(args, "y*KKiiKKiw*:idat", &b->pixels, &height, &row_bytes, &step, &sample, &first, &last,
                          &level, &b->out))
        return 0;
    *s = (strip){b->pixels.buf, (size_t)height, (size_t)row_bytes, (size_t)step, (size_t)sample, (size_t)first,
                 (size_t)last, level};
    const char *wrong = NULL;
    if (level < 0 || level > 9 || step < 1 || step > 8 || sample < 1 || sample > 2 || step % sample)
        wrong = "level is 0..9, pixel bytes 1..8, sample bytes 1 or 2";
    else if (!row_bytes || row_bytes % (unsigned)step || row_bytes > ((u64)1 << 40))
        wrong = "row bytes is a multiple of pixel bytes";
    else if (first >= last || last > height || height > (u64)b->pixels.len / row_bytes)
        wrong = "rows first..last lie in the picture, and the picture in the buffer";
    else if ((u64)b->out.len < idat_bound(s))
        wrong = "the destination is smaller than bound() says";
    if (!wrong)
        return 1;
    PyBuffer_Release(&b->pixels);
    PyBuffer_Release(&b->out);
    PyErr_SetString(PyExc_ValueError, wrong);
    return 0;
}

PyDoc_STRVAR(idat_doc,
"idat(pixels, height, row_bytes, pixel_bytes, sample_bytes, first_row, last_row, level, out) -> (written, adler)\n\n"
"Compresses rows first_row .. last_row - 1 into `out` as one IDAT chunk, with the GIL released. The strip that begins\n"
"at row 0 opens the zlib stream and the one that ends at the last row ends it; the Adler-32 of the filtered bytes is\n"
"written only by a strip that is the whole picture, and returned always. Memory: see kernel/strip.h.");

static PyObject *py_idat(PyObject *self, PyObject *args) {
    strip s;
    buffers b;
    u32 adler = 1;
    size_t written;
    (void)self;
    if (!read_strip(args, &s, &b))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    written = put_idat(&s, b.out.buf, &adler);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&b.pixels);
    PyBuffer_Release(&b.out);
    if (!written)
        return PyErr_NoMemory();
    return Py_BuildValue("nk", (Py_ssize_t)written, (unsigned long)adler);
}

PyDoc_STRVAR(bound_doc, "bound(rows, row_bytes) -> int\n\nThe most bytes that idat() writes for so many rows.");

static PyObject *py_bound(PyObject *self, PyObject *args) {
    unsigned long long rows, row_bytes;
    (void)self;
    if (!PyArg_ParseTuple(args, "KK:bound", &rows, &row_bytes))
        return NULL;
    if (!rows || !row_bytes || rows > ((u64)1 << 40) / (row_bytes + 1)) {
        PyErr_SetString(PyExc_ValueError, "rows x row bytes lies between 1 and 2**40");
        return NULL;
    }
    strip s = {NULL, (size_t)rows, (size_t)row_bytes, 1, 1, 0, (size_t)rows, 0};
    return PyLong_FromSize_t(idat_bound(&s));
}

PyDoc_STRVAR(adler_doc, "adler_join(first, second, second_bytes) -> int\n\n"
"The Adler-32 of two pieces put together, from theirs and the length of the second.");

static PyObject *py_adler_join(PyObject *self, PyObject *args) {
    unsigned long first, second;
    unsigned long long bytes;
    (void)self;
    if (!PyArg_ParseTuple(args, "kkK:adler_join", &first, &second, &bytes))
        return NULL;
    return PyLong_FromUnsignedLong(adler32_join((u32)first, (u32)second, bytes));
}

PyDoc_STRVAR(quantize_doc, "quantize(src, dst) -> bool\n\n"
"dst[i] = truncate(255 * src[i]) clipped to 0..255, NaN as 0; src float32, dst bytes, with the GIL released. "
"Returns whether there was a NaN.");

static PyObject *py_quantize(PyObject *self, PyObject *args) {
    Py_buffer src, dst;
    int nan = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*:quantize", &src, &dst))
        return NULL;
    int fits = src.len % 4 == 0 && src.len / 4 == dst.len && (uintptr_t)src.buf % 4 == 0;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        nan = quantize_floats(src.buf, dst.buf, (size_t)dst.len);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "src holds as many aligned float32 as dst holds bytes");
    }
    PyBuffer_Release(&src);
    PyBuffer_Release(&dst);
    if (!fits)
        return NULL;
    return PyBool_FromLong(nan);
}

PyDoc_STRVAR(planes_doc, "quantize_planes(src, dst, first, count) -> bool\n\n"
"As quantize, from three planes of float32 behind one another in src to interleaved bytes in dst: `count` pixels from "
"`first` of each plane.");

static PyObject *py_quantize_planes(PyObject *self, PyObject *args) {
    Py_buffer src, dst;
    Py_ssize_t first, count;
    int nan = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*nn:quantize_planes", &src, &dst, &first, &count))
        return NULL;
    Py_ssize_t plane = dst.len / 3;
    int fits = dst.len % 3 == 0 && src.len / 4 == dst.len && src.len % 4 == 0 && (uintptr_t)src.buf % 4 == 0;
    fits = fits && first >= 0 && count >= 0 && first <= plane && count <= plane - first;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        nan = quantize_planes((const float *)src.buf + first, (size_t)plane, (u8 *)dst.buf + 3 * first, (size_t)count);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "src holds three planes of as many aligned float32 as dst holds pixels");
    }
    PyBuffer_Release(&src);
    PyBuffer_Release(&dst);
    if (!fits)
        return NULL;
    return PyBool_FromLong(nan);
}

static PyMethodDef methods[] = {
    {"idat", py_idat, METH_VARARGS, idat_doc},
    {"bound", py_bound, METH_VARARGS, bound_doc},
    {"adler_join", py_adler_join, METH_VARARGS, adler_doc},
    {"quantize", py_quantize, METH_VARARGS, quantize_doc},
    {"quantize_planes", py_quantize_planes, METH_VARARGS, planes_doc},
    {NULL, NULL, 0, NULL},
};

static int prepare(PyObject *module) {
    (void)module;
    crc32_prepare();
    symbols_prepare();
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)prepare},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_png", "PNG kernel and float quantiser; see luna_farm.imaging.encoders.png.", 0, methods,
    slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__png(void) { return PyModuleDef_Init(&definition); }
