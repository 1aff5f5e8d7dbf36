"""The readers know what is no such file: ValueError, whatever they get."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from luna_farm.testing import readers

BEGINNINGS = {
    readers.png_texts: b"\x89PNG\r\n\x1a\n",
    readers.webp_texts: b"RIFF\0\0\0\0WEBP",
    readers.avif_texts: b"\0\0\0\x0cftypavif\0\0\0\x18meta\0\0\0\0",
    readers.jpeg_exif: b"\xff\xd8",
    readers.exif_texts: b"MM\0*\0\0\0\x08",
    readers.parameters: b"II*\0\x08\0\0\0",
}


@pytest.mark.parametrize("reader", BEGINNINGS)
def test_foreign_bytes_are_refused_or_empty(reader):
    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=80), st.booleans())
    def check(data, begins_well):
        with contextlib.suppress(ValueError):
            reader(BEGINNINGS[reader] + data if begins_well else data)

    check()


@pytest.mark.parametrize(
    "reader", [readers.png_texts, readers.webp_texts, readers.avif_texts, readers.jpeg_exif]
)
def test_another_format_is_refused(reader):
    with pytest.raises(ValueError, match=r"not an? (PNG|WebP|AVIF|JPEG) file"):
        reader(b"GIF89a" + bytes(20))


def test_an_itxt_chunk_is_misread_as_the_frontend_misreads_it():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("workflow", "{}")
    info.add_text("prompt", "{}")
    out = io.BytesIO()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(out, "PNG", pnginfo=info)
    assert readers.png_texts(out.getvalue()) == {"workflow": "\0\0\0\0{}", "prompt": "{}"}


def test_a_comment_in_another_code_is_refused():
    entry = b"\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a" + bytes(4)
    comment = b"\0\x01\x92\x86\0\x07\0\0\0\x0a\0\0\0\x2c" + bytes(4)
    with pytest.raises(ValueError, match="not UNICODE"):
        readers.parameters(b"MM\0*\0\0\0\x08\0\x01" + entry + comment + b"ASCII\0\0\0ab")
