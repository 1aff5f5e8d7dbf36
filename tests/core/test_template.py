"""The token language: what each token stands for, what stays, and that nothing is read twice."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.core.messages import SaveOptions
from luna_farm.core.template import (
    MAX_WARNINGS,
    VALUE_CHARS,
    JobFacts,
    Resolved,
    Values,
    comfyui_date,
    luna_time,
    resolve,
    split_model,
)
from luna_farm.errors import InvalidRequest

MOMENT = datetime(2025, 3, 4, 15, 6, 9)  # noqa: DTZ001  a wall clock, as names show it


def values(**options: object) -> Values:
    given: dict[str, object] = {"output_dir": "/out", "timestamp": "2025-03-04T15:06:09.123+02:00", **options}
    return Values(JobFacts(SaveOptions(**given)), "RAW", 3, 1024, 768)  # type: ignore[arg-type]


def text(template: str, **options: object) -> str:
    return resolve(template, values(**options)).text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("%model_path%", "SDXL/turbo/base"),
        ("%model_dir%", "SDXL/turbo"),
        ("%model_name%", "base"),
        ("%index%", "7"),
        ("%affix%", "RAW"),
        ("%batch%|%batch_num%", "3|3"),
        ("%width%x%height%", "1024x768"),
        ("%seed%", "42"),
        ("%time:YYYY_mm_dd_HHMMSS%", "2025_03_04_150609"),
        ("%time:YYYY_mm_dd.HH.MM.SS%", "2025_03_04.15.06.09"),
        ("%date:yyyy-MM-dd%", "2025-03-04"),
        ("%date:yyyy.MM.dd%", "2025.03.04"),
        ("%date:yyyy/MM/dd%", "2025/03/04"),
        ("%year%-%month%-%day%_%hour%%minute%%second%", "2025-03-04_150609"),
        ("%counter%", "%counter%"),
        ("%KSampler.steps%", "20"),
        ("plain", "plain"),
        ("", ""),
        ("50%", "50%"),
    ],
)
def test_each_token(template: str, expected: str) -> None:
    prompt = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 42, "steps": 20}}})
    model = "SDXL\\turbo/base.safetensors"
    found = resolve(template, values(model_name=model, filename_index=7, prompt=prompt))
    assert found == Resolved(expected)


@pytest.mark.parametrize(
    ("template", "expected", "warned"),
    [
        ("%foo%", "%foo%", ["%foo%"]),
        ("a %foo% b %width%", "a %foo% b 1024", ["%foo%"]),
        ("100% of %width%", "100% of 1024", []),
        ("50%_%width%", "50%_1024", []),
        ("%%width%%", "%1024%", []),
        ("%Seed%", "%Seed%", ["%Seed%"]),
        ("%seed%", "%seed%", ["%seed% is not known here: no node"]),
        ("%no.such%", "%no.such%", ["no node is called 'no'"]),
        ("%a.b.c%", "%a.b.c%", ["%a.b.c%"]),
        ("%date%", "%date%", ["%date%"]),
    ],
)
def test_what_is_not_known_stays_and_is_told(template: str, expected: str, warned: list[str]) -> None:
    found = resolve(template, values())
    assert found.text == expected
    assert len(found.warnings) == len(warned)
    assert all(part in sentence for part, sentence in zip(warned, found.warnings, strict=True))


def test_values_are_not_read_again_and_bring_no_folders() -> None:
    prompt = json.dumps({"1": {"class_type": "Text", "inputs": {"text": "%width%/../..\\x"}}})
    assert text("%Text.text%", prompt=prompt) == "%width%_.._.._x"


def test_a_value_is_not_counted() -> None:
    prompt = json.dumps({"1": {"class_type": "Text", "inputs": {"text": "a%counter%"}}})
    assert text("%Text.text%_%counter%", prompt=prompt) == "a_counter__%counter%"
    assert text("%model_path%", model_name="m%counter%/x.pt") == "m_counter_/x"


def test_a_value_of_a_megabyte_is_cut() -> None:
    prompt = json.dumps({"1": {"class_type": "Text", "inputs": {"text": "x" * 1_000_000}}})
    assert text("%Text.text%" * 100, prompt=prompt) == "x" * VALUE_CHARS * 100


SECRET = "9f86d081884c7d659a2feaa0c55ad015"


@pytest.mark.parametrize(
    "template", ["%Loader.api_key%", "%Text.value%", "%Note.text%", "%Title.civitai_key%", "%Loader.url%"]
)
def test_a_secret_of_the_graph_never_becomes_a_name(template: str) -> None:
    nodes = {
        "1": {"class_type": "Loader", "inputs": {"api_key": SECRET, "url": f"https://x.org/?token={SECRET}"}},
        "2": {"class_type": "Text", "inputs": {"value": "swordfish-9"}},
        "3": {"class_type": "Other", "inputs": {"password": ["2", 0]}},
        "4": {"class_type": "Note", "inputs": {"text": f"mine is {SECRET}"}},
        "5": {"class_type": "X", "inputs": {"civitai_key": SECRET}, "_meta": {"title": "Title"}},
    }
    found = resolve(template, values(prompt=json.dumps(nodes)))
    assert SECRET not in found.text
    assert "swordfish" not in found.text
    assert "a password, key or token was left out" in found.warnings[0]


def test_warnings_are_bounded() -> None:
    assert len(resolve("%foo%" * 1000, values()).warnings) == MAX_WARNINGS


def test_several_nodes_of_one_name_are_told() -> None:
    nodes = {key: {"class_type": "Text", "inputs": {"text": key}} for key in "ab"}
    found = resolve("%Text.text%", values(prompt=json.dumps(nodes)))
    assert found.text == "a"
    assert "2 nodes are called 'Text'" in found.warnings[0]


# Made with ComfyUI's own formatDate (frontend, src/utils/formatUtil.ts) for 2025-03-04 15:06:09.
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("yyyy-MM-dd", "2025-03-04"),
        ("yy", "25"),
        ("yyy", "yyy"),
        ("y", "y"),
        ("yyyyy", "2025y"),
        ("yyyyyyyy", "20252025"),
        ("yyyyyy", "202525"),
        ("M/d/yyyy", "3/4/2025"),
        ("hhmmss", "150609"),
        ("h:m:s", "15:6:9"),
        ("HH", "HH"),
        ("ddd", "044"),
        ("MMM", "033"),
        ("mmm", "066"),
        ("dMhms", "431569"),
        ("Month day", "3ont15 4ay"),
        ("", ""),
    ],
)
def test_dates_are_those_of_comfyui(form: str, expected: str) -> None:
    assert comfyui_date(form, MOMENT) == expected


@settings(max_examples=50)
@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001
def test_both_ways_to_write_a_moment_agree(moment: datetime) -> None:
    luna = luna_time("YYYY-mm-dd HH:MM:SS", moment)
    comfyui = comfyui_date("yyyy-MM-dd hh:mm:ss", moment)
    assert luna == f"{moment:%m-%d %H:%M:%S}".join((f"{moment.year:04d}-", ""))
    assert comfyui.partition("-")[2] == luna.partition("-")[2]
    assert comfyui.partition("-")[0] == str(moment.year)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("", ((), "UnknownModel")),
        ("  ", ((), "UnknownModel")),
        ("a.safetensors", ((), "a")),
        ("a.SafeTensors", ((), "a")),
        ("a.b.ckpt", ((), "a.b")),
        ("a.pt", ((), "a")),
        ("a.pth", ((), "a")),
        ("a.bin", ((), "a")),
        ("a.gguf", ((), "a")),
        ("a.onnx", ((), "a.onnx")),
        ("x\\y/a.pt", (("x", "y"), "a")),
        ("/abs/a.pt", (("abs",), "a")),
        ("x/.pt", (("x",), "UnknownModel")),
    ],
)
def test_models(model: str, expected: tuple[tuple[str, ...], str]) -> None:
    assert split_model(model) == expected


def test_no_model_has_a_name_and_no_folder() -> None:
    assert text("[%model_path%][%model_name%][%model_dir%]") == "[UnknownModel][UnknownModel][]"


def test_the_z_of_javascript_is_read() -> None:
    assert text("%hour%", timestamp="2025-03-04T15:06:09.123Z") == "15"


def test_an_unreadable_timestamp_matters_only_where_it_is_used() -> None:
    assert text("%width%", timestamp="soon") == "1024"
    with pytest.raises(InvalidRequest, match="timestamp: 'soon' is not allowed"):
        text("%year%", timestamp="soon")


TOKENS = [
    "%width%",
    "%foo%",
    "%time:HH%",
    "%date:yyyy%",
    "%counter%",
    "%a.b%",
    "%",
    "%%",
    "100% ",
    "text",
    "/",
]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(TOKENS)).map("".join) | st.text())
def test_any_template_resolves_and_what_has_no_token_is_untouched(template: str) -> None:
    found = resolve(template, values())
    if template.count("%") < 2:
        assert found == Resolved(template)
    assert len(found.warnings) <= MAX_WARNINGS
