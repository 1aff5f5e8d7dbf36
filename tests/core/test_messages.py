"""Messages become maps and come back, from older farms too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.frames import decode, encode
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions

TASK = ImageTask(
    "ab12cd34", 1, "RAW", "png", 2, 3, "/out/a.png", "shm:x", 4096, 4, 5, 3, attempt=2, root="/out"
)


@pytest.mark.parametrize(
    "message", [TASK, SaveOptions("/out", prompt="{}"), ImageResult("saved", ms={"gate": 1.0})]
)
def test_what_goes_over_the_wire_comes_back_the_same(message: SaveOptions | ImageTask | ImageResult) -> None:
    wire = decode(encode(message.to_map())[4:])
    back = type(message).from_map(wire)
    lists = {name: list(value) for name, value in message.to_map().items() if isinstance(value, tuple)}
    assert back.to_map() == {**message.to_map(), **lists}


@pytest.mark.parametrize(
    "message", [TASK, SaveOptions("/out", filename="a"), ImageResult("saved", ms={"gate": 1.0})]
)
def test_a_worker_is_sent_the_values_alone(message: SaveOptions | ImageTask | ImageResult) -> None:
    wire = encode({"m": message.values()})
    back = type(message).from_values(decode(wire[4:])["m"])
    assert encode(back.to_map()) == encode(message.to_map())
    assert len(wire) < len(encode(message.to_map())) / 2


def test_an_older_record_has_fewer_fields_and_a_newer_one_more() -> None:
    given_map = SaveOptions("/out").to_map()
    del given_map["durable"]
    assert SaveOptions.from_map({**given_map, "of_the_future": 1}) == SaveOptions("/out")


def test_a_record_without_what_has_no_default_is_refused() -> None:
    with pytest.raises(TypeError):
        SaveOptions.from_map({})


@given(st.integers(1, 2**20), st.integers(1, 2**20), st.sampled_from((1, 3, 4)))
def test_the_size_of_the_pixels_does_not_overflow(height: int, width: int, channels: int) -> None:
    task = ImageTask.from_map({**TASK.to_map(), "height": height, "width": width, "channels": channels})
    assert task.nbytes == height * width * channels


@pytest.mark.parametrize(
    ("path", "in_affix_folder", "discarded"),
    [
        ("/out/shots/a.png", False, "/out/shots/_discarded/a.png"),
        ("/out/shots/RAW/a.png", True, "/out/shots/_discarded/a.png"),
        ("/a.png", False, "/_discarded/a.png"),
        ("C:\\out\\RAW\\a.png", True, "C:\\out\\_discarded\\a.png"),
    ],
)
def test_what_the_gate_rejects_goes_beside_the_folder_of_its_affix(
    path: str, in_affix_folder: bool, discarded: str
) -> None:
    task = ImageTask.from_map({**TASK.to_map(), "path": path, "in_affix_folder": in_affix_folder})
    assert task.discarded_path == discarded
