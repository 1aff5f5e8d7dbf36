"""The EXIF block, read by our port of the frontend, by A1111's way, and by Pillow."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from luna_farm.imaging import metadata_exif
from luna_farm.imaging.documents import Item
from luna_farm.imaging.metadata import NOTHING, Embedded, embed
from luna_farm.testing import readers


def test_prompt_and_workflow_have_comfyuis_tags_and_the_rest_follows_downwards(options, task):
    texts = readers.exif_texts(metadata_exif.block(embed(options(), task())))
    assert texts[0x0110].startswith('prompt:{"3":')
    assert texts[0x010F].startswith('workflow:{"nodes":')
    assert texts[0x010E] == "other:[1,2]"
    assert [texts[tag].partition(":")[0] for tag in metadata_exif.TEXT_TAGS[1:8]] == [
        "generation_metadata",
        "custom_metadata",
        "image_type",
        "model_name",
        "model_path",
        "save_timestamp",
        "batch_index",
    ]


def test_pillow_reads_the_same(options, task):
    block = metadata_exif.block(embed(options(), task()))
    exif = Image.Exif()
    exif.load(block)
    ours = readers.exif_texts(block)
    assert {tag: exif[tag] for tag in ours} == ours
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == readers.parameters(block)


def test_the_a1111_text_survives_any_letters(options, task):
    job = options(metadata=json.dumps({"positive": "中 \U0001f600 é", "steps": 1}))
    assert readers.parameters(metadata_exif.block(embed(job, task()))).startswith("中 \U0001f600 é\nSteps: 1")


def test_nothing_makes_no_block():
    assert metadata_exif.block(NOTHING) == b""


def test_parameters_alone_make_one():
    block = metadata_exif.block(Embedded(parameters="Steps: 1"))
    assert readers.exif_texts(block) == {}
    assert readers.parameters(block) == "Steps: 1"


def test_a_short_text_does_not_slip_into_the_offset_field():
    block = metadata_exif.block(Embedded(graph=(Item("a", "1", True),)))
    assert readers.exif_texts(block) == {0x010E: "a:1 "}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=9), st.text(max_size=30)), max_size=12, unique_by=lambda pair: pair[0]
    ),
    st.text(max_size=40),
)
def test_whatever_it_holds_the_block_is_sound(pairs, comment):
    items = tuple(Item(key, text, False) for key, text in pairs)
    block = metadata_exif.block(Embedded(graph=items, parameters=comment))
    assert len(block) % 2 == 0
    if not block:
        return
    texts = readers.exif_texts(block)
    assert list(texts) == sorted(texts)
    for item in items:
        expected = f"{item.key}:{item.text}".replace("\0", "").encode("utf-8", "replace")
        assert expected.ljust(4).decode() in texts.values()
    clean = comment.encode("utf-16-be", "replace").decode("utf-16-be")
    assert readers.parameters(block) == clean


def test_the_sidecar_is_one_json_object_with_everything_in_it(options, task):
    job = options()
    sidecar = metadata_exif.sidecar(embed(job, task()))
    assert sidecar.isascii()
    read = json.loads(sidecar)
    assert read["prompt"] == json.loads(job.prompt)
    assert read["workflow"] == json.loads(job.extra_pnginfo)["workflow"]
    assert read["generation_metadata"] == json.loads(job.metadata)
    assert read["parameters"].startswith("a café at night")
    assert (read["gen_steps"], read["image_type"]) == (20, "RAW")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_directory_sorts_its_entries(order):
    entries = [
        metadata_exif.Entry(9, metadata_exif.SHORT, 1, b"ab"),
        metadata_exif.Entry(3, 2, 6, b"hello\0"),
    ]
    written = metadata_exif.directory(entries, 100, order)
    assert len(written) == 2 + 24 + 4 + 6
    assert written[30:] == b"hello\0"
