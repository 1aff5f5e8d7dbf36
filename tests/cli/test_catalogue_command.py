"""`find`, `export` and `catalogue rebuild`: what they print, what they write, how they end."""

from __future__ import annotations

import csv
import json
import sys
import time
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from luna_farm import system_desktop
from luna_farm.catalogue.rows import NAME, CatalogueRow
from luna_farm.catalogue.store import Store


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for number, prompt in enumerate(("a lighthouse", "a harbour, at night")):
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", f"{prompt}\nSteps: 5, Seed: {number}, Model: flux{number}")
        pixels = (
            np.full((8, 8, 3), 100, np.uint8) if number else np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        )
        Image.fromarray(pixels).save(folder / f"{number}.png", pnginfo=info)
    return folder


@pytest.fixture
def rebuilt(out, cli):
    code, told, _ = cli("catalogue", "rebuild", out, "--pixels")
    assert (code, told) == (0, "In the catalogue: 2 images.\n")
    return out


def paths(cli, *arguments):
    code, out, err = cli("find", "--json", *arguments)
    assert (code, err) == (0, "")
    return sorted(row["path"].rpartition("/")[2] for row in json.loads(out))


def test_images_are_found(rebuilt, cli):
    assert paths(cli) == ["0.png", "1.png"]
    assert paths(cli, "night", "harbour") == ["1.png"]
    assert paths(cli, '"at night"', "harb*") == ["1.png"]
    assert paths(cli, "--model", "FLUX0") == ["0.png"]
    assert paths(cli, "--seed", "0") == ["0.png"]
    assert paths(cli, "--score", "blank") == ["1.png"]
    assert paths(cli, "--since", "1h") == ["0.png", "1.png"]
    assert paths(cli, "--similar", str(rebuilt / "0.png")) == ["0.png"]
    assert len(paths(cli, "--limit", "1")) == 1


def test_images_of_a_job_and_those_that_failed(rebuilt, cli, tmp_path):
    store = Store(tmp_path / "state" / NAME)
    about = {"job_id": "1f3a92bc", "state": "failed", "error": "The disk is full."}
    store.put([CatalogueRow(path="/no/such/a.png", saved_at=time.time(), **about)])
    store.close()
    assert paths(cli, "--failed") == paths(cli, "--failed", "--job", "1f3a92bc") == ["a.png"]
    assert paths(cli, "--job", "1f3a92bc") == []
    _, told, _ = cli("find", "--failed")
    assert "The disk is full." in told
    assert "(gone)" not in told


def test_a_table_that_cannot_be_written_is_named_as_it_was_given(rebuilt, cli, tmp_path):
    path = str(tmp_path / "none" / "x.csv")
    code, _, err = cli("export", "--csv", path)
    assert code == 1
    assert err.startswith(f"Cannot write {path}: No such file or directory (ENOENT).")


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: /dev/full stands for a full disk")
def test_a_table_that_finds_no_room_is_named(rebuilt, cli, tmp_path):
    (tmp_path / "x.csv.new").symlink_to("/dev/full")
    code, _, err = cli("export", "--csv", "x.csv")
    assert (code, err.startswith("Cannot write x.csv: No space left on device (ENOSPC).")) == (1, True)


def test_a_rebuild_says_whose_scores_are_not_known(out, cli):
    _, told, _ = cli("catalogue", "rebuild", out)
    assert "Without scores, for --score and --similar: 2" in told
    assert "--pixels" in told
    cli("catalogue", "rebuild", out, "--pixels")
    _, told, _ = cli("catalogue", "rebuild", out)
    assert "scores" not in told, "rows that know them keep them"


def test_a_person_sees_facts_prompt_and_path(rebuilt, cli):
    code, told, _ = cli("find", "harbour")
    assert code == 0
    first, prompt, path = told.splitlines()
    assert all(part in first for part in ("8x8", "flux1", "seed 1", time.strftime("%Y-")))
    assert prompt.strip() == "a harbour, at night"
    assert path.strip() == str(rebuilt / "1.png")
    (rebuilt / "1.png").unlink()
    assert "1.png (gone)" in cli("find", "harbour")[1]
    assert cli("find", "boat") == (0, "Nothing found.\n", "")


def test_a_rebuild_drops_what_is_gone_and_says_what_is_no_image(rebuilt, cli):
    (rebuilt / "0.png").unlink()
    (rebuilt / "x.jpg").write_text("no image")
    told = cli("catalogue", "rebuild", rebuilt)[1]
    assert told == (
        "In the catalogue: 1 image. Removed 1 row of files that are gone."
        f" Left out 1 file that cannot be read as images: {rebuilt / 'x.jpg'}.\n"
    )
    assert paths(cli) == ["1.png"]


