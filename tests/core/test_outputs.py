"""Several files of one image: how they are written down, named, accepted and reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import LIMITS, Stage, batch, options

from luna_farm.core import filenames, schema
from luna_farm.core.filenames import NUMBER
from luna_farm.core.messages import ImageResult
from luna_farm.core.outputs import MOST, Output, checked, text_of, with_thumbnail
from luna_farm.core.schema import Submit
from luna_farm.errors import InvalidRequest

WEB = Output("webp", 1600, "web")
THREE = (Output("png"), WEB, Output.thumbnail())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ()),
        ("png, webp 1600 web, thumbnail 256", THREE),
        ("master, web, thumbnail", THREE),
        ("PNG l9 full, jpg small 512 q70 linear",
         (Output("png", 0, "full", level=9), Output("jpeg", 512, "small", 70, linear=True))),
        ("thumbnail 64 q50", (Output("jpeg", 64, "thumb", 50),)),
        ('[{"format": "png", "save_path": "a/b"}]', (Output("png", save_path="a/b"),)),
        ([{"format": "tif"}, Output.thumbnail(10)], (Output("tiff"), Output("jpeg", 10, "thumb", 80))),
    ],
)  # fmt: skip
def test_what_can_be_written(text: Any, wanted: tuple[Output, ...]) -> None:
    assert checked(text) == wanted
    assert checked(text_of(wanted)) == wanted, "and what goes over the wire is the same"


@pytest.mark.parametrize(
    "text",
    [
        "gif", "png, png", "png 1 2", "png q0", "png l10", "png,,webp", "[", '{"format": "png"}', [1], 5,
        [{"x": 1}],
        [Output()] * (MOST + 1), [{"format": 5}], [{"max_side": -1}], [{"max_side": None}], ["png"],
        [{"linear": 1}],
        [{"suffix": "x" * 65}], [{"save_path": 5}], "png web web2",
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest, match="outputs"):
        checked(text)


@given(
    st.lists(
        st.builds(
            Output,
            st.sampled_from(["png", "jpeg", "webp"]),
            st.integers(0, 4000),
            st.from_regex(r"[a-z]{0,8}", fullmatch=True),
            st.none() | st.integers(1, 100),
            st.none() | st.integers(0, 9),
            st.none() | st.just("a/%model_name%"),
            st.booleans(),
        ),
        max_size=MOST,
        unique_by=lambda output: output.ending,
    )
)
def test_the_text_of_outputs_names_the_same_outputs(outputs: list[Output]) -> None:
    assert checked(text_of(outputs)) == tuple(outputs)
    assert tuple(Output.from_map(output.to_map()) for output in outputs) == tuple(outputs)


def test_a_thumbnail_is_added_once() -> None:
    assert with_thumbnail((), True, "webp") == (Output("webp"), Output.thumbnail())
    assert with_thumbnail((WEB,), True, "png") == (WEB, Output.thumbnail())
    assert with_thumbnail(THREE, True, "png") == THREE
    assert with_thumbnail((), False, "png") == ()


def test_quality_and_level_of_an_output_come_before_those_of_the_request() -> None:
    given = options(lossy_quality=70, png_compression=3)
    assert given.of_output(Output()) is given
    assert given.of_output(Output(quality=50)).lossy_quality == 50
    exact = replace(given, lossless_webp=True)
    assert (exact.quality, exact.of_output(Output(quality=50)).quality) == (100, 50)
    assert given.of_output(Output(level=9)).png_compression == 9


def submitted(**image: Any) -> dict[str, Any]:
    request = {"request_id": "request-1", "timestamp": "2026-01-02T03:04:05", "output_dir": "/out"}
    shape = {"affix": "A", "shape": [1, 8, 8, 3]}
    return {**request, "images": [{**shape, **image}]}


def submit(message: dict[str, Any]) -> Submit:
    return schema.submit(message, {}, LIMITS.of_request())


def test_an_image_may_have_outputs_of_its_own() -> None:
    message = {**submitted(), "outputs": "png, webp web"}
    assert submit(message).batches[0].outputs == (Output("png"), Output("webp", 0, "web"))
    message["images"][0]["outputs"] = [{"format": "jpeg"}]
    message["thumbnail"] = True
    made = submit(message).batches[0]
    assert (made.outputs, made.format, made.files) == ((Output("jpeg"), Output.thumbnail()), "jpeg", 2)
    moving = {**submitted(frames=3, format="webp"), "thumbnail": True}
    with pytest.raises(InvalidRequest, match="moving"):
        submit(moving)
    with pytest.raises(InvalidRequest, match="outputs"):
        submit(submitted(outputs="gif"))


def test_names_of_one_image_have_one_stem() -> None:
    four = batch(outputs=(*THREE, Output(suffix="x", save_path="e")), batch=2)
    made = filenames.image_names(Submit("r", options(save_path="d"), (four, batch())))
    assert made.relatives == (
        f"d/a_RAW_0{NUMBER}.png",
        f"d/a_RAW_0{NUMBER}_web.webp",
        f"d/a_RAW_0{NUMBER}_thumb.jpg",
        f"e/a_RAW_0{NUMBER}_x.png",
        f"d/a_RAW_1{NUMBER}.png",
        f"d/a_RAW_1{NUMBER}_web.webp",
        f"d/a_RAW_1{NUMBER}_thumb.jpg",
        f"e/a_RAW_1{NUMBER}_x.png",
        "d/a_RAW.png",
    )
    long = filenames.shorten(f"d/{'x' * 200}{NUMBER}_web.webp", 119)
    assert NUMBER not in long
    assert long.endswith("_web.webp")


def test_names_of_an_archive_have_one_stem_for_each_image() -> None:
    made = filenames.image_names(
        Submit("r", options(archive="tar"), (batch(outputs=(WEB, Output.thumbnail()), batch=2),))
    )
    assert made.members == ("a_RAW_0.webp", "a_RAW_1.webp")


def stage() -> Stage:
    made = Stage()
    made.workers()
    return made


def test_all_files_of_an_image_are_reserved_and_reported() -> None:
    at = stage()
    receipt = at.answer(at.submit("job-0001", batch(outputs=THREE), batch(affix="B")))
    assert len(receipt["paths"]) == 2
    assert [len(names) for names in receipt["outputs"]] == [3, 1]
    assert len(at.farm.taken) == 4
    task = at.dispatched[0].task
    assert [output["format"] for output in task.outputs] == ["png", "webp", "jpeg"]
    assert task.paths == tuple(receipt["outputs"][0])
    assert task.paths[0] == task.path == receipt["paths"][0]
    assert [row["state"] for row in at.farm.jobs["job-0001"].report()["images"][0]["outputs"]] == [
        "running"
    ] * 3
    files = tuple({"number": n, "path": f"/out/{n}", "bytes": 100 + n} for n in range(3))
    at.finish(files=files)
    found = at.farm.jobs["job-0001"].report()["images"][0]["outputs"]
    assert [(row["path"], row["state"], row["bytes"]) for row in found] == [
        (f"/out/{n}", "saved", 100 + n) for n in range(3)
    ]
    assert len(at.farm.taken) == 1
    assert at.farm.totals["bytes_written"] == 10 + 101 + 102
    assert len({path for path in task.temp_paths if "json" not in path}) == 6


def test_what_an_attempt_published_before_it_failed_is_not_made_again() -> None:
    for code, state in (("disk", "held"), ("encode", "failed")):
        at = stage()
        at.submit("job-0001", batch(outputs=THREE))
        done = ({"number": 1, "path": "/out/x_web.webp", "bytes": 7},)
        at.finish(state="failed", code=code, error="full", files=done)
        assert at.states("job-0001") == [state]
        found = at.farm.jobs["job-0001"].report()["images"][0]["outputs"]
        assert [row["state"] for row in found] == [state, "saved", state]
        assert [row["error"] for row in found] == ["full", "", "full"]
        after = at.restarted()
        after.workers()
        if code == "encode":
            after.ask("retry", "job-0001")
        for again in (after, at):
            if again is at and code == "encode":
                again.ask("retry", "job-0001")
            while not again.dispatched:
                again.tick(5)
            assert again.dispatched[0].task.published == done


def test_a_fallback_folder_takes_all_files() -> None:
    at = Stage(fallback_dir="/spare")
    at.workers()
    at.submit("job-0001", batch(outputs=THREE))
    for _ in range(3):
        while not at.dispatched:
            at.tick(5)
        at.finish(state="failed", code="disk", error="full")
    task = at.dispatched[0].task
    assert all(path.startswith("/spare/") for path in task.paths)
    assert len(at.farm.taken) == 3


def test_a_file_that_was_published_just_before_the_end_stands_for_all() -> None:
    from stage import Disk

    at = stage()
    at.submit("job-0001", batch(outputs=THREE))
    path = at.dispatched[0].task.path
    made = ImageResult("saved", path=path, bytes=10)
    after = at.restarted(Disk(pixels=False, made={("job-0001", 0): made}))
    found = after.farm.jobs["job-0001"].report()["images"][0]["outputs"]
    assert [row["state"] for row in found] == ["saved"] * 3


def test_names_of_a_submit_that_comes_to_nothing_are_free_again() -> None:
    at = stage()
    at.open("job-0001", batch(outputs=THREE))
    assert len(at.farm.taken) == 3
    from luna_farm.core import events

    at.happens(events.ClientGone(7, may_write=False))
    assert at.farm.taken == set()
