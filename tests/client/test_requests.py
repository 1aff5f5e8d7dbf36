"""What is wrong with a request is said at the caller, in a sentence, before anything is sent."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core import schema
from luna_farm.errors import InvalidRequest, ProtocolError
from luna_farm_client.json_text import json_text
from luna_farm_client.outgoing import Outgoing
from luna_farm_client.requests import JobReport, Receipt, SaveImage, SaveRequest

PIXELS = np.zeros((2, 3, 4, 3), np.uint8)


def outgoing(**fields: object) -> Outgoing:
    return Outgoing(SaveRequest([SaveImage(PIXELS, "RAW")], **fields))


def test_a_request_passes_the_schema_of_the_farm() -> None:
    out = Outgoing(SaveRequest([SaveImage(PIXELS, "RAW", "webp", True), SaveImage(PIXELS[0], "B")]))
    message = out.message(out.sizes)
    submit = schema.submit(
        message, {"output_dir": "/out"}, {"max_images": 9, "max_pixels": 99, "arena_bytes": 999}
    )
    assert [(b.affix, b.format, b.subdir, b.batch * b.image_bytes) for b in submit.batches] == [
        ("RAW", "webp", True, 72),
        ("B", "png", False, 36),
    ]
    assert submit.want == (72, 36) == tuple(out.sizes)
    assert out.message()["want"] == []


def test_the_same_request_keeps_its_id_and_another_has_another() -> None:
    out = outgoing()
    assert out.message()["request_id"] == out.message([5])["request_id"]
    assert outgoing().fields["request_id"] != out.fields["request_id"]


def test_a_relative_folder_starts_from_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert outgoing(output_dir="out/../x").fields["output_dir"] == str(tmp_path / "x")
    assert outgoing(output_dir=tmp_path / "y").fields["output_dir"] == str(tmp_path / "y")
    if os.name == "posix":
        assert outgoing(output_dir="~/z").fields["output_dir"] == str(tmp_path / "home" / "z")
    assert "output_dir" not in outgoing().fields, "that is for the farm's configuration to say"


def test_a_moment_is_iso_8601() -> None:
    moment = datetime.fromisoformat("2026-01-02T03:04:05.678901+02:00")
    assert outgoing(timestamp=moment).fields["timestamp"] == "2026-01-02T03:04:05.678+02:00"
    assert outgoing(timestamp="2026-01-02").fields["timestamp"] == "2026-01-02"
    assert datetime.fromisoformat(outgoing().fields["timestamp"]).tzinfo is not None


def test_what_was_not_asked_for_is_left_to_the_farm() -> None:
    fields = outgoing().fields
    assert not {"on_reject", "durable", "output_dir"} & set(fields)
    assert outgoing(on_reject="drop", durable=False).fields["on_reject"] == "drop"


def test_maps_become_text_and_a_workflow_that_is_not_wanted_is_not_sent() -> None:
    fields = outgoing(prompt={"1": {}}, extra_pnginfo={"workflow": {}}, metadata='{"seed": 1}').fields
    assert (fields["prompt"], fields["extra_pnginfo"], fields["metadata"]) == (
        '{"1": {}}',
        '{"workflow": {}}',
        '{"seed": 1}',
    )
    assert "extra_pnginfo" not in outgoing(extra_pnginfo={"workflow": {}}, embed="none").fields


def test_metadata_that_json_cannot_hold_is_left_out_with_a_sentence() -> None:
    loop: dict[str, object] = {}
    loop["loop"] = loop
    image = SaveImage(np.zeros((4, 4, 3), np.uint8), metadata={(1, 2): 3})
    request = SaveRequest([image], "/", custom_metadata=loop, extra_pnginfo={"workflow": 1}, prompt="\ud800")
    message = Outgoing(request).message()
    assert "custom_metadata: " in message["told"][0]
    assert "metadata of an image: " in message["told"][1]
    assert message["extra_pnginfo"] == '{"workflow": 1}'
    assert message["prompt"] == "?"
    assert "metadata" not in message["images"][0]


def test_json_may_be_nested_as_deeply_as_one_likes() -> None:
    deep: object = {"a": [1.5, float("nan")], "b": ()}
    for level in range(100_000):
        deep = [deep, level] if level % 2 else {"k": deep, "l": "\u732b"}
    text = json_text("metadata", {"deep": deep})
    assert text.startswith('{"deep":[{"k":[')
    assert '{"a":[1.5,null],"b":[]}' in text
    assert text.isascii()
    assert (text.count("["), text.count("{")) == (text.count("]"), text.count("}"))


def test_what_json_cannot_hold_becomes_null_or_is_refused() -> None:
    odd = {"a": float("nan"), "b": [float("inf"), 1.0], "c": (2,), "d": "ü", "e": Path("x")}
    text = json_text("metadata", odd)
    assert text.isascii()
    assert json.loads(text) == {"a": None, "b": [None, 1.0], "c": [2], "d": "ü", "e": "x"}
    loop: dict[str, object] = {}
    loop["loop"] = loop
    deep: object = loop
    for _ in range(5000):
        deep = [deep]
    for wrong in (loop, deep):
        with pytest.raises(InvalidRequest, match="metadata"):
            json_text("metadata", wrong)
    assert json_text("metadata", None) == ""


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_map_becomes_json_without_nan(value: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(json_text("metadata", {"value": value}), parse_constant=refuse)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"quality_gate": "maybe"}, "quality_gate"),
        ({"min_quality_threshold": 2}, "min_quality_threshold"),
        ({"png_compression": 10}, "png_compression"),
        ({"png_compression": "4"}, "png_compression"),
        ({"lossy_quality": 0}, "lossy_quality"),
        ({"filename": 5}, "filename"),
        ({"embed": "some"}, "embed"),
        ({"on_reject": "burn"}, "on_reject"),
        ({"durable": "yes"}, "durable"),
        ({"filename_index": -1}, "filename_index"),
        ({"timestamp": "soon"}, "timestamp"),
        ({"timestamp": 5}, "timestamp"),
        ({"output_dir": 5}, "output_dir"),
        ({"output_dir": "a\0b"}, "output_dir"),
    ],
)
def test_every_field_is_judged_here(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest, match="allowed: ") as refused:
        outgoing(**fields)
    assert refused.value.field == field
    assert isinstance(refused.value, ValueError)


def test_what_a_name_cannot_hold_costs_itself_and_not_the_images() -> None:
    """Names of files that are no UTF-8 come as lone surrogates."""
    image = SaveImage(np.zeros((2, 2, 3), np.uint8), affix="\udce9\0b")
    sent = Outgoing(
        SaveRequest([image], filename="caf\udce9", model_name="a\0\ud800.safetensors", save_path="\udfff")
    )
    message = sent.message()
    assert (message["filename"], message["model_name"], message["save_path"]) == (
        "caf?",
        "a?.safetensors",
        "?",
    )
    assert message["images"][0]["affix"] == "?b"


@pytest.mark.parametrize(
    "images",
    [[], None, 5, [PIXELS], SaveImage(PIXELS), [SaveImage(PIXELS), None]],
    ids=["none of them", "none", "a number", "bare arrays", "no list", "one of them not"],
)
def test_images_must_be_a_list_of_them(images: object) -> None:
    with pytest.raises(InvalidRequest, match="SaveImage"):
        Outgoing(SaveRequest(images))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image", [{"format": "gif"}, {"affix": "x" * 65_537}, {"affix": 5}, {"subdir": "yes"}]
)
def test_every_image_is_judged_here(image: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Outgoing(SaveRequest([SaveImage(PIXELS, **image)]))  # type: ignore[arg-type]
    assert refused.value.field in image


def test_a_receipt_of_something_else_is_none() -> None:
    with pytest.raises(ProtocolError, match="job_id"):
        Receipt.from_answer({"success": True})


def test_a_report_of_a_newer_farm_is_read() -> None:
    image = dict.fromkeys(("affix", "format", "state", "path", "error", "code", "score", "threshold"), "") | {
        "index": 0,
        "bytes": 0,
        "warnings": ["w"],
        "ms": {},
        "of_the_future": 1,
    }
    answer = {"job_id": "a", "state": "done", "warnings": [], "output_dir": "", "timestamp": "", "new": 1}
    report = JobReport.from_answer({**answer, "images": [{**image, "state": "saved", "path": "/x"}, image]})
    assert report.images[0].warnings == ("w",)
    assert report.paths == ("/x",)
    assert report.finished
    assert not JobReport.from_answer({**answer, "state": "running", "images": []}).finished


@dataclasses.dataclass
class _ImageSaverMetadata:
    modelname: str = "m.safetensors"
    steps: int = 20


class _Point(NamedTuple):
    steps: int


class _Plain:
    def __init__(self) -> None:
        self.steps, self._private = 20, 5


class _Model:
    def model_dump(self) -> dict[str, int]:
        return {"steps": 20}


@pytest.mark.parametrize(
    ("given_metadata", "expected"),
    [
        (_ImageSaverMetadata(), {"modelname": "m.safetensors", "steps": 20}),
        (_Point(20), {"steps": 20}),
        (_Plain(), {"steps": 20}),
        (_Model(), {"steps": 20}),
        ({"steps": 20}, {"steps": 20}),
    ],
)
def test_metadata_may_be_an_object_with_fields(given_metadata: Any, expected: dict[str, Any]) -> None:
    images = [SaveImage(np.zeros((2, 2, 3), np.uint8), metadata=given_metadata)]
    out = Outgoing(SaveRequest(images, metadata=given_metadata))
    assert json.loads(out.fields["metadata"]) == expected
    assert json.loads(out.message()["images"][0]["metadata"]) == expected


def test_model_folders_are_sent_absolute(tmp_path: Path) -> None:
    out = Outgoing(SaveRequest([SaveImage(np.zeros((2, 2, 3), np.uint8))], model_dirs=[tmp_path, "models"]))
    assert out.fields["model_dirs"] == f"{tmp_path}\n{Path('models').absolute()}"


def test_a_relative_model_folder_is_that_of_the_folder_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = SaveImage(np.zeros((2, 2, 3), np.uint8))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        out = Outgoing(SaveRequest([image], model_dirs=(str(tmp_path), "models")))
        assert out.fields["model_dirs"] == f"{tmp_path}\n{tmp_path / name / 'models'}"


@pytest.mark.parametrize("zone", ["UTC0", "IST-5:30", "NST3:30NDT", "LHST-10:30"])
def test_the_time_of_a_request_is_that_of_the_wall_with_its_offset(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    if hasattr(time, "tzset"):
        time.tzset()
    try:
        before = datetime.now().astimezone()
        told = datetime.fromisoformat(outgoing().fields["timestamp"])
        after = datetime.now().astimezone()
        assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= told <= after
        assert told.utcoffset() == before.utcoffset()
    finally:
        monkeypatch.undo()
        if hasattr(time, "tzset"):
            time.tzset()


@pytest.mark.parametrize(("valid", "invalid"), [({"filename_index": 1}, {"filename_index": True})])
def test_an_equal_value_of_another_type_is_judged_by_itself(
    valid: dict[str, Any], invalid: dict[str, Any]
) -> None:
    outgoing(**valid)
    with pytest.raises(InvalidRequest):
        outgoing(**invalid)


def test_an_equal_subdir_of_another_type_is_judged_by_itself() -> None:
    Outgoing(SaveRequest([SaveImage(PIXELS, subdir=True)]))
    with pytest.raises(InvalidRequest):
        Outgoing(SaveRequest([SaveImage(PIXELS, subdir=1)]))  # type: ignore[arg-type]


def test_a_relative_folder_starts_from_where_the_program_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        assert outgoing(output_dir="out").fields["output_dir"] == str(folder / "out")


def test_nul_in_a_name_is_left_out_and_said() -> None:
    images = [SaveImage(PIXELS, "a\0"), SaveImage(PIXELS, "b\0")]
    sent = Outgoing(SaveRequest(images, filename="x\0y", save_path="z")).message()
    assert (sent["filename"], sent["save_path"]) == ("xy", "z")
    assert sent["told"] == [
        f"{name}: NUL was left out, because no name holds it." for name in ("filename", "affix")
    ]
