"""What of a name is not taken as it was typed is said, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import Stage, batch

from luna_farm.core import replaced
from luna_farm.core.filenames import clean_folders, clean_part
from luna_farm.core.outputs import Output

REFUSED = "became _, because Windows, macOS or Linux takes no such character in a name."
LEAVES = "became _, because no name may leave the output folder."
DEVICE = "because Windows keeps that name for a device."
DOTS = "were left out, because Windows drops them."


def told(*batches: Any, **options: Any) -> list[str]:
    """The warnings of the receipt."""
    stage = Stage()
    stage.workers()
    stage.submit("job-0001", *batches, **options)
    return list(stage.farm.jobs["job-0001"].warnings)


@pytest.mark.parametrize(
    ("save_path", "sentences"),
    [
        ("../../x", [f".. {LEAVES}"]),
        ("..\\x", [f".. {LEAVES}"]),
        ("x/..", [f".. {LEAVES}"]),
        ("...", [f"... {LEAVES}"]),
        ("/out/../x", [f".. {LEAVES}"]),
        ("a:b/c?", [f": {REFUSED}", f"? {REFUSED}"]),
        ("a?b?", [f"? {REFUSED}"]),
        ("x\ty", [f"\\t {REFUSED}"]),
        ("x\u200by", [f"\\u200b {REFUSED}"]),
        ("con", [f"con became _con, {DEVICE}"]),
        ("x/NUL.txt", [f"NUL.txt became _NUL.txt, {DEVICE}"]),
        ("COM1.", [f"COM1. became _COM1, {DEVICE}"]),
        ("a./b", [f"the dots at the end of a. {DOTS}"]),
        ("%date:yyyy/MM%/x..", [f"the dots at the end of x.. {DOTS}"]),
        ("~/x", ["~ is a folder of that name below the output folder, not your home folder."]),
    ],
)
def test_what_a_save_path_cannot_be(save_path: str, sentences: list[str]) -> None:
    assert told(save_path=save_path) == [f"save_path: {sentence}" for sentence in sentences]
    of_output = batch(outputs=(Output("png", save_path=save_path),))
    assert told(of_output) == [f"save_path: {sentence}" for sentence in sentences]


@pytest.mark.parametrize(
    ("filename", "sentence"),
    [
        ("a/b", "/ became _, because folders go into save_path."),
        ("a\\b", "\\ became _, because folders go into save_path."),
        ("..", ".. holds no name, so time and model are used."),
        ("a*b", f"* {REFUSED}"),
        ("aux", f"aux became _aux, {DEVICE}"),
        ("a.", f"the dots at the end of a. {DOTS}"),
    ],
)
def test_what_a_filename_cannot_be(filename: str, sentence: str) -> None:
    assert told(filename=filename) == [f"filename: {sentence}"]
    assert told(filename=filename, archive="tar") == [f"filename: {sentence}"]


@pytest.mark.parametrize(
    ("affix", "sentence"),
    [
        ("a/b", "/ became _, because folders go into save_path."),
        (".", ". holds no name, so it was left out."),
        ("a|b", f"| {REFUSED}"),
    ],
)
def test_what_an_affix_and_a_suffix_cannot_be(affix: str, sentence: str) -> None:
    assert told(batch(affix=affix), batch(affix=affix)) == [f"affix: {sentence}"]
    assert told(batch(outputs=(Output("png", suffix=affix),))) == [f"suffix: {sentence}"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"save_path": "shots/%date:yyyy-MM-dd%", "filename": "%time:HH:MM%_a"},
        {"save_path": " a /./b//c/", "filename": " a "},
        {"save_path": "日本/é/e\u0301", "filename": "v1.5"},
        {"save_path": "x_y/_con", "filename": "_"},
        {"save_path": "/out/shots"},
        {"filename": "%model_name%", "model_name": "a:b?."},
    ],
)
def test_nothing_is_said_of_a_name_that_stays(options: dict[str, Any]) -> None:
    assert told(**options) == []


def test_folders_elsewhere_are_told_once() -> None:
    for save_path in ("/etc/x", "C:\\x", "\\\\server\\share"):
        (sentence,) = told(save_path=save_path)
        assert "is not inside output_dir" in sentence


@given(st.text(alphabet="ab./\\~: _\x01?", max_size=12))
def test_every_replacement_is_said(text: str) -> None:
    parts = [part for part in text.replace("\\", "/").split("/") if part.strip() not in ("", ".")]
    said = replaced._of_folders("save_path", text)
    if clean_folders(text) != [part.strip() for part in parts]:
        assert said or text.lstrip()[:1] in ("/", "\\") or text.lstrip()[1:2] == ":"
    if text.strip() and clean_part(text) != text.strip():
        assert replaced._of_name("filename", text)
    assert all(sentence.startswith("save_path: ") and sentence.endswith(".") for sentence in said)
