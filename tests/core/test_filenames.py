"""From text to names: where files go, what is replaced, what is cut, and that nothing ever leads outside."""

from __future__ import annotations

import ntpath
import posixpath
import sys
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luna_farm.core.batches import Batch
from luna_farm.core.filenames import (
    AFFIX_BYTES,
    NAME_BYTES,
    PART_BYTES,
    PATH_BYTES,
    clean_folders,
    clean_part,
    collision_key,
    fit,
    image_name,
    image_names,
    shorten,
    with_number,
)
from luna_farm.core.messages import SaveOptions
from luna_farm.core.schema import Submit
from luna_farm.core.template import JobFacts, Resolved
from luna_farm.errors import InvalidRequest

STAMP = "2025-03-04T15:06:09"
ODD = [
    *"\u200b\u200c\u200d\ufe0f\u3164❤👩é",
    *'/\\.:<>"|?*\0\n\x7f ~%$-',
    "\u202e",
    "\u2066",
    "\ufeff",
    "\ud800",
    "\udfff",
    "\u0301",
]
HOSTILE = st.text(st.characters() | st.sampled_from(ODD), max_size=60)
DEVICES = ["CON", "nul", "COM1", "lpt9", "COM¹", "CONIN$", "aux .txt", "PRN.a.b", "clock$"]
ESCAPES = ["..", "/", "\\", "C:", "\\\\server\\share", "~", "../../etc", "%model_path%", "%KSampler.x%"]
LENGTHS = ["a" * 300, "🎨" * 90, "é", "e\u0301", " ", ".", "\0", "x", "%time:YYYY/mm%", "\u202egnp"]
PIECES = st.sampled_from([*ESCAPES, *LENGTHS, *DEVICES])
BIDIRECTIONAL = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
TEMPLATE = HOSTILE | st.lists(PIECES | HOSTILE, max_size=8).map("".join)


def name(
    affix: str = "RAW", output_dir: str = "/out", path_bytes: int = PATH_BYTES, **given: Any
) -> Resolved:
    shape = {"format": "png", "subdir": True, "batch_index": 0, "batch_size": 1, "width": 8, "height": 8}
    shape.update((key, given.pop(key)) for key in list(given) if key in shape)
    facts = JobFacts(SaveOptions(output_dir, timestamp=STAMP, **given))
    return image_name(facts, affix=affix, path_bytes=path_bytes, **shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"save_path": "shots", "filename": "a"}, "shots/RAW/a_RAW.png"),
        ({"save_path": "shots", "filename": "a", "subdir": False}, "shots/a_RAW.png"),
        ({"filename": "a", "affix": ""}, "a.png"),
        ({"filename": "a", "affix": " . "}, "a.png"),
        ({"filename": "a", "batch_size": 2, "batch_index": 1}, "RAW/a_RAW_1.png"),
        ({"filename": "a", "batch_size": 1, "batch_index": 1}, "RAW/a_RAW.png"),
        ({"filename": "a%batch_num%b", "batch_size": 2, "batch_index": 1}, "RAW/a1b_RAW.png"),
        ({"filename": "a%batch%b", "batch_size": 2, "batch_index": 1}, "RAW/a1b_RAW_1.png"),
        ({"filename": "a", "format": "jpeg"}, "RAW/a_RAW.jpg"),
        ({"filename": "a", "format": "tiff", "affix": ""}, "a.tif"),
        ({}, "RAW/2025_03_04_150609_UnknownModel_RAW.png"),
        ({"filename": " ", "model_name": "x/y.pt"}, "RAW/2025_03_04_150609_y_RAW.png"),
        ({"filename": "%model_dir%"}, "RAW/2025_03_04_150609_UnknownModel_RAW.png"),
        ({"filename": "%model_path%", "model_name": "x/y.pt"}, "RAW/x_y_RAW.png"),
        ({"filename": "a/b\\c"}, "RAW/a_b_c_RAW.png"),
        ({"save_path": "%model_path%", "filename": "a", "model_name": "x\\y.pt"}, "x/y/RAW/a_RAW.png"),
        ({"save_path": "a/b\\c", "filename": "a"}, "a/b/c/RAW/a_RAW.png"),
        ({"save_path": "../../etc", "filename": ".."}, "_/_/etc/RAW/2025_03_04_150609_UnknownModel_RAW.png"),
        ({"save_path": "x", "filename": "a", "affix": "../b"}, "x/.._b/a_.._b.png"),
        ({"filename": "CON", "affix": ""}, "_CON.png"),
        ({"save_path": "nul.txt", "filename": "a"}, "_nul.txt/RAW/a_RAW.png"),
        ({"filename": "%counter%"}, "RAW/%counter%_RAW.png"),
        ({"filename": "a", "affix": "x%counter%"}, "x_counter_/a_x_counter_.png"),
        ({"save_path": "take_%counter%", "filename": "a"}, "take_%counter%/RAW/a_RAW.png"),
        ({"filename": "~root"}, "RAW/~root_RAW.png"),
        ({"filename": "x.png", "affix": ""}, "x.png"),
        ({"filename": "x.PNG"}, "RAW/x_RAW.png"),
        ({"filename": "x.jpeg", "affix": "", "format": "jpeg"}, "x.jpg"),
        ({"filename": "x.png", "affix": "", "format": "webp"}, "x.png.webp"),
        ({"filename": ".png", "affix": ""}, ".png.png"),
        ({"filename": "v1.5", "affix": ""}, "v1.5.png"),
        ({"save_path": "/out/shots/x", "filename": "a"}, "shots/x/RAW/a_RAW.png"),
        ({"save_path": "/out/", "filename": "a"}, "RAW/a_RAW.png"),
        ({"save_path": "c:/Images/x", "filename": "a", "output_dir": "C:\\images"}, "x/RAW/a_RAW.png"),
        ({"filename": "a", "batch_size": 12, "batch_index": 3}, "RAW/a_RAW_03.png"),
        ({"filename": "a", "batch_size": 10, "batch_index": 3}, "RAW/a_RAW_3.png"),
        ({"filename": "a", "batch_size": 3, "batch_index": 2, "batch_digits": 4}, "RAW/a_RAW_0002.png"),
    ],
)
def test_where_a_image_goes(options: dict[str, Any], expected: str) -> None:
    assert name(**options) == Resolved(expected)


