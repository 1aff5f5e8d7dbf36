"""The EXIF of another file: what is kept of it, in any order of bytes, whatever it holds."""

from __future__ import annotations

import io
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from luna_farm.imaging import exif_kept, metadata_exif
from luna_farm.imaging.documents import Item
from luna_farm.imaging.metadata import NOTHING, Embedded


def block(order: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112], exif[0x013B], exif[0x0100] = "HP", 6, "Ann", 99
    exif.get_ifd(0x8769).update({0x829A: 0.004, 0xA434: "Lens", 0x927C: b"maker", 0x8827: 400, 0xA002: 5})
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 5.0, 7.5)})
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_stays_true_is_kept_in_any_order_of_bytes(order: str) -> None:
    old = exif_kept.kept(block(order))
    assert {entry.tag: entry.data for entry in old.first} == {0x010F: b"HP\0", 0x013B: b"Ann\0"}
    assert {entry.tag for entry in old.second} == {0x829A, 0xA434, 0x8827}
    assert {entry.tag: entry.data for entry in old.second}[0x8827] == struct.pack(">H", 400)
    assert [entry.tag for entry in old.gps] == [0, 1, 2]
    again = metadata_exif.standalone(NOTHING, old)
    assert exif_kept.kept(again) == old


def test_texts_stand_beside_what_is_kept() -> None:
    items = tuple(Item(f"key{n}", json.dumps({"n": n}), True) for n in range(20))
    graph = (Item("prompt", '{"1":{}}', True), Item("workflow", '{"nodes":[]}', True), *items)
    embedded = Embedded(graph, "a\nSteps: 1", (Item("Note", "x: y", False),), exif=block(), dpi=300.5)
    made = metadata_exif.block(embedded)
    found = exif_kept.texts(made)
    assert json.loads(found["prompt"]) == {"1": {}}
    assert json.loads(found["key19"]) == {"n": 19}
    assert (found["parameters"], found["Note"]) == ("a\nSteps: 1", "x: y")
    old = exif_kept.kept(made)
    assert [(entry.tag, entry.data.rstrip(b"\0")) for entry in old.first] == [
        (0x010F, b"HP"),
        (0x013B, b"Ann"),
    ]
    exif = Image.Exif()
    exif.load(made)
    assert exif[0x011A] == 300.5
    assert 0x0112 not in exif


def test_what_looks_like_a_text_of_ours_and_is_none_stays() -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x010F] = "Note: to self", "{not: ours}"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "no parameters".encode("utf-16-be")
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    assert exif_kept.texts(data) == {}
    old = exif_kept.kept(data)
    assert [entry.data for entry in old.first] == [b"Note: to self\0", b"{not: ours}\0"]
    assert [entry.tag for entry in old.second] == [0x9286]


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_a_block_may_be_anything(data: bytes, begin: bytes) -> None:
    old = exif_kept.kept(begin + data)
    exif_kept.texts(begin + data)
    with Image.open(io.BytesIO(_jpeg(metadata_exif.standalone(NOTHING, old)))) as image:
        image.getexif()


@given(st.integers(0, 2**16), st.integers(0, 255))
def test_a_broken_block_gives_what_can_be_read(at: int, value: int) -> None:
    data = bytearray(block())
    data[at % len(data)] = value
    old = exif_kept.kept(bytes(data))
    assert exif_kept.kept(metadata_exif.standalone(NOTHING, old)).gps == tuple(sorted(old.gps))


def _jpeg(exif: bytes) -> bytes:
    out = io.BytesIO()
    Image.new("L", (1, 1)).save(out, "JPEG", exif=b"Exif\0\0" + exif if exif else b"")
    return out.getvalue()
