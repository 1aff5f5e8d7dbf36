"""Where a real farm writes: below the output folder, whatever a name is made of and whatever is swapped.

Short form in every test run; LUNA_FARM_TEST_LONG=1 for 10,000 names and 1,000 swaps.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from real_farm import RealFarm

from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.testing import readers
from luna_farm_client import SaveImage, SaveRequest

Start = Callable[..., RealFarm]
LONG = os.environ.get("LUNA_FARM_TEST_LONG") == "1"
NAMES, SWAPS = (10_000, 1_000) if LONG else (1_000, 100)
PER_JOB = 25
PIXELS = np.zeros((4, 4, 3), np.uint8)
PIECES = [
    *(
        "..",
        "../..",
        "../../../../../../tmp",
        "/",
        "//",
        "\\",
        "..\\..\\up",
        "/etc/passwd",
        "C:\\Windows",
        "C:up",
    ),
    *(
        "\\\\server\\share\\x",
        "\\\\?\\C:\\x",
        "//server/share",
        "CON",
        "NUL.txt",
        "aux",
        "COM1.png",
        "LPT9",
        "CONIN$",
    ),
    *(
        "a.",
        "a ",
        " a",
        "...",
        ". .",
        "a\u202egnp.exe",
        "\u2066x\u2069",
        "\u200e",
        "\ufeff",
        "e\u0301",
        "\u00e9",
        "A",
        "a",
    ),
    *(
        "%model_name%",
        "%model_path%",
        "%3.text%",
        "%Loader.path%",
        "%time:../../YYYY%",
        "%date:/yyyy%",
        "%counter%",
    ),
    *(
        "%batch%",
        "%%",
        "%",
        "%seed%",
        "x" * 300,
        "\U0001f600" * 90,
        "~",
        "~root",
        "$HOME",
        "`id`",
        "$(id)",
        "; rm -rf",
    ),
    *(
        "-rf",
        "--",
        "*",
        "?",
        "a:b",
        'a"b',
        "a<b>c|d",
        "a\nb",
        "a\x7fb",
        "\x1b[2J",
        ".luna-x-0.tmp",
        ".",
        "",
        "_discarded",
    ),
]
PROMPT = {"3": {"class_type": "Loader", "inputs": {"text": "../../../evil", "path": "/etc/evil\\..\\evil"}}}


def hostile(seed: int) -> Iterator[str]:
    """Names made of what has hurt others."""
    pick = random.Random(seed)
    while True:
        yield pick.choice(("", "/", "\\")).join(pick.choice(PIECES) for _ in range(pick.randrange(1, 4)))


def tree(folder: Path, *without: Path) -> dict[str, int]:
    """Everything below a folder, links not followed, but what is below `without`."""
    found = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) not in without]
        found |= {os.path.join(parent, name): os.lstat(os.path.join(parent, name)).st_mode for name in files}
        found |= {os.path.join(parent, name): 0 for name in folders}
    return found


def test_no_name_leads_out_of_the_folder(start: Start, tmp_path: Path) -> None:
    farm = start(fsync="false", max_workers="2")
    out = tmp_path / "a" / "b" / "out"
    out.parent.mkdir(parents=True)
    (tmp_path / "a" / "b" / "out2").mkdir()
    before = tree(tmp_path, farm.state, out)
    names = hostile(7)
    saved: list[str] = []
    refused = 0
    with farm.client() as client:
        jobs = []
        for _ in range(NAMES // PER_JOB):
            affixes = [next(names)[:200].replace("\0", "") for _ in range(PER_JOB)]
            images = [SaveImage(PIXELS, affix, subdir=n % 2 == 0) for n, affix in enumerate(affixes)]
            sent = SaveRequest(
                images,
                output_dir=out,
                save_path=next(names),
                filename=next(names),
                model_name=next(names),
                prompt=PROMPT,
                quality_gate="variance",
                on_reject=("discard", "keep")[len(jobs) % 2],
            )
            try:
                jobs.append(client.submit(sent).job_id)
            except InvalidRequest:
                refused += PER_JOB
        for job_id in jobs:
            report = client.wait(job_id, 120)
            assert report.state == "done", report
            saved += report.paths
    print(f"{NAMES} hostile names: {len(saved)} saved below the folder, {refused} refused")
    assert len(set(saved)) == len(saved) >= NAMES // 2
    assert len(saved) + refused == NAMES
    assert tree(tmp_path, farm.state, out) == before
    for path in saved:
        assert os.path.commonpath([os.path.realpath(path), os.path.realpath(out)]) == os.path.realpath(out)
        assert not os.path.islink(path)
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_no_swapped_folder_leads_out(start: Start, tmp_path: Path) -> None:
    """A folder on the way is swapped for a link to elsewhere and back, again and again, while images are
    saved."""
    farm = start(fsync="false", LUNA_FARM_MAX_WORKERS="2")
    out, elsewhere, away = tmp_path / "out", tmp_path / "elsewhere", tmp_path / "away"
    for folder in (out / "a" / "b", elsewhere / "b"):
        folder.mkdir(parents=True)
    stop, came_by = threading.Event(), threading.Event()
    swaps = itertools.count()
    done = 0

    def swap() -> None:
        nonlocal done
        while not stop.is_set():
            os.rename(out / "a", away)
            os.symlink(elsewhere, out / "a")
            if done % 2:  # every other time the link stays until an image came by
                came_by.clear()
                came_by.wait(1.0)
            os.unlink(out / "a")
            with contextlib.suppress(OSError):  # the farm may have made the folder anew: then that one stays
                os.rename(away, out / "a")
            if away.exists():
                for path in sorted(away.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.rename(out / f"{next(swaps)}-{path.name}")
                away.rmdir()
            done += 1

    thread = threading.Thread(target=swap)
    jobs, refused = [], 0
    with farm.client() as client:
        thread.start()
        try:
            while done < SWAPS or len(jobs) < 20:
                sent = SaveRequest([SaveImage(PIXELS)], output_dir=out, save_path="a/b", filename="x")
                try:
                    jobs.append(client.submit(sent).job_id)
                except (InvalidRequest, DiskError):
                    refused += 1
                came_by.set()
                assert thread.is_alive()
        finally:
            stop.set()
            thread.join()
        states = [client.wait(job_id, 120).state for job_id in jobs]
    print(f"{done} swaps: {len(jobs)} accepted, {refused} refused")
    assert set(states) == {"done"}
    assert refused
    assert tree(elsewhere) == {str(elsewhere / "b"): 0}


SECRETS = ("sk-proj-0123456789abcdefghijABCDEFGHIJ", "hunter2-hunter2", "hf_abcdefghijklmnopqrstuvwxyz012345")
WORKFLOW = {
    "nodes": [
        {"type": "Ask", "inputs": [{"widget": {"name": "api_key"}}], "widgets_values": [SECRETS[1]]},
        {"type": "Text", "widgets_values": [f"use {SECRETS[0]} and {SECRETS[2]}", "a blue house"]},
    ]
}
GRAPH = {
    "1": {"class_type": "Ask", "inputs": {"api_key": SECRETS[1], "text": "a blue house", "max_tokens": 12}},
    "2": {"class_type": "Text", "inputs": {"password": SECRETS[1], "header": f"Bearer {SECRETS[0]}"}},
}
KNOWN = {"steps": 20, "positive_prompt": "a blue house", "access_token": SECRETS[1]}


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg", "avif", "jxl", "tiff"])
@pytest.mark.parametrize("embed", ["full", "parameters", "none"])
def test_a_file_says_what_was_asked_for_and_no_secret(
    farm: RealFarm, tmp_path: Path, kind: str, embed: str
) -> None:
    with farm.client() as client:
        sent = SaveRequest(
            [SaveImage(PIXELS, format=kind)],
            output_dir=tmp_path,
            filename="a",
            embed=embed,
            prompt=GRAPH,
            metadata=KNOWN,
            custom_metadata='{"note": "a note"}',
            extra_pnginfo={"workflow": WORKFLOW, "tool": {"hf_token": SECRETS[2]}},
        )
        report = client.wait(client.submit(sent).job_id, 60)
    assert report.state == "done", report
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith("."))
    plain = written + written.replace(b"\0", b"")  # the EXIF comment is UTF-16
    for secret in SECRETS:
        assert secret.encode() not in plain
    assert (b"a blue house" in plain) == (embed != "none")
    assert (b"widgets_values" in plain) == (embed == "full")
    assert (b"a note" in plain) == (embed != "none")
    assert (b"max_tokens" in plain) == (embed == "full")
    if embed == "none":
        assert b"save_timestamp" not in plain
        assert b"parameters" not in plain
    if kind == "png" and embed == "full":
        texts = readers.png_texts(written)
        assert json.loads(texts["prompt"])["1"]["inputs"]["api_key"] == "***"
        assert json.loads(texts["workflow"])["nodes"][0]["widgets_values"] == ["***"]


def test_files_and_folders_have_the_modes_that_the_user_wants(start: Start, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        farm = start()
    finally:
        os.umask(old)
    with farm.client() as client:
        sent = SaveRequest([SaveImage(PIXELS)], output_dir=tmp_path / "out", save_path="deep", filename="a")
        (path,) = client.wait(client.submit(sent).job_id, 60).paths
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o750