@pytest.mark.parametrize(
    ("save_path", "expected"),
    [
        ("/abs//./x/", "abs/x/RAW/a_RAW.png"),
        ("/output/x", "output/x/RAW/a_RAW.png"),
        ("C:\\x", "C_/x/RAW/a_RAW.png"),
        ("\\\\server\\share", "server/share/RAW/a_RAW.png"),
    ],
)
def test_an_absolute_folder_outside_is_told(save_path: str, expected: str) -> None:
    found = name(save_path=save_path, filename="a")
    assert found.text == expected
    assert f"save_path {save_path!r} is not inside output_dir '/out'" in found.warnings[0]


IGNORABLE = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0),
    *(*range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
]
"""Default_Ignorable_Code_Point (DerivedCoreProperties.txt of Unicode 15)."""
NONCHARACTERS = [
    *range(0xFDD0, 0xFDF0),
    *(plane << 16 | low for plane in range(17) for low in (0xFFFE, 0xFFFF)),
]


@pytest.mark.parametrize("around", ["ab", "ék", "кт", "αβ", "한글", "1a"])
def test_no_character_that_is_not_seen_stays_between_letters(around: str) -> None:
    left, right = around
    kept = [c for c in IGNORABLE + NONCHARACTERS if chr(c) in clean_part(f"{left}{chr(c)}{right}")]
    assert kept == []


def test_joiners_and_variations_stay_where_they_change_what_is_seen() -> None:
    for name in (
        "می\u200cخواهم",
        "क्\u200dष",
        "👩\u200d🚀",
        "❤\ufe0f\u200d🔥",
        "葛\U000e0100",
        "1\ufe0f\u20e3",
    ):
        assert clean_part(name) == unicodedata.normalize("NFC", name)
    assert clean_part("漢\u200d字") == "漢_字"
    assert clean_part("😀\ufe0f\U000e0121\U000e0122") == "😀\ufe0f__"  # bytes hidden behind an emoji


@pytest.mark.parametrize("blank", [*" \xa0\u1680\u2002\u2009\u202f\u205f\u2800\u3000\U00016fe4\U0001d159"])
def test_a_name_of_blanks_alone_does_not_exist(blank: str) -> None:
    assert clean_part(blank * 3) == "_"
    assert clean_part(f"{blank}a{blank}b{blank}.{blank}") == f"a{blank}b"
    assert clean_folders(f"a/{blank}/b") == ["a", "b"]


def test_what_is_cut_is_told() -> None:
    for options in ({"filename": "f" * 6000}, {"affix": "A" * 250}, {"save_path": "a" * 300}):
        assert "was too long and was cut" in name(**{"filename": "a", **options}).warnings[0]


INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180e\u200b\u200c\u200d\u2060\u3164\ufe0f\uffa0\U000e0041\U000e0101"
)


@pytest.mark.parametrize("char", INVISIBLE)
def test_what_is_not_seen_does_not_stay(char: str) -> None:
    assert clean_part(f"a{char}b") == "a_b"
    assert clean_part(f"{char}a") == "_a"


@pytest.mark.parametrize("text", ["👨‍👩‍👧", "❤️‍🔥", "می‌خواهم", "क्‍ष", "1️⃣", "©️", "葛\U000e0100"])
def test_what_changes_how_others_look_stays(text: str) -> None:
    assert clean_part(text) == unicodedata.normalize("NFC", text)


KEY = "sk-" + "aB3" * 16


@pytest.mark.parametrize(
    "options",
    [
        {"filename": f"a {KEY}"},
        {"save_path": f"x/{KEY}/y"},
        {"affix": KEY},
        {"filename": "%model_name%", "model_name": f"{KEY}/{KEY}"},
        {"model_name": KEY},
    ],
)
def test_a_credential_never_becomes_a_name(options: dict[str, Any]) -> None:
    found = name(**{"filename": "a", **options} if "model_name" not in options else options)
    assert KEY not in found.text
    assert "a password, key or token was left out of the name" in found.warnings[0]


@pytest.mark.parametrize(
    "stem", ["sk_glossy_anime_style_v2", "pk-monsters_v12_highres", "rk_kit_2024_interior_hd"]
)
def test_names_that_begin_like_keys_stay(stem: str) -> None:
    assert name(filename=stem, affix="") == Resolved(f"{stem}.png")


def test_a_submit_names_its_batches_in_order_and_warns_once() -> None:
    entries = (Batch("RAW", "png", True, 2, 8, 8, 3), Batch("UP", "webp", False, 1, 16, 16, 3))
    submit = Submit(
        "r" * 8, SaveOptions("/out", save_path="p", filename="%foo%%width%", timestamp=STAMP), entries
    )
    names = image_names(submit)
    assert names.relatives == ("p/RAW/%foo%8_RAW_0.png", "p/RAW/%foo%8_RAW_1.png", "p/%foo%16_UP.webp")
    assert names.warnings == ("%foo% is not a known token; it stays in the name as it is.",)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("plain name", "plain name"),
        (' <>:"/\\|?*', "_________"),
        ("a\0b\x1fc\x7fd\x85e", "a_b_c_d_e"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("a\u2066b\u200ec\u061cd\ufeffe\u2028f", "a_b_c_d_e_f"),
        ("\ud800x\udfff", "_x_"),
        ("trailing. . .", "trailing"),
        ("  both  ", "both"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        (".hidden", ".hidden"),
        ("e\u0301", "é"),
        ("con", "_con"),
        ("CON.", "_CON"),
        ("Con .x", "_Con .x"),
        ("CONSOLE", "CONSOLE"),
        ("COM", "COM"),
        ("COM0", "_COM0"),
        ("LPT².gz", "_LPT².gz"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),
    ],
)
def test_what_is_replaced(given_text: str, expected: str) -> None:
    assert clean_part(given_text) == expected


def reserved(part: str) -> bool:
    """Whether Python's own knowledge of Windows refuses the name."""
    if sys.version_info >= (3, 13):
        return bool(ntpath.isreserved(part))
    return PureWindowsPath(part).is_reserved()


