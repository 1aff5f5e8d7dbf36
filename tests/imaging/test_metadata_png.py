"""tEXt, and iTXt for parameters beyond Latin-1, with keywords and texts that every reader takes."""

from __future__ import annotations

import io
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from luna_farm.core.messages import SaveOptions
from luna_farm.imaging import metadata_png
from luna_farm.imaging.documents import Item
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import NOTHING, Embedded, embed
from luna_farm.testing import readers


def contents(embedded: Embedded, kind: bytes) -> list[bytes]:
    """What is in the chunks of one type."""
    return [chunk[8:-4] for chunk in metadata_png.chunks(embedded) if chunk[4:8] == kind]


def test_a_file_carries_it_for_the_frontend_and_for_pillow_alike(options, task, picture):
    job = options()
    file = b"".join(encode(picture(16, 9, 3), "png", job, embed(job, task())).buffers)
    ours = readers.png_texts(file)
    assert json.loads(ours["prompt"]) == json.loads(job.prompt)
    assert json.loads(ours["workflow"]) == json.loads(job.extra_pnginfo)["workflow"]
    assert json.loads(ours["other"]) == [1, 2]
    assert json.loads(ours["generation_metadata"]) == json.loads(job.metadata)
    with Image.open(io.BytesIO(file)) as image:
        theirs = image.text  # type: ignore[attr-defined]
    assert list(theirs) == list(ours)
    assert theirs["gen_positive"] == "a café at night"
    assert theirs["parameters"].startswith("a café at night\nNegative prompt: blurry\n")
    assert b"iTXt" not in file
    assert b"zTXt" not in file


def test_every_json_text_is_ascii(options, task):
    embedded = embed(options(), task())
    plain = {
        "parameters",
        *(item.key for item in (*embedded.fields, *embedded.generation) if not item.is_json),
    }
    for content in contents(embedded, b"tEXt"):
        key, _, text = content.partition(b"\0")
        assert key.decode() in plain or text.isascii()


def test_none_writes_no_chunk(options, picture):
    assert metadata_png.chunks(NOTHING) == []
    file = b"".join(encode(picture(4, 4, 3), "png", options(), NOTHING).buffers)
    assert readers.png_texts(file) == {}


def test_no_zero_byte_cuts_a_text_short_and_lines_end_as_png_has_them():
    embedded = Embedded(fields=(Item("a", "é\0\r\nx", False), Item("b", "中\0\r\nx", False)))
    assert contents(embedded, b"tEXt") == [b"a\0\xe9\nx"]
    assert contents(embedded, b"iTXt") == [b"b\0\0\0\0\0" + "中\nx".encode()]


def test_a_key_of_the_graph_comes_before_one_of_the_fields_that_looks_like_it():
    embedded = Embedded(
        graph=(Item("a", "1", True),), fields=(Item(" a ", "2", False), Item("b", "3", False))
    )
    assert contents(embedded, b"tEXt") == [b"a\x001", b"a_2\x002", b"b\x003"]


def test_a_key_made_equal_by_cleaning_does_not_replace_the_first():
    embedded = Embedded(graph=(Item("prompt", "1", True), Item(" prompt ", "2", True)))
    assert contents(embedded, b"tEXt") == [b"prompt\x001", b"prompt_2\x002"]


def test_keys_in_any_script_are_told_apart():
    keys = ("Ärger", "猫", "犬", "日本", "日木", "\U0001f600", "a\u00a0b", "x" * 90, "x" * 91, "", "\n")
    embedded = Embedded(fields=tuple(Item(key, str(n), False) for n, key in enumerate(keys)))
    file = b"".join(
        encode(np.zeros((4, 4, 3), np.uint8), "png", SaveOptions(output_dir="/"), embedded).buffers
    )
    with Image.open(io.BytesIO(file)) as image:
        found = image.text  # type: ignore[attr-defined]
    assert list(found.values()) == [str(n) for n in range(len(keys))]
    assert list(found)[:3] == ["Ärger", "\\u732b", "\\u72ac"]
    assert list(found)[-4:] == ["x" * 79, "x" * 77 + "_2", "_", "__2"]


@given(st.text() | st.text("ab é\n", min_size=75, max_size=90))
def test_keywords_are_valid(key):
    keyword = metadata_png.keyword(key)
    assert 1 <= len(keyword) <= 79
    assert keyword == keyword.strip()
    assert b"  " not in keyword
    assert all(32 <= byte < 127 or byte > 160 for byte in keyword)


def test_plain_texts_beyond_latin1_are_international(options, task, picture):
    job = options(metadata=json.dumps({"positive": "猫\r\n\0夜", "steps": 1}))
    embedded = embed(job, task(affix="夜"))
    file = b"".join(encode(picture(4, 4, 3), "png", job, embedded).buffers)
    assert file.count(b"iTXt") == 3
    assert file.index(b"tEXtworkflow") < file.index(b"iTXtparameters\0\0\0\0\0")
    with Image.open(io.BytesIO(file)) as image:
        found = image.text  # type: ignore[attr-defined]
    assert found["parameters"].startswith("猫\n夜\nSteps: 1")
    assert found["image_type"] == "夜"
    assert found["gen_positive"] == "猫\n夜"
    assert contents(NOTHING, b"iTXt") == []
