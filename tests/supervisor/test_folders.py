"""Names in folders: whatever a path does while it is looked at, the place is given back."""

from __future__ import annotations

import asyncio
import errno
import sys
import threading
from pathlib import Path

import pytest

from luna_farm.core import events
from luna_farm.core.instructions import ReserveNames
from luna_farm.errors import DiskError, FarmBusy, InvalidRequest
from luna_farm.storage import mounts
from luna_farm.storage.allowed import Allowed
from luna_farm.supervisor import disks
from luna_farm.supervisor import folders as module
from luna_farm.supervisor.folders import MAX_ASKING, Folders


class Asker:
    """Folders whose answers are kept."""

    def __init__(self, allowed: Allowed | None = None) -> None:
        self.taken: set[str] = set()
        self.answers: list[events.Event] = []
        self.folders = Folders(self.taken, self.answers.append, allowed)
        self.asked = 0

    async def ask(self, folder: Path, times: int = 1) -> list[events.Event]:
        """Ask for one name each time, and return the answers once all of them are there."""
        before = len(self.answers)
        for _ in range(times):
            self.asked += 1
            relatives = (f"{self.asked}.png",)
            self.folders.reserve(ReserveNames(str(self.asked), str(folder), relatives, ()))
        while len(self.answers) < before + times:
            await asyncio.sleep(0)
        return self.answers[before:]


def swapped(*_: object, **__: object) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


def exploding(*_: object, **__: object) -> None:
    raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")


@pytest.mark.parametrize(
    ("broken", "does"),
    [
        ("os.path.realpath", swapped),
        ("os.lstat", swapped),
        ("os.lstat", exploding),
        ("luna_farm.system.on_local_disk", swapped),
        ("psutil.disk_partitions", swapped),
    ],
)
def test_a_path_that_changes_under_the_check_costs_no_place(
    broken: str, does: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        asker = Asker(Allowed([tmp_path]))
        with monkeypatch.context() as patched:
            patched.setattr(broken, does)
            for _ in range(3):
                for event in await asker.ask(tmp_path, MAX_ASKING):
                    assert event.error is None or isinstance(event.error, DiskError)
        (event,) = await asker.ask(tmp_path)
        assert isinstance(event, events.NamesReserved)
        refused = {e.job_id for e in asker.answers if e.error is not None}
        assert len(asker.taken) == asker.asked - len(refused), "no name stays reserved for a refused job"

    asyncio.run(scenario())


def test_the_places_run_out_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def hanging(path: str) -> bool:
        go_on.wait()
        return True

    async def scenario() -> None:
        monkeypatch.setattr(module.system, "on_local_disk", hanging)
        asker = Asker()
        asked = asyncio.ensure_future(asker.ask(tmp_path, MAX_ASKING + 5))
        while len(asker.answers) < 5:
            await asyncio.sleep(0)
        assert all(e.error is not None for e in asker.answers)
        assert all(isinstance(e.error, FarmBusy) for e in asker.answers)  # type: ignore[union-attr]
        go_on.set()
        await asked
        (event,) = await asker.ask(tmp_path)
        assert isinstance(event, events.NamesReserved)

    asyncio.run(scenario())


def test_no_thread_to_be_had_is_an_answer_and_no_lost_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        asker = Asker()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            for event in await asker.ask(tmp_path, 2 * MAX_ASKING):
                assert event.error is not None
            assert asker.folders.space(str(tmp_path), 0.0) == (0, 0)
            await asyncio.sleep(0)
        (event,) = await asker.ask(tmp_path)
        assert isinstance(event, events.NamesReserved)

    asyncio.run(scenario())


@pytest.mark.parametrize("relatives", [("a_%counter%.tar",), ()])
@pytest.mark.parametrize("absent", ["", "needs an extra"])
async def test_mirrors_are_checked_for_archives_as_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, relatives: tuple[str, ...]
) -> None:
    """With and without names to look for: an archive whose last number is known asks for none."""
    monkeypatch.setattr(module, "missing_extra", lambda _: absent)
    asker = Asker(Allowed((tmp_path / "out",)))
    (tmp_path / "out").mkdir()
    for number, mirror in enumerate((str(tmp_path / "elsewhere"), "s3://bucket/" + "p" * 1020)):
        asker.folders.reserve(ReserveNames(str(number), str(tmp_path / "out"), relatives, mirrors=(mirror,)))
        while len(asker.answers) <= number:
            await asyncio.sleep(0)
        (answer,) = asker.answers[number:]
        assert isinstance(answer, events.NamesReserved)
        assert isinstance(answer.error, InvalidRequest)
        assert answer.error.field == "mirrors"
    assert asker.taken == set()


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has drives instead")
async def test_every_file_and_copy_belongs_on_a_disk_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs in other folders, archives and mirrors, with and without a known number."""
    places = ("out", "out/thumbs", "mirror", "mirror/thumbs")
    out, thumbs, mirror, copies = (str(tmp_path / name) for name in places)
    points = {out, thumbs, mirror, copies}

    def device(path: str) -> int:
        return max((n for n, point in enumerate(sorted(points)) if mounts.below(path, point)), default=-1)

    monkeypatch.setattr(mounts, "_device", device)
    asker = Asker()

    async def ask(output_dir: str, *relatives: str, archive: str = "") -> events.NamesReserved:
        before = len(asker.answers)
        wanted = ReserveNames(str(before), output_dir, relatives, mirrors=(mirror, "s3://b"), archive=archive)
        asker.folders.reserve(wanted)
        while len(asker.answers) == before:
            await asyncio.sleep(0)
        answer = asker.answers[before]
        assert isinstance(answer, events.NamesReserved)
        assert answer.error is None
        return answer

    monkeypatch.setattr(module, "missing_extra", lambda _: "")
    both = {mirror: mirror, copies: copies}
    for gone in (set[str](), {thumbs, mirror, copies}):
        points -= gone
        monkeypatch.setattr(disks, "STILL_THERE_S", 0.0)
        answer = await ask(out, "a.png", "thumbs/a.jpg")
        assert answer.mounts == (out, thumbs)
        assert answer.mirror_mounts == both
        assert [any(at in text for text in answer.warnings) for at in (thumbs, *both)] == [bool(gone)] * 3
        for relatives in ((), ("thumbs/a_%counter%.tar",)):
            answer = await ask(out, *relatives, archive="thumbs/a")
            assert (answer.mounts, answer.mirror_mounts) == ((thumbs,), both)
        answer = await ask("s3://bucket/x", "a.png")
        assert (answer.mounts, answer.mirror_mounts) == ((), {mirror: mirror})
        assert len(answer.warnings) == bool(gone)


async def test_a_mirror_that_hangs_is_named_where_links_have_to_be_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With allowed_dirs. The event loop goes on meanwhile."""
    go_on, mirror = threading.Event(), str(tmp_path / "mirror")
    resolve = Allowed.place

    def place(self: Allowed, folder: str, field: str = "output_dir") -> tuple[str, str]:
        if folder == mirror:
            go_on.wait()
        return resolve(self, folder, field)

    monkeypatch.setattr(Allowed, "place", place)
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    asker = Asker(Allowed((tmp_path,)))
    await asker.ask(tmp_path)
    asker.folders.reserve(ReserveNames("9", str(tmp_path), ("a.png",), mirrors=(mirror,)))
    while len(asker.answers) < 2:
        await asyncio.sleep(0)
    answer = asker.answers[1]
    go_on.set()
    assert isinstance(answer, events.NamesReserved)
    assert isinstance(answer.error, DiskError)
    assert f"One of {tmp_path}, {mirror} does not answer" in str(answer.error)
