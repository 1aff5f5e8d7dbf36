"""What a submit may hold, field by field: one sentence for each refusal, no error but ours for any map."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core import schema
from luna_farm.core.batches import CHANNELS, Batch
from luna_farm.core.fields import JsonText
from luna_farm.core.messages import FORMATS, SaveOptions
from luna_farm.core.options import EMBED, FARM_DEFAULTS, GATES, ON_REJECT, OPTIONS
from luna_farm.errors import InvalidRequest, ProtocolError, TooLarge

LIMITS = {"max_images": 8, "max_pixels": 10_000, "arena_bytes": 1 << 20}
IMAGE = {"affix": "RAW", "format": "png", "subdir": False, "shape": [1, 10, 10, 3]}
SUBMIT = {
    "request_id": "12345678",
    "output_dir": "/out",
    "timestamp": "2026-01-02T03:04:05",
    "images": [IMAGE],
}


def submit(defaults: dict[str, Any] | None = None, **fields: Any) -> schema.Submit:
    return schema.submit({**SUBMIT, **fields}, defaults or {}, LIMITS)


def image(**fields: Any) -> schema.Submit:
    return submit(images=[{**IMAGE, **fields}])


def test_an_image_may_bring_metadata_of_its_own() -> None:
    assert image(metadata='{"seed": 1}').batches[0].metadata == '{"seed": 1}'


def test_the_least_that_a_submit_must_hold() -> None:
    given_submit = submit()
    assert given_submit.options == SaveOptions("/out", timestamp="2026-01-02T03:04:05")
    assert given_submit.batches == (Batch("RAW", "png", False, 1, 10, 10, 3),)
    assert (given_submit.want, given_submit.num_images) == ((), 1)


def test_all_of_it() -> None:
    fields = {
        "output_dir": "/out",
        "save_path": "a/b",
        "filename": "%seed%",
        "model_name": "m.safetensors",
        "quality_gate": "both",
        "min_quality_threshold": 0.5,
        "on_reject": "drop",
        "png_compression": 9,
        "lossy_quality": 70,
        "lossless_webp": True,
        "webp_method": 6,
        "embed": "parameters",
        "filename_index": 3,
        "custom_metadata": '{"a": 1}',
        "metadata": "{}",
        "prompt": "{}",
        "extra_pnginfo": "{}",
        "timestamp": "2026-01-02T03:04:05.678+02:00",
        "durable": True,
        "batch_digits": 4,
        "numbers": "first_gap",
        "sidecar": "always",
        "if_exists": "skip",
        "model_dirs": "/models",
    }
    given_submit = submit(**fields, want=[100], images=[{**IMAGE, "shape": [2, 10, 10, 4]}])
    assert given_submit.options.to_map() == {**SaveOptions("").to_map(), **fields}
    assert given_submit.batches[0].image_bytes == 400
    assert (given_submit.num_images, given_submit.want) == (2, (100,))


def test_what_is_left_out_comes_from_the_configuration() -> None:
    defaults = {"output_dir": "/images", "on_reject": "keep", "durable": True}
    options = submit(defaults, output_dir=None).options
    assert (options.output_dir, options.on_reject, options.durable) == ("/images", "keep", True)
    assert submit(defaults, output_dir="").options.output_dir == "/images"
    assert submit(defaults, output_dir="/x", on_reject="drop", durable=False).options.on_reject == "drop"


def test_no_workflow_embeds_nothing() -> None:
    assert submit(embed_workflow=False, embed="full").options.embed == "none"
    assert submit(embed_workflow=True, embed="parameters").options.embed == "parameters"


@pytest.mark.parametrize(
    ("field", "values", "allowed"),
    [
        ("request_id", [None, 5, "short", "a" * 65, "with space", "ünïcödé1"], "8 to 64 letters"),
        ("images", [None, [], {}, "x", 5], "at least one image"),
        ("output_dir", ["relative", "./x", "C:x", "\\x", 5, "/a\0b", "/" + "x" * 4096], ""),
        ("save_path", [5, "x" * 65_537, ["a"], b"x"], "at most 65536 characters"),
        ("batch_digits", [-1, 10, "4", True], "a whole number from 0 to 9"),
        ("numbers", ["last", 5], "after_last | first_gap"),
        ("if_exists", ["replace", True], "number | overwrite | skip | fail"),
        ("told", ["x", [5], ["x"] * 9], ""),
        ("sidecar", ["yes", True], "auto | always | never"),
        ("ingredient", ["/\ud800"], "without lone surrogates"),
        ("model_name", [{}], "a text"),
        ("quality_gate", ["off", 0, []], " | ".join(GATES)),
        ("min_quality_threshold", [-0.1, 1.1, "0.3", True, float("nan")], "a number from 0.0 to 1.0"),
        ("on_reject", ["delete", 1], " | ".join(ON_REJECT)),
        ("png_compression", [-1, 10, 4.0, "4", True], "a whole number from 0 to 9"),
        ("lossy_quality", [0, 101], "a whole number from 1 to 100"),
        ("lossless_webp", [1, "yes"], "true or false"),
        ("embed", ["all"], " | ".join(EMBED)),
        ("embed_workflow", [0, "false"], "true or false"),
        ("filename_index", [-1, 2**31], "a whole number"),
        ("custom_metadata", [{"a": 1}, 5], "a text"),
        ("metadata", [5], "a text"),
        ("prompt", [{"a": 1}], "a text"),
        ("extra_pnginfo", [1.5], "a text"),
        ("timestamp", ["", "yesterday", 5, "2026-13-01", "x" * 65], ""),
        ("durable", ["yes", 1], "true or false"),
        ("want", [5, [0], [-1], [1.5], [True], ["1"], [1] * 9], "a list of at most 8 sizes"),
    ],
)
def test_each_field_says_what_was_given_and_what_is_allowed(
    field: str, values: list[Any], allowed: str
) -> None:
    for value in values:
        with pytest.raises(InvalidRequest) as refused:
            submit(**{field: value})
        assert refused.value.field == field
        assert allowed in refused.value.allowed
        assert str(refused.value).startswith(f"{field}: ")
        assert len(refused.value.given) <= 120


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"affix": "x" * 65_537}, "affix"),
        ({"affix": 5}, "affix"),
        ({"format": "gif"}, "format"),
        ({"format": []}, "format"),
        ({"subdir": 1}, "subdir"),
        ({"dtype": "float64"}, "dtype"),
        ({"frames": 0}, "frames"),
        ({"frames": 2, "format": "jpeg"}, "animation"),
        ({"dtype": "O"}, "dtype"),
        ({"shape": None}, "shape"),
        ({"shape": [10, 10, 3]}, "shape"),
        ({"shape": [0, 10, 10, 3]}, "shape"),
        ({"shape": [1, -1, 10, 3]}, "shape"),
        ({"shape": [1, 1.0, 10, 3]}, "shape"),
        ({"shape": [True, 10, 10, 3]}, "shape"),
        ({"shape": "1x10x10x3"}, "shape"),
        ({"shape": [1, 10, 10, 2]}, "channels"),
        ({"shape": [1, 2**33, 2**33, 3]}, "shape"),
    ],
)
def test_each_image_too(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        image(**fields)
    assert refused.value.field == field


def test_an_image_must_be_a_map() -> None:
    with pytest.raises(InvalidRequest, match="a list of maps"):
        submit(images=["x"])


def test_bounds_with_a_name_in_the_configuration_are_named() -> None:
    with pytest.raises(TooLarge, match="setting max_images"):
        submit(images=[IMAGE] * 9)
    with pytest.raises(TooLarge, match="setting max_images"):
        image(shape=[9, 10, 10, 3])
    with pytest.raises(TooLarge, match="setting max_pixels"):
        image(shape=[1, 101, 100, 1])
    with pytest.raises(TooLarge, match="setting arena_bytes"):
        submit(want=[1 << 20, 1])


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_format_and_number_of_channels_is_allowed(format_name: str, channels: int) -> None:
    (batch,) = image(format=format_name, shape=[1, 2, 3, channels]).batches
    assert (batch.format, batch.image_bytes) == (format_name, 6 * channels)


def test_images_are_found_in_their_batches() -> None:
    given_submit = submit(images=[{**IMAGE, "shape": [n, 10, 10, 3]} for n in (1, 3, 2)])
    found = [given_submit.batch_of(index) for index in range(6)]
    assert [place for _, place in found] == [0, 0, 1, 2, 0, 1]
    assert [batch.batch for batch, _ in found] == [1, 3, 3, 3, 2, 2]


def test_the_parts_of_a_seal() -> None:
    assert schema.parts({"parts": [[3, 1], [9, 4]]}, 2) == (schema.Part(3, 1), schema.Part(9, 4))


@pytest.mark.parametrize(
    "parts",
    [
        None,
        [],
        {},
        [3],
        [[3]],
        [[3, 0]],
        [[0, 1]],
        [[1, True]],
        [[1, 2**62]],
        [[1, 1, 1]],
        [[1, 1, [1, 2]]],
        [[1, 1, [-1]]],
        [[1, 1]] * 3,
    ],
)
def test_parts_that_are_none(parts: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"\[lease, images, \[flaws of each\]\]"):
        schema.parts({"parts": parts}, 2)


def test_parts_with_flaws() -> None:
    assert schema.parts({"parts": [[3, 2, [0, 5]], [4, 1]]}, 2) == (
        schema.Part(3, 2, (0, 5)),
        schema.Part(4, 1),
    )


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("bit_depth", ["10", "32", 8]),
        ("background", ["white", "#fff", "#12345g", 3]),
        ("colorspace", ["aces", 1]),
        ("icc_profile", ["===", "a", 3, "A" * 2_000_000]),
        ("exr_compression", ["zips", 5]),
        ("exr_linear", [1, "yes"]),
        ("avif_speed", [-1, 11, True]),
        ("jxl_effort", [0, 10]),
        ("provenance", ["on", True]),
        ("source_type", ["photo"]),
        ("aigc", ["[]", '{"Colour": "1"}', "{"]),
        ("animation_fps", [-1, 241, float("nan"), "24"]),
        ("animation_loop", [-1, 65_536]),
        ("animation_ms", ["100 0", "1e3", "-5", [1.5], [True], "70000", 100, {"a": 1}, "1;2", [["1"]]]),
        ("animation_ms", ["100 100", [40, 40]]),  # for another number of frames
    ],
)
def test_settings_of_formats(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidRequest, match=field.partition("_")[0]):
            submit(**{field: value})


def test_pixels_of_other_depths_and_several_frames_take_more_room() -> None:
    given = submit(images=[{**IMAGE, "shape": [2, 10, 10, 4], "dtype": "float32", "frames": 3}])
    assert given.batches[0].image_bytes == 10 * 10 * 4 * 4 * 3


@pytest.mark.parametrize("path", ["/out", "C:\\out", "C:/out", "\\\\server\\share\\x"])
def test_absolute_paths_of_any_platform(path: str) -> None:
    assert submit(output_dir=path).options.output_dir == path


def test_texts_may_be_left_empty_and_a_time_may_end_in_z() -> None:
    options = submit(filename=None, custom_metadata="", timestamp="2026-01-02T03:04:05Z").options
    assert (options.filename, options.custom_metadata, options.timestamp) == ("", "", "2026-01-02T03:04:05Z")


def test_custom_metadata_may_be_any_json() -> None:
    assert submit(custom_metadata="[1, 2]").options.custom_metadata == "[1, 2]"


def test_a_text_of_a_map_must_be_one() -> None:
    assert JsonText(of_map=True).check("x", '{"a": 1}') == '{"a": 1}'
    with pytest.raises(InvalidRequest, match="JSON text of a map"):
        JsonText(of_map=True).check("x", "[1]")


def test_documents_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "DOCUMENTS_LIMIT", 10)
    assert submit(prompt="x" * 5, metadata="x" * 5)
    with pytest.raises(TooLarge, match="at most 10 characters"):
        submit(prompt="x" * 5, extra_pnginfo="x" * 6)
    with pytest.raises(InvalidRequest):
        submit(prompt="x" * 11)


@pytest.mark.parametrize(
    ("good", "odd"),
    [
        ({"png_compression": 1}, {"png_compression": True}),
        ({"png_compression": 4}, {"png_compression": 4.0}),
        ({"lossless_webp": True}, {"lossless_webp": 1}),
        ({"lossless_webp": False}, {"lossless_webp": 0.0}),
        ({"min_quality_threshold": 1}, {"min_quality_threshold": True}),
        ({"durable": False}, {"durable": 0}),
    ],
)
def test_what_only_equals_something_that_was_allowed_is_not(
    good: dict[str, Any], odd: dict[str, Any]
) -> None:
    for _ in range(2):
        submit(**good)
        with pytest.raises(InvalidRequest):
            submit(**odd)


def test_a_message_names_its_command() -> None:
    assert schema.command({"cmd": "ping"}) == "ping"
    for message in ({}, {"cmd": 5}, {"cmd": None}):
        with pytest.raises(ProtocolError, match="`cmd`"):
            schema.command(message)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
FIELDS = st.sampled_from([*SaveOptions.__slots__, "request_id", "images", "want", "embed_workflow"])
IMAGE_FIELDS = st.sampled_from([*IMAGE, "inline", "dtype"])


@given(st.dictionaries(FIELDS, ANYTHING, max_size=3), st.dictionaries(IMAGE_FIELDS, ANYTHING, max_size=2))
def test_whatever_is_sent_is_judged_and_what_passes_is_plain(
    fields: dict[str, Any], of_image: dict[str, Any]
) -> None:
    try:
        passed = schema.submit({**SUBMIT, "images": [{**IMAGE, **of_image}], **fields}, {}, LIMITS)
    except InvalidRequest:
        return
    assert SaveOptions.from_map(passed.options.to_map()) == passed.options
    assert 1 <= passed.num_images <= 8
    assert all(0 < batch.batch * batch.image_bytes <= 8 * 4 * 10_000 for batch in passed.batches)


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [("PNG", "png"), ("jpg", "jpeg"), ("JPG", "jpeg"), ("Jpeg", "jpeg"), ("tif", "tiff"), ("WebP", "webp")],
)
def test_formats_have_several_names_in_any_case(given_name: str, expected: str) -> None:
    assert submit(images=[{**IMAGE, "format": given_name}]).batches[0].format == expected


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_allows_its_own_default_and_says_what_else(name: str) -> None:
    option = OPTIONS[name]
    default = FARM_DEFAULTS[name] if option.of_farm else option.default
    assert option.kind.check(name, default) == default
    assert option.of_farm == (option.default is None)
    assert option.kind.allowed
    assert option.help
    assert getattr(submit().options, name) == default


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.is_document])
def test_an_option_that_is_null_was_left_out(name: str) -> None:
    assert submit(**{name: None}).options == submit().options


@pytest.mark.parametrize(("given_colour", "kept"), [("#FFAA00", "#ffaa00"), ("#000000", "#000000")])
def test_colours(given_colour: str, kept: str) -> None:
    assert submit(background=given_colour).options.background == kept
    for wrong in ("white", "#fff", 5):
        with pytest.raises(InvalidRequest, match="#rrggbb"):
            submit(background=wrong)


def test_fields_of_a_label_are_a_map() -> None:
    assert submit(aigc='{"Label": "1"}').options.aigc == '{"Label": "1"}'
    with pytest.raises(InvalidRequest, match="a map"):
        submit(aigc="[1]")
