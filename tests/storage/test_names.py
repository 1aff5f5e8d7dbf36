"""Free names: found in a few looks, never outside the folder, never one that another job has."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from luna_farm.core.filenames import collision_key, image_name
from luna_farm.core.messages import SaveOptions
from luna_farm.core.template import JobFacts
from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.storage import names, writer


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


class Looks:
    """Counts the looks at a disk that is only thought of: numbers up to `last` are taken, `gaps` are not."""

    def __init__(self, last: int, gaps: tuple[int, ...] = ()) -> None:
        self.last, self.gaps, self.count = last, gaps, 0

    def __call__(self, number: int) -> bool:
        self.count += 1
        return number <= self.last and number not in self.gaps


def test_a_free_name_is_taken_as_it_is(tmp_path: Path) -> None:
    assert names.reserve(str(tmp_path), "a/b/c.png", ()) == str(tmp_path / "a/b/c.png")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_exists_gets_a_number(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png")
    assert names.reserve(str(tmp_path), "a/x.png", ()) == str(tmp_path / "a/x_00001.png")
    touch(tmp_path, "a/x_00001.png", "a/x_00002.png")
    assert names.reserve(str(tmp_path), "a/x.png", ()) == str(tmp_path / "a/x_00003.png")


def test_a_name_that_another_job_has_gets_a_number_twins_too(tmp_path: Path) -> None:
    taken = {collision_key(str(tmp_path / "É.png"))}
    for name in ("É.png", "é.png", "e\u0301.png"):
        assert names.reserve(str(tmp_path), name, taken).endswith("_00001.png")


def test_a_link_that_leads_nowhere_is_a_taken_name(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "nowhere")
    assert names.reserve(str(tmp_path), "x.png", ()) == str(tmp_path / "x_00001.png")


def test_the_counter_is_the_first_free_number(tmp_path: Path) -> None:
    touch(tmp_path, "x_00001.png", "x_00002.png")
    assert names.reserve(str(tmp_path), "x_%counter%.png", ()) == str(tmp_path / "x_00003.png")
    touch(tmp_path, "take_00001/x.png")
    assert names.reserve(str(tmp_path), "take_%counter%/x.png", ()) == str(tmp_path / "take_00002/x.png")
    assert names.reserve(str(tmp_path), "take_%counter%/y.png", ()) == str(tmp_path / "take_00001/y.png")


def test_the_number_behind_the_last_comes_and_gaps_stay(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "x_00001.png", "x_00007.png", "x_00009.webp", "xx_00020.png", "x_00030_RAW.png")
    assert names.reserve(str(tmp_path), "x.png", ()) == str(tmp_path / "x_00008.png")
    (tmp_path / "x_00007.png").unlink()
    assert names.reserve(str(tmp_path), "x.png", ()) == str(tmp_path / "x_00002.png")
    touch(tmp_path, "y.png", "y_00001.png", "y_00003.png")
    assert names.reserve_all(str(tmp_path), ["y.png"], (), numbers="first_gap") == [
        str(tmp_path / "y_00002.png")
    ]


def test_another_program_that_counts_on_is_seen(tmp_path: Path) -> None:
    touch(tmp_path, "x.png")
    assert names.reserve(str(tmp_path), "x.png", ()).endswith("x_00001.png")
    touch(tmp_path, "x_00001.png", "x_00002.png", "x_00003.png")
    assert names.reserve(str(tmp_path), "x.png", ()).endswith("x_00004.png")


def test_the_files_of_a_request_share_a_number(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "UP/b_00004.webp")

    def reserve(*relatives: str) -> list[str]:
        found = names.reserve_all(str(tmp_path), relatives, ())
        return [Path(path).relative_to(tmp_path).as_posix() for path in found]

    assert reserve("a.png", "a.webp", "c.png") == ["a_00001.png", "a_00001.webp", "c.png"]
    assert reserve("RAW/b_%counter%.png", "UP/b_%counter%.webp") == ["RAW/b_00005.png", "UP/b_00005.webp"]
    assert reserve("d.png", "d.png", "d.webp", "d.png") == ["d.png", "d_00001.png", "d.webp", "d_00002.png"]


def test_a_name_whose_sidecar_exists_is_not_free(tmp_path: Path) -> None:
    touch(tmp_path, "x.json")
    assert names.reserve_all(str(tmp_path), ["x.jpg"], ()) == [str(tmp_path / "x_00001.jpg")]
    assert names.reserve_all(str(tmp_path), ["x.jpg"], (), sidecars=False) == [str(tmp_path / "x.jpg")]


def test_names_that_other_jobs_have_are_counted_on(tmp_path: Path) -> None:
    taken: set[str] = set()
    for expected in ("x.png", "x_00001.png", "x_00002.png"):
        path = names.reserve(str(tmp_path), "x.png", taken)
        assert path == str(tmp_path / expected)
        taken.add(collision_key(path))


@pytest.mark.parametrize("last", [0, 1, 2, 3, 100, 10_000, 99_999])
def test_however_many_are_taken_a_few_looks_do(last: int) -> None:
    cold = Looks(last)
    assert names.first_free("key", cold) == last + 1
    assert cold.count <= 2 * max(last, 1).bit_length() + 2
    warm = Looks(last + 1)
    assert names.first_free("key", warm) == last + 2
    assert warm.count == 2


@pytest.mark.parametrize(("last", "expected"), [(0, 1), (1, 2), (57, 58), (98, 99), (99, 100)])
def test_numbers_that_were_given_up_are_found_again(last: int, expected: int) -> None:
    names.first_free("key", Looks(99))
    again = Looks(last)
    assert names.first_free("key", again) == expected
    assert again.count <= 16


def test_whatever_gaps_there_are_the_number_is_free() -> None:
    chance = random.Random(7)
    for _ in range(200):
        gaps = tuple(chance.sample(range(1, 200), chance.randrange(100)))
        looks = Looks(chance.randrange(200), gaps)
        assert not looks(names.first_free("key", looks))


def test_what_is_remembered_is_bounded() -> None:
    for number in range(names.KEPT_NUMBERS + 10):
        names.first_free(str(number), Looks(0))
    assert len(names._numbers) <= names.KEPT_NUMBERS


@pytest.mark.parametrize(
    "relative", ["../x.png", "a/../x.png", "/x.png", "a//x.png", "./x.png", "x\0.png", "", "a/"]
)
def test_what_is_no_plain_name_is_refused(tmp_path: Path, relative: str) -> None:
    with pytest.raises(InvalidRequest, match=r"path: .* allowed: a path below"):
        names.reserve(str(tmp_path), relative, ())


def test_windows_has_more_separators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ODD_LETTERS", frozenset("/\\:\0"))
    for relative in ("C:x.png", "a\\b.png", "x.png:stream"):
        with pytest.raises(InvalidRequest):
            names.reserve(str(tmp_path), relative, ())


def test_a_neighbour_of_the_folder_is_not_below_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        names.parts_below(str(tmp_path) + "2/x.png", str(tmp_path))
    assert names.parts_below("/x.png", "/") == ["x.png"]
    assert names.parts_below("/a/x.png", "/a/") == ["x.png"]


def test_the_output_folder_must_be_absolute() -> None:
    with pytest.raises(InvalidRequest, match="output_dir: 'out'"):
        names.reserve("out", "x.png", ())


def test_a_link_or_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "out/sub/link").symlink_to(tmp_path / "outside")
    (tmp_path / "out/file").touch()
    with pytest.raises(InvalidRequest, match="sub/link is a symbolic link"):
        names.reserve(str(tmp_path / "out"), "sub/link/x.png", ())
    with pytest.raises(InvalidRequest, match="file is not a folder"):
        names.reserve(str(tmp_path / "out"), "file/x.png", ())


def test_the_output_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert names.reserve(str(tmp_path / "out"), "a/x.png", ()) == str(tmp_path / "out/a/x.png")


def test_a_disk_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: str) -> os.stat_result:
        raise OSError(errno.ESTALE, "Stale file handle", path)

    monkeypatch.setattr(os, "lstat", stale)
    with pytest.raises(DiskError, match=r"Cannot look at .*a/x.png: Stale file handle") as caught:
        names.reserve(str(tmp_path), "a/x.png", ())
    assert caught.value.errno == errno.ESTALE


def test_where_names_must_be_shorter_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, limit = os.lstat, 143

    def small(path: str) -> os.stat_result:
        if len(os.path.basename(path)) > limit:
            raise OSError(errno.ENAMETOOLONG, "File name too long", path)
        return real(path)

    monkeypatch.setattr(os, "lstat", small)
    path = names.reserve(str(tmp_path), "x" * 200 + "_RAW.png", ())
    assert len(os.path.basename(path)) == names.SHORT_PART_BYTES
    assert path.endswith("_RAW.png")
    limit = 20
    with pytest.raises(DiskError, match="File name too long"):
        names.reserve(str(tmp_path), "x" * 200 + "_RAW.png", ())


# fmt: off
HOSTILE = [
    "..", "/", "\\", "../", "..\\", "/etc/passwd", "C:", "C:\\", "\\\\host\\share", "~", "~root", ".", " ",
    "...", "\0", "\n", "\x1b", "\x7f", "\x9f", "\u202e", "\u2066", "\ufeff", "\ud800", "\udfff", "é",
    "e\u0301", "ß", "SS", "CON", "nul.txt", "COM¹", "aux ", "%model_path%", "%KSampler.text%", "%counter%",
    "%", "%%", "A" * 300, "🎨" * 80, "link", "file", "-rf", "$HOME", "`id`", "x", "Y", "_", "%time:YYYY/mm%",
    *'|*?<>":.',
]
# fmt: on
PROMPT = r'{"1": {"class_type": "KSampler", "inputs": {"text": "../../outside/\\..\\x\u0000\ud800"}}}'


def test_ten_thousand_hostile_names_stay_inside(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "link").symlink_to(outside)
    (out / "file").touch()
    chance = random.Random(20250304)

    def text() -> str:
        return "".join(chance.choices(HOSTILE, k=chance.randrange(7)))

    saved, refused = set(), 0
    for number in range(10_000):
        options = SaveOptions(
            str(out),
            save_path=text(),
            filename=text(),
            model_name=text(),
            prompt=PROMPT,
            timestamp="2025-03-04T15:06:09",
        )
        shape = {"batch_index": 0, "batch_size": 1, "width": 8, "height": 8}
        try:
            relative = image_name(
                JobFacts(options), affix=text(), format="png", subdir=bool(number % 2), **shape
            ).text
            path = names.reserve(str(out), relative, ())
            temp = writer.temp_name("hostile", number)
            published = writer.publish(path, [b"x"], output_dir=str(out), temp_name=temp, fsync=False)
        except InvalidRequest:
            refused += 1
            continue
        assert os.path.realpath(published.path).startswith(f"{out.resolve()}{os.sep}")
        saved.add(published.path)
    assert len(saved) + refused == 10_000
    assert refused < 1_000, "most hostile names become harmless ones, they are not refused"
    assert list(outside.iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "outside"]
    files = {str(path) for path in out.rglob("*") if path.is_file()}
    assert files == saved | {str(out / "file")}
