"""`save`: files in, requests out; a bad file fails alone."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luna_farm.errors import FarmBusy, FarmUnavailable, InvalidRequest
from luna_farm.imaging import source

spec = importlib.util.spec_from_file_location("cli_conftest", Path(__file__).with_name("conftest.py"))
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)
image = fakes.image


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "a b.png"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("L", (2, 4)),
        ("RGB", (2, 4, 3)),
        ("RGBA", (2, 4, 4)),
        ("1", (2, 4)),
        ("P", (2, 4, 3)),
        ("LA", (2, 4, 4)),
        ("CMYK", (2, 4, 3)),
        ("I;16", (2, 4)),
    ],
)
def test_every_mode_becomes_pixels(mode, shape, tmp_path):
    path = tmp_path / "x.tif"
    image = (
        Image.new("RGB", (4, 2), (200, 10, 10)).convert(mode) if mode != "I;16" else Image.new(mode, (4, 2))
    )
    image.save(path)
    pixels = source.read(path).pages[0]
    assert (pixels.shape, pixels.dtype) == (shape, np.uint16 if mode == "I;16" else np.uint8)


def test_sixteen_bits_are_kept(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(path)
    assert source.read(path).pages[0].tolist() == [[0, 257, 32896, 65535]]


def test_transparency_of_a_palette_is_kept(tmp_path):
    path = tmp_path / "p.png"
    Image.new("P", (3, 2)).save(path, transparency=0)
    assert source.read(path).pages[0].shape == (2, 3, 4)


def test_a_image_is_read_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert source.read(path).pages[0].shape == (30, 20, 3)


def test_arrays_are_taken_as_they_are(tmp_path):
    array = np.linspace(0, 1, 2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    np.save(tmp_path / "f.npy", array)
    assert np.array_equal(source.read(tmp_path / "f.npy").pages[0], array)


@pytest.mark.parametrize("name", ["bad.png", "bad.npy", "cut.png", "gone.png", "folder"])
def test_what_is_no_image_is_named(name, tmp_path, sample):
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no sample")
    (tmp_path / "cut.png").write_bytes(sample.read_bytes()[:40])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "objects.npy").rename(tmp_path / "bad.npy")
    with pytest.raises(InvalidRequest, match=name):
        source.read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.png", None, "does not exist."),
        ("empty.png", b"", "is empty."),
        ("empty.npy", b"", "is empty."),
        ("text.npy", b"text", "is no .npy file, whatever its name says."),
        ("cut.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'f", "is cut short or damaged."),
        ("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is damaged or cut short: "),
        ("a/gone.png", None, "does not exist."),
        ("odd\n.png", None, "does not exist."),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_our_words(name, content, told, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest) as refused:
        source.read(path)
    shown = str(path) if str(path).isprintable() else repr(str(path))
    assert str(refused.value).startswith(f"{shown} {told}")
    assert "Errno" not in str(refused.value)
    assert refused.value.field == "FILE"


def test_a_file_of_objects_and_one_that_may_not_be_read(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidRequest, match="holds Python objects"):
        source.read(tmp_path / "a.npy")

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    (tmp_path / "a.png").touch()
    with pytest.raises(InvalidRequest, match=r"a\.png cannot be read: this user has no right to\.$"):
        source.read(tmp_path / "a.png")


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: there are no device files")
def test_a_device_has_no_end_and_is_refused():
    with pytest.raises(InvalidRequest, match=r"^/dev/null is no file; allowed: an image or \.npy file"):
        source.read(Path("/dev/null"))


def test_files_are_saved_and_named_after_themselves(farm, cli, sample):
    code, out, err = cli("save", sample)
    assert (code, err) == (0, "")
    assert out == "/out/a b.png  1.5 kB  4 ms\n"
    (request,) = farm.requests
    assert (request.filename, request.images[0].affix, request.images[0].format) == ("a b", "", "png")
    assert request.output_dir is None


def test_every_option_arrives(farm, cli, sample):
    where = ["--output-dir", "out", "--save-path", "p", "--filename", "%counter%", "--affix", "RAW"]
    how = ["--format", "webp", "--png-compression", "9", "--lossy-quality", "80", "--lossless-webp"]
    gate = ["--quality-gate", "both", "--min-quality-threshold", "0.5"]
    assert cli("save", sample, *where, *how, *gate)[0] == 0
    (request,) = farm.requests
    assert (request.output_dir, request.save_path, request.filename) == ("out", "p", "%counter%")
    assert (request.images[0].affix, request.images[0].format) == ("RAW", "webp")
    assert (request.png_compression, request.lossy_quality, request.lossless_webp) == (9, 80, True)
    assert (request.quality_gate, request.min_quality_threshold) == ("both", 0.5)


def test_percent_signs_of_a_file_name_are_no_template(farm, cli, sample):
    odd = sample.with_name("100%index%.png")
    odd.write_bytes(sample.read_bytes())
    cli("save", odd)
    assert farm.requests[0].filename == "100_index_"


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: file names here are always Unicode")
def test_a_file_whose_name_is_no_utf8_is_saved(farm, cli, sample):
    odd = os.path.join(os.fsencode(sample.parent), b"caf\xe9.png")
    Path(os.fsdecode(odd)).write_bytes(sample.read_bytes())
    assert cli("save", os.fsdecode(odd))[0] == 0
    assert farm.requests[0].filename == "caf\ufffd"


@pytest.mark.parametrize("given", ["JPG", "jpeg", "Jpeg"])
def test_formats_have_their_usual_names_in_any_case(given, farm, cli, sample):
    assert cli("save", "--format", given, sample)[0] == 0
    assert farm.requests[0].images[0].format == "jpeg"


@pytest.mark.parametrize("options", [("--format", "jxl"), ("--outputs", "png, jxl 800 web")])
def test_a_format_that_the_farm_cannot_write_is_refused_at_once_with_what_to_install(
    options, farm, cli, sample
):
    farm.statuses = [{"missing_formats": {"jxl": 'pip install "luna-farm[formats]"'}}]
    code, _, err = cli("save", sample, *options)
    assert (code, farm.requests) == (2, [])
    assert err.startswith(
        f"{options[0]}: 'jxl' is not allowed; allowed: a format that the farm can write; on its"
    )
    assert 'pip install "luna-farm[formats]"' in err


def test_a_bad_file_fails_alone(farm, cli, sample, tmp_path, monkeypatch):
    monkeypatch.setattr("luna_farm.cli.saving.BUSY_S", 0.1)
    (tmp_path / "bad.png").write_bytes(b"no sample")
    farm.refuse = {"full": FarmBusy("The farm is full.", 9, 1.0)}
    full = sample.with_name("full.png")
    full.write_bytes(sample.read_bytes())
    code, out, err = cli("save", tmp_path / "bad.png", full, sample)
    assert code == 1
    assert out.count("/out/") == 1
    bad = tmp_path / "bad.png"
    assert f"\n{bad} cannot be read: its content is of no kind that is known; allowed: an image" in f"\n{err}"
    assert "full.png: The farm is full." in err


def test_what_was_accepted_and_not_saved_is_code_1(farm, cli, sample):
    farm.after_wait = "failed"
    code, out, err = cli("save", sample)
    assert (code, out) == (1, "")
    assert err == "/out/a b.png: no space left\n"


def test_a_farm_that_goes_away_is_code_3(farm, cli, sample):
    farm.refuse = {"a b": FarmUnavailable("gone")}
    assert cli("save", sample)[0] == 3


def test_without_waiting_the_ids_are_printed(farm, cli, sample):
    code, out, _ = cli("save", sample, "--no-wait")
    assert (code, out) == (0, f"{sample}: job 00000001\n")
    assert farm.waited == []


def test_as_json(farm, cli, sample):
    (row,) = json.loads(cli("save", sample, "--json")[1])
    assert (row["file"], row["state"], row["images"][0]["path"]) == (str(sample), "done", "/out/a b.png")
    (row,) = json.loads(cli("save", sample, "--json", "--no-wait")[1])
    assert set(row) == {"file", "job_id"}


WHY = "Cannot write /out/a b.png: Permission denied (EACCES)."
FAILING = {"path": "/out", "state": "failing", "error": WHY}


def status(workers=({"state": "idle"},), folders=()):
    return {"workers": workers, "folders": folders}


def test_a_folder_that_cannot_be_written_is_named_once_while_it_is_waited_for(farm, cli, sample):
    farm.unfinished, farm.statuses = 3, [status(folders=[FAILING])] * 3
    code, out, err = cli("save", sample)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("Waiting for /out: Cannot write /out/a b.png: Permission denied")
    assert [timeout for _, timeout in farm.waited] == [1.0] * 4
    assert out.startswith("/out/a b.png")


def test_a_folder_that_fails_with_another_file_each_time_is_named_once(farm, cli, sample):
    farm.unfinished = 3
    farm.statuses = [
        status(folders=[{**FAILING, "error": f"Cannot write /out/{n}.png: No space left on device."}])
        for n in range(3)
    ]
    assert cli("save", sample)[2].count("\n") == 1


def test_a_destination_that_fails_is_named_while_it_is_waited_for(farm, cli, sample):
    error = "s3://b does not accept the credentials. Check user and keys."
    farm.unfinished, farm.unfinished_as = 2, "uploading"
    farm.outputs = ({"path": "s3://b/a.png", "state": "waiting", "bytes": 0, "error": error},)
    _, _, err = cli("save", sample)
    assert err == f"Waiting for s3://b/a.png: {error}\n"


def test_what_only_takes_its_time_is_no_line(farm, cli, sample):
    farm.unfinished, farm.unfinished_as = 2, "running"
    assert cli("save", sample)[2] == ""


def test_a_farm_without_workers_is_told(farm, cli, sample):
    farm.unfinished, farm.statuses = 1, [status(workers=[])]
    assert cli("save", sample)[2].startswith("No worker of the farm is ready")


def test_a_paused_farm_is_told(farm, cli, sample):
    paused = {**status(), "paused": True, "queue": {"images": 2}}
    farm.unfinished, farm.statuses = 3, [paused] * 3
    code, _, err = cli("save", sample)
    assert (code, err) == (0, "The farm is paused: 2 images in its queue until `luna-farm resume`.\n")


def test_the_timeout_says_why_and_which_job_goes_on(farm, cli, sample):
    farm.unfinished, farm.statuses = 99, [status(folders=[FAILING])] * 99
    code, out, err = cli("save", sample, sample, "--timeout", "0")
    assert (code, "00000002" in out) == (1, True)
    assert "Not finished after 0 s: Waiting for /out" in err
    assert "2 jobs go on in the farm" in err
    assert "luna-farm cancel 00000001 00000002" in err


@pytest.mark.parametrize(("typed", "cancelled"), [("y", ["00000001"]), ("", []), (None, [])])
def test_ctrl_c_says_what_goes_on_and_offers_to_cancel(typed, cancelled, farm, cli, sample, monkeypatch):
    def answer(question=""):
        if typed is None:
            raise EOFError
        return typed

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    farm.unfinished, farm.unfinished_as = 1, KeyboardInterrupt()
    code, _, err = cli("save", sample)
    assert code == 130
    assert "Job 00000001 goes on in the farm" in err
    assert "luna-farm cancel 00000001" in err
    assert farm.cancelled == cancelled


def test_ctrl_c_in_a_script_asks_nothing(farm, cli, sample, monkeypatch):
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(isatty=lambda: False))
    farm.unfinished, farm.unfinished_as = 1, KeyboardInterrupt()
    assert cli("save", sample)[0] == 130
    assert farm.cancelled == []


def test_ctrl_c_in_the_middle_of_a_file_says_what_of_it_is_saved_and_what_is_not(farm, cli, sample):
    images = [image("saved"), image("queued"), image("missing"), image("missing")]
    farm.broken_off = {"a b": ("running", images)}
    other = sample.with_name("c.png")
    other.write_bytes(sample.read_bytes())
    code, _, err = cli("save", sample, other)
    assert code == 130
    assert f"Of {sample} the farm has 2 of 4 images; the other 2 were not handed over, so they are not" in err
    assert f"Not handed over, so not saved: {other}." in err
    assert "Job 00000001 goes on in the farm" in err
    farm.broken_off = {"a b": ("failed", [image("saved"), image("missing")])}
    code, _, err = cli("save", sample)
    assert "1 of 2 images" in err
    assert "Nothing is left in the farm." in err


def test_ctrl_c_while_the_next_file_is_read(farm, cli, sample, monkeypatch):
    read = source.read

    def interrupted(path):
        if path.name == "c.png":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(source, "read", interrupted)
    farm.unfinished = 1
    (sample.parent / "bad.png").write_bytes(b"none")
    code, _, err = cli("save", sample.with_name("bad.png"), sample, sample.with_name("c.png"))
    assert code == 130
    assert "bad.png cannot be read" in err, "what failed before is said, too"
    assert f"Not handed over, so not saved: {sample.with_name('c.png')}." in err
    assert "Job 00000001 goes on" in err


def test_a_farm_that_goes_away_leaves_a_list_of_what_it_did_not_get(farm, cli, sample):
    farm.refuse = {"a b": FarmUnavailable("gone")}
    assert f"Not handed over, so not saved: {sample}, x.png." in cli("save", sample, "x.png")[2]


def test_a_busy_farm_is_waited_for_and_told_after_a_second(farm, cli, sample, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    farm.busy = [FarmBusy("The farm is busy: its arena is full.", 9, 0.6)] * 5
    code, out, err = cli("save", sample)
    assert (code, err) == (0, "The farm is busy: its arena is full.\n")
    farm.busy = [FarmBusy("The farm is busy.", 9, 0.6)] * 500
    code, out, err = cli("save", sample)
    assert (code, out) == (1, "")
    assert 30 <= clock[0] < 40


def test_warnings_are_printed(farm, cli, sample):
    farm.warnings = ("the metadata did not fit",)
    code, _, err = cli("save", sample)
    assert (code, err) == (0, "Warning: /out/a b.png: the metadata did not fit\n")


def test_warnings_of_the_receipt_are_printed_without_waiting_and_once(farm, cli, sample):
    farm.accepted_with = ("save_path: .. became _, because no name may leave the output folder.",)
    for words in (("--no-wait",), (), ("--json",)):
        code, _, err = cli("save", sample, sample, "--save-path", "../x", *words)
        assert (code, err) == (0, f"Warning: {farm.accepted_with[0]}\n")


def test_a_folder_is_told_what_to_type(farm, cli, tmp_path):
    code, _, err = cli("save", tmp_path)
    assert code == 1
    assert (
        f"{tmp_path} is a folder; allowed: an image or .npy file; for all of the folder {tmp_path}/*" in err
    )
    assert "Errno" not in err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--png-compression", "10"), ("--lossy-quality", "x"), ("--min-quality-threshold", "nan")],
)
def test_a_value_that_is_not_allowed_is_wrong_usage(option, value, farm, cli, sample):
    code, _, err = cli("save", sample, option, value)
    assert code == 2
    assert f"{value} is not allowed; allowed: " in err
    assert farm.requests == []


def test_what_the_farm_does_not_take_of_the_command_line_is_wrong_usage(farm, cli, sample):
    refused = InvalidRequest.of("output_dir", "ftp://x", "a URL without a user name or password")
    farm.refuse = {"a b": refused}
    code, out, err = cli("save", sample, "--output-dir", "ftp://x")
    assert (code, out) == (2, "")
    assert err.startswith("--output-dir: 'ftp://x' is not allowed")
    code, out, err = cli("save", sample)
    assert (code, out) == (1, "")
    assert err.startswith(f"{sample}: --output-dir: 'ftp://x'")