def assert_safe_part(part: str, limit: int = PART_BYTES) -> None:
    assert part not in ("", ".", "..")
    assert len(part.encode("utf-8")) <= limit
    assert not set(part) & set('<>:"/\\|?*')
    assert all(unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") for letter in part)
    assert all(unicodedata.bidirectional(letter) not in BIDIRECTIONAL for letter in part)
    assert part == part.strip(" ").rstrip(".")
    assert not reserved(part)
    assert unicodedata.normalize("NFC", part) == part


@settings(max_examples=400)
@given(HOSTILE | PIECES, st.integers(8, 300))
@example("CON        x", 8)
@example("." * 300 + "x", 255)
def test_cleaning_is_safe_and_final(text: str, limit: int) -> None:
    part = fit(clean_part(text), limit)
    assert_safe_part(part, limit)
    assert clean_part(part) == part
    assert fit(part, limit) == part


@settings(max_examples=300)
@given(TEMPLATE)
def test_folders_stay_below(text: str) -> None:
    parts = clean_folders(text)
    for part in parts:
        assert_safe_part(part, limit=1 << 20)
    assert clean_folders("/".join(parts)) == parts


@settings(max_examples=800, deadline=None)
@given(TEMPLATE, TEMPLATE, TEMPLATE, TEMPLATE, st.booleans(), st.integers(1, 3))
def test_no_template_leads_outside(
    save_path: str, filename: str, affix: str, model: str, subdir: bool, batch: int
) -> None:
    options: dict[str, Any] = {
        "save_path": save_path,
        "filename": filename,
        "model_name": model,
        "subdir": subdir,
        "batch_size": batch,
    }
    try:
        relative = name(affix=affix, **options).text
    except InvalidRequest:
        assert save_path.count("/") + save_path.count("\\") > 20  # deeper than any path may be
        return
    parts = relative.split("/")
    for part in parts:
        assert_safe_part(part)
    assert len(parts[-1].encode("utf-8")) <= NAME_BYTES
    assert len(f"/out/{relative}".encode()) <= PATH_BYTES
    assert posixpath.normpath(f"/out/{relative}") == f"/out/{relative}"
    assert ntpath.splitdrive(relative)[0] == ""
    assert PurePosixPath("/out", relative).is_relative_to("/out")
    assert PureWindowsPath("C:/out", relative).is_relative_to("C:/out")
    assert parts[-1].endswith("_0.png" if batch > 1 and "%batch_num%" not in filename else ".png")


def test_long_names_keep_affix_batch_and_extension() -> None:
    long = name(filename="f" * 400, affix="A" * 40, batch_size=12, batch_index=11).text
    assert len(long.split("/")[-1]) == NAME_BYTES
    assert long.endswith("f_" + "A" * 40 + "_11.png")
    affix = name(filename="é" * 400, affix="ü" * 400).text.split("/")[-1]
    assert affix.endswith("_" + "ü" * (AFFIX_BYTES // 2) + ".png")
    assert NAME_BYTES - 1 <= len(affix.encode()) <= NAME_BYTES


@pytest.mark.parametrize("before", ["", "f" * 400, "ghp_" + "A1b2C3d4E5f6" * 3])
def test_images_of_a_batch_never_have_one_name(before: str) -> None:
    """Also where their place in it would be in a part that is cut, or in one that is hidden."""
    names = [
        name(filename=f"{before}%batch_num%", batch_size=12, batch_index=index).text for index in range(12)
    ]
    assert len(set(names)) == 12, names


def test_long_paths_lose_of_the_filename_first_then_of_the_folders() -> None:
    room = 300
    first = name(save_path="a" * 100, filename="f" * 200, subdir=False, path_bytes=room).text
    assert first.startswith("a" * 100 + "/ff")
    second = name(
        save_path="a" * 200 + "/" + "b" * 200, filename="f" * 200, subdir=False, path_bytes=room
    ).text
    folders = second.split("/")[:-1]
    assert [set(part) for part in folders] == [{"a"}, {"b"}]
    assert len(set(map(len, folders))) == 1
    assert second.endswith("f" * 24 + "_RAW.png")
    assert max(len(first), len(second)) + len("/out/") + 24 <= room


def test_a_path_that_cannot_be_short_enough_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="fewer folders or a shorter output_dir"):
        name(save_path="/".join("abcdefghijklmnopq" for _ in range(100)), filename="a")
    with pytest.raises(InvalidRequest, match="output_dir: "):
        name(filename="a" * 30, output_dir="/o" * 490, subdir=False)


def test_numbers_stand_before_the_extension() -> None:
    assert with_number("x.y/a.b.png", 1) == "x.y/a.b_00001.png"
    assert with_number("a.png", 123456) == "a_123456.png"


def test_shortening_for_a_small_file_system_keeps_the_end() -> None:
    path = "f" * 200 + "/" + "n" * 200 + "_RAW_3.png"
    folder, file = shorten(path, 119).split("/")
    assert folder == "f" * 119
    assert len(file) == 119
    assert file.endswith("_RAW_3.png")
    assert shorten("a/b.png", 119) == "a/b.png"


def test_twins_have_one_key() -> None:
    assert collision_key("/out/A.PNG") == collision_key("/out/a.png")
    assert (
        collision_key("/out/É.png") == collision_key("/out/e\u0301.png") == collision_key("/out/E\u0301.png")
    )
    assert collision_key("/out/STRASSE") == collision_key("/out/straße")
    assert collision_key("/out/a") != collision_key("/out/b")
