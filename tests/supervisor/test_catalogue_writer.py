"""What the supervisor does with rows: batches, what is sent again, and where it gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from luna_farm.core.instructions import Catalogue, CatalogueFailed, Uncatalogue
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.supervisor import catalogue_writer
from luna_farm.supervisor.catalogue_writer import BATCH, MOST_STARTS, MOST_UNCONFIRMED, CatalogueWriter


class Cataloguer:
    """In the place of the process: keeps what it is sent."""

    all: ClassVar[list[Cataloguer]] = []

    def __init__(
        self,
        name: str,
        target: object,
        args: tuple[Any, ...],
        received: Callable[[dict[str, Any]], None],
        ended: Callable[[str], None],
        *,
        start_at: float,
    ) -> None:
        self.args, self.receives, self.ended = args, received, ended
        self.sent: list[dict[str, Any]] = []
        self.killed = False
        self.all.append(self)

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        pass

    def retire(self, why: str) -> None:
        self.send({"t": "stop"})

    def kill(self, why: str) -> None:
        self.killed = True

    async def wait(self) -> None:
        self.ended("the farm stops")

    def confirm(self) -> None:
        """Confirm all that was sent."""
        for message in self.sent:
            self.receives({"t": "done", "id": message["id"]})


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, notes: list[str]) -> CatalogueWriter:
    monkeypatch.setattr(catalogue_writer, "Child", Cataloguer)
    monkeypatch.setattr(Cataloguer, "all", [])
    return CatalogueWriter("/state/catalogue.sqlite", ("seed",), 7, lambda: ["/out"], notes.append)


def rows(*names: str) -> list[Catalogue]:
    return [Catalogue(name.encode()) for name in names]


def test_nothing_is_started_for_nothing(writer: CatalogueWriter) -> None:
    writer.flush()
    assert Cataloguer.all == []


def test_what_comes_between_two_ticks_goes_in_one_message_and_in_order(writer: CatalogueWriter) -> None:
    task = ImageTask("a1b2c3d4", 0, "RAW", "png", 0, 1, "/out/x.png", "", 0, 8, 8, 3)
    failed = CatalogueFailed(task, SaveOptions(output_dir="/out"), "no memory")
    for change in (*rows("a", "b"), failed, Uncatalogue("a1b2c3d4", 0), Catalogue(b"c", "s3://x/c.png")):
        writer.add(change)
    writer.flush()
    (process,) = Cataloguer.all
    assert process.args == ("/state/catalogue.sqlite", ("seed",), 7, ("/out",))
    assert [message["t"] for message in process.sent] == ["rows", "failed", "remove", "rows"]
    assert process.sent[0]["rows"] == [(b"a", ""), (b"b", "")]
    assert (process.sent[1]["task"]["path"], process.sent[1]["error"]) == ("/out/x.png", "no memory")
    assert process.sent[3]["rows"] == [(b"c", "s3://x/c.png")]


def test_a_process_that_is_slow_gets_a_bounded_number_of_messages(writer: CatalogueWriter) -> None:
    for number in range(BATCH * (MOST_UNCONFIRMED + 2)):
        writer.add(Catalogue(b"%d" % number))
    writer.flush()
    (process,) = Cataloguer.all
    assert len(process.sent) == MOST_UNCONFIRMED
    process.confirm()
    writer.flush()
    assert sum(len(message["rows"]) for message in process.sent) == BATCH * (MOST_UNCONFIRMED + 2)


def test_what_was_not_confirmed_is_sent_again(writer: CatalogueWriter) -> None:
    writer.add(Catalogue(b"a"))
    writer.flush()
    writer.add(Catalogue(b"b"))
    Cataloguer.all[0].receives({"t": "done", "id": 1})
    writer.flush()
    Cataloguer.all[0].ended("ended by SIGKILL")
    writer.flush()
    assert [message["rows"] for message in Cataloguer.all[1].sent] == [[(b"b", "")]]


def test_a_process_that_had_nothing_to_do_is_started_when_there_is_something(writer: CatalogueWriter) -> None:
    writer.add(Catalogue(b"a"))
    writer.flush()
    Cataloguer.all[0].confirm()
    Cataloguer.all[0].ended("ended with exit code 0")
    writer.flush()
    assert len(Cataloguer.all) == 1
    writer.add(Catalogue(b"b"))
    writer.flush()
    assert len(Cataloguer.all) == 2


def test_one_that_always_ends_is_given_up(writer: CatalogueWriter) -> None:
    for _ in range(MOST_STARTS):
        writer.add(Catalogue(b"a"))
        writer.flush()
        Cataloguer.all[-1].ended("ended with exit code 1")
    writer.flush()
    writer.flush()
    assert len(Cataloguer.all) == MOST_STARTS
    assert f"ended {MOST_STARTS} times in a row" in writer.problem


def test_rows_beyond_the_bound_are_counted(writer: CatalogueWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_writer, "MOST_WAITING", 2)
    for change in rows("a", "b", "c"):
        writer.add(change)
    assert "Not in the catalogue: 1 image;" in writer.problem
    writer.flush()
    assert Cataloguer.all[0].sent[0]["rows"] == [(b"b", ""), (b"c", "")]


def test_large_rows_count_by_their_bytes(writer: CatalogueWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_writer, "MOST_WAITING_BYTES", 100)
    for change in (Catalogue(b"a" * 80), Catalogue(b"b" * 80), Uncatalogue("a1b2c3d4", 0), Catalogue(b"c")):
        writer.add(change)
    writer.flush()
    assert Cataloguer.all[0].sent[0]["rows"] == [(b"b" * 80, "")]
    writer.add(Catalogue(b"d" * 90))
    writer.flush()
    assert Cataloguer.all[0].sent[-1]["rows"] == [(b"d" * 90, "")]


def test_documents_that_fit_into_no_message_are_left_out(writer: CatalogueWriter) -> None:
    task = ImageTask("a1b2c3d4", 0, "RAW", "png", 0, 1, "/out/x.png", "", 0, 8, 8, 3)
    writer.add(CatalogueFailed(task, SaveOptions(output_dir="/out", prompt="é" * 9_000_000), "no"))
    writer.flush()
    assert Cataloguer.all[0].sent[0]["options"]["prompt"] == ""


def test_sentences_of_the_process_reach_people(writer: CatalogueWriter, notes: list[str]) -> None:
    writer.check(iter([{"path": "/x.png"}]))
    writer.flush()
    (process,) = Cataloguer.all
    assert process.sent[0] == {"t": "check", "rows": [{"path": "/x.png"}], "id": 1}
    process.receives({"t": "note", "text": "set aside"})
    process.receives({"t": "problem", "text": "the disk is full"})
    assert (notes, writer.problem) == (["set aside"], "the disk is full")
    process.receives({"t": "problem", "text": ""})
    assert writer.problem == ""


async def test_a_stop_waits_for_what_is_on_its_way(writer: CatalogueWriter) -> None:
    await writer.close()
    writer.add(Catalogue(b"a"))
    assert Cataloguer.all == []


async def test_a_stop_does_not_wait_for_ever(writer: CatalogueWriter) -> None:
    writer.add(Catalogue(b"a"))
    writer.flush()
    await writer.close(0.01)
    (process,) = Cataloguer.all
    assert process.sent[-1] == {"t": "stop"}
    assert process.killed