def test_an_array_is_no_image_to_look_for(rebuilt, cli, tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00")
    code, _, err = cli("find", "--similar", "a.npy")
    assert (code, err) == (
        1,
        "a.npy cannot be read: its content is of no kind that is known; allowed: an image.\n",
    )


def test_that_there_are_more_is_said(rebuilt, cli):
    code, told, err = cli("find", "--limit", "1")
    assert (code, "1.png" in told, "0.png" in told) == (0, True, False)
    assert err.startswith("There are more than 1 image; --limit")
    assert cli("find", "--limit", "2")[2] == ""


def test_a_table_on_standard_output_has_no_header_where_there_is_no_catalogue(cli):
    code, told, err = cli("export", "--csv")
    assert (code, told) == (1, "")
    assert "There is no catalogue" in err


def test_a_damaged_catalogue_is_set_aside(rebuilt, cli, tmp_path):
    path = tmp_path / "state" / NAME
    path.write_bytes(b"garbage" * 1000)
    code, _, err = cli("find", "x")
    assert code == 1
    assert "cannot be read" in err
    assert "catalogue rebuild" in err
    code, told, err = cli("catalogue", "rebuild", rebuilt)
    assert (code, told.splitlines()[0]) == (0, "In the catalogue: 2 images.")
    assert "was set aside" in err
    assert path.with_name(NAME + ".damaged").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("find", "x"), 1, "There is no catalogue in"),
        (("find", "--since", "yesteryear"), 2, "2026-05-04"),
        (("find", "--seed", "many"), 2, "many is not allowed"),
        (("find", "--similar", "none.png"), 1, "none.png does not exist"),
        (("export",), 2, "--csv"),
        (("catalogue", "rebuild", "not-there"), 1, "not-there"),
        (("catalogue", "vacuum", "x"), 2, "rebuild"),
        (("find", "--port", "1", "x"), 3, ""),
    ],
)
def test_what_goes_wrong_is_said(cli, arguments, code, part):
    ended, _, err = cli(*arguments)
    assert ended == code
    assert part in err


def test_a_condition_that_cannot_be_read_is_wrong_usage(rebuilt, cli):
    code, _, err = cli("find", "--score", "beauty>1")
    assert code == 2
    assert "beauty>1" in err


def test_the_first_one_is_opened(rebuilt, cli, monkeypatch):
    opened = []
    monkeypatch.setattr(system_desktop, "open_path", opened.append)
    assert cli("find", "--seed", "1", "--open")[:2] == (0, f"{rebuilt / '1.png'}\n")
    assert opened == [rebuilt / "1.png"]
    assert cli("find", "boat", "--open")[0] == 1


def test_a_url_is_opened_in_the_browser(cli, monkeypatch, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    store = Store(tmp_path / "state" / NAME)
    store.put([CatalogueRow(path="s3://bucket/a.png", saved_at=1e9)])
    store.close()
    monkeypatch.setattr(system_desktop, "open_address", lambda address: address == "s3://bucket/a.png")
    assert cli("find", "--open")[0] == 0
    monkeypatch.setattr(system_desktop, "open_address", lambda address: False)
    monkeypatch.setattr(system_desktop, "missing", lambda: "there is no desktop here")
    code, out, err = cli("find", "--open")
    assert (code, out, err) == (1, "s3://bucket/a.png\n", "It cannot be opened: there is no desktop here.\n")


def test_rows_are_exported(rebuilt, cli, tmp_path):
    assert cli("export", "--csv", tmp_path / "a.csv")[0] == 0
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["prompt"] for row in rows} == {"a lighthouse", "a harbour, at night"}
    assert {row["seed"] for row in rows} == {"0", "1"}
    lines = cli("export", "--jsonl", "--", "harbour")[1].splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["a harbour, at night"]
    assert cli("export", "--csv")[1].startswith("path,id,state,")
    code, _, err = cli("export", "--jsonl", tmp_path / "none" / "x.jsonl")
    assert code == 1
    assert "none" in err


def test_rows_are_exported_as_parquet(rebuilt, cli, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="NOT TESTED: Parquet needs pyarrow")
    store = Store(tmp_path / "state" / NAME)
    store.put([CatalogueRow(path="/x.png", saved_at=1e9, seed=2**64 - 1, loras=("ink:0.7",), blank=False)])
    store.close()
    assert cli("export", "--parquet", tmp_path / "a.parquet")[0] == 0
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == 3
    assert (rows[2]["seed"], rows[2]["loras"], rows[2]["blank"]) == (Decimal(2**64 - 1), ["ink:0.7"], False)


def test_without_pyarrow_the_way_to_it_is_named(rebuilt, cli, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    code, _, err = cli("export", "--parquet", tmp_path / "a.parquet")
    assert code == 1
    assert 'pip install "luna-farm[parquet]"' in err
    assert not list(tmp_path.glob("a.parquet*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (['"harbour', "night"], 'The quote in "harbour night is not closed'),
        (["!!!"], "!!! holds no letter"),
        (["--since", "2100-01-01"], "--since is a time in the future"),
    ],
)
def test_a_search_that_is_not_understood_says_so(rebuilt, cli, words, told):
    code, out, err = cli("find", *words)
    assert (code, out) == (0, "Nothing found.\n")
    assert told in err
    code, out, err = cli("export", "--jsonl", "-", *words)
    assert (code, out) == (0, "")
    assert told in err


def test_a_word_that_must_not_occur_is_no_option(rebuilt, cli):
    code, _, err = cli("find", "harbour", "-night")
    assert code == 2
    assert "there is no option -night (a word that must not occur goes into quotes" in err
    assert paths(cli, "harbour -night") == []
    assert paths(cli, "-night lighthouse") == ["0.png"]


@pytest.mark.parametrize("score", ["variance<0,1", "0,5", "clipped>0,2,blank", "7", "gate>=0.5,2"])
def test_numbers_with_a_comma_are_not_two_conditions(rebuilt, cli, score):
    code, _, err = cli("find", "--score", score)
    assert code == 2
    assert "--score" in err
