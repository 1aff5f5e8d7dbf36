"""The bridge against a cluster that is not there: every failure is reported once, as what it is."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from free_ports import free_port

from luna_farm import __version__
from luna_farm.config_provenance import UNSIGNED
from luna_farm.config_ray import RayCluster
from luna_farm.core import frames
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.storage.allowed import ANYWHERE
from luna_farm.storage.sinks.refusals import refusal
from luna_farm.storage.sinks.sink import Stored, Upload
from luna_farm.storage.upload_spool import UploadSpool
from luna_farm.worker import bridge, remote, sending, writing
from luna_farm.worker.actor import Encoder
from luna_farm.worker.bridge import Bridge
from luna_farm.worker.budget import Budget
from luna_farm.worker.cluster import Cluster, ClusterError, Node, NotYet, WorkerLost, reason, split, why_not
from luna_farm.worker.remote import Desk
from luna_farm.worker.sending import Offers

WAIT_S = 60.0


class FakeActor:
    """An encoder in a thread of this process."""

    def __init__(self) -> None:
        self.encoder = Encoder(UNSIGNED)
        self.killed = threading.Event()


class FakeCluster:
    """A cluster of one node; what it is to fail of is set by a test."""

    address = "127.0.0.1:1"

    def __init__(self) -> None:
        self.store_bytes = 10**9
        self.away: list[str] = []
        self.refusal = ""
        self.version = __version__
        self.place = threading.Event()
        self.place.set()
        self.small = ""
        self.call_error: Exception | None = None
        self.die_at: set[int] = set()
        self.hang_at: set[int] = set()
        self.nodes_live = True
        self.calls = 0
        self.actors: list[FakeActor] = []
        self.servers: list[socket.socket] = []

    def absent(self) -> str:
        return self.away.pop(0) if self.away else ""

    def connect(self) -> None:
        if self.refusal:
            raise ClusterError(self.refusal)

    def look(self) -> None:
        time.sleep(0.01)

    def node(self, node_id: str) -> Node:
        return Node("127.0.0.1", self.port())

    def port(self) -> int:
        port = free_port()
        if self.nodes_live:
            self.servers.append(socket.create_server(("127.0.0.1", port)))
        return port

    def too_small(self) -> str:
        return self.small

    def full(self) -> str:
        return "The cluster is full."

    def start(self, worker: int, signing: Any) -> FakeActor:
        self.actors.append(FakeActor())
        return self.actors[-1]

    def hello(self, actor: FakeActor) -> Any:
        return ("hello", actor)

    def encode(self, actor: FakeActor, node: Node | None, pixels: Any, *args: Any) -> Any:
        self.calls += 1
        if self.call_error:
            raise self.call_error
        return ("encode", actor, np.array(pixels), *args)

    def wait(self, reference: Any, timeout_s: float) -> None:
        _, actor, _, task, *_ = reference
        if task.index in self.hang_at and not actor.killed.wait(0.02):
            raise NotYet

    def fetch(self, reference: Any, timeout_s: float | None = None) -> Any:
        kind, actor, *args = reference
        if kind == "hello":
            if not self.place.wait(0.02):
                raise NotYet
            return {**actor.encoder.hello(), "version": self.version, "node": "a"}
        if args[1].index in self.die_at or actor.killed.is_set():
            raise WorkerLost("The actor is dead because its worker process has died.")
        return actor.encoder.encode(*args)

    def kill(self, actor: FakeActor) -> None:
        actor.killed.set()


class Conversation:
    """The supervisor's end of a bridge that runs in a thread."""

    def __init__(self, tmp_path: Path, cluster: FakeCluster, ended: list[int]) -> None:
        self.cluster = cluster
        self.out = tmp_path / "out"
        self.out.mkdir()
        (tmp_path / "notes").mkdir()
        self.pipe, self.theirs = socket.socketpair()
        self._frames = frames.FrameBuffer()
        self.heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ended = ended
        self.bridge = Bridge(self.theirs, cluster, str(tmp_path / "notes"))  # type: ignore[arg-type]
        self.bridge.desk = Desk(
            cluster,  # type: ignore[arg-type]
            self.bridge.say,
            Budget(10**8),
            True,
            UNSIGNED,
            UploadSpool(tmp_path / "uploads"),
            ANYWHERE,
            (),
            None,
            Offers(RayCluster()),
            {"pid": 1, "created": 2.0},
        )
        works = {"bridge": self._run, "hear": self._hear}
        self._threads = [threading.Thread(target=works[name], name=name, daemon=True) for name in works]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with contextlib.suppress(SystemExit):
            self.bridge.run()
        with contextlib.suppress(OSError):
            self.pipe.shutdown(socket.SHUT_RDWR)

    def _hear(self) -> None:
        while data := self.pipe.recv(65536):
            self._frames.feed(data)
            while message := self._frames.next():
                self.heard.put(message)

    def say(self, kind: str, worker: int = 0, **fields: Any) -> None:
        self.pipe.sendall(frames.encode({"t": kind, "worker": worker, **fields}))

    def hears(self, kind: str) -> dict[str, Any]:
        """The next message, which has to be of that kind."""
        message = self.heard.get(timeout=WAIT_S)
        assert message["t"] == kind, message
        return message

    def result(self) -> dict[str, Any]:
        """The result of an image, which has to be the next message."""
        return ImageResult.from_values(self.hears("result")["result"]).to_map()

    def image(self, index: int, worker: int = 1, side: int = 16, root: str = "") -> None:
        pixels = self.out.parent / f"{index}.npy"
        np.save(pixels, np.full((side, side, 3), index, np.uint8))
        task = ImageTask(
            *("job", index, "RAW", "png", 0, 1, f"{root or self.out}/{index}.png", f"npy:{pixels}"),
            *(0, side, side, 3),
            root=root or str(self.out),
        )
        options = SaveOptions(output_dir=root or str(self.out))
        self.say("image", worker, task=task.values(), options=options.values(), last=False)

    def ready(self, worker: int = 1) -> None:
        self.say("spawn", worker)
        assert self.hears("ready")["worker"] == worker


Start = Callable[..., Conversation]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """`start(small="...")`: a bridge to a fake cluster with these properties."""
    made: list[Conversation] = []
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        if threading.current_thread().name == "bridge":
            raise SystemExit

    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr(bridge, "AGAIN_S", 0.02)
    monkeypatch.setattr(bridge, "answers", lambda *at: True)
    monkeypatch.setattr(remote, "NODE_S", 0.5)

    def begin(**properties: Any) -> Conversation:
        cluster = FakeCluster()
        for name, value in properties.items():
            setattr(cluster, name, value)
        made.append(Conversation(tmp_path, cluster, ended))
        return made[-1]

    yield begin
    for one in made:
        if not one.ended:
            one.say("stop")
        for thread in one._threads:
            thread.join(WAIT_S)
        one.pipe.close()
        one.theirs.close()
        for server in one.cluster.servers:
            server.close()


def test_an_image_is_encoded_there_and_written_here(start: Start) -> None:
    one = start()
    one.ready()
    one.image(0)
    result = one.result()
    assert (result["state"], (one.out / "0.png").stat().st_size) == ("saved", result["bytes"])
    assert {"put", "call", "result", "encode", "write"} <= set(result["ms"])
    one.say("retire", 1, why="idle")
    assert one.hears("gone")["why"] == "idle"
    assert one.bridge.desk.budget.used == 0


def test_an_image_for_an_object_store_is_sent_there_or_spooled_here(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that cannot send is told about once."""
    refused: list[Exception] = []

    class Bucket:
        def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
            if refused:
                raise refused[0]
            return Stored(key, upload.bytes)

    monkeypatch.setattr(sending, "open_sink", lambda location, options: Bucket())
    one = start()
    one.ready()
    one.image(0, root="s3://bucket/x")
    result = one.result()
    (target,) = result["uploads"]
    assert (result["state"], target["name"], target["bytes"]) == ("saved", "0.png", result["bytes"])
    assert msgpack.unpackb(result["row"])["crc32"] == target["crc32"]
    refused.append(refusal("s3://bucket", "no_credentials"))
    one.image(1, root="s3://bucket/x")
    assert "cannot send to s3://bucket" in one.hears("news")["text"]
    result = one.result()
    assert ("bytes" in result["uploads"][0], result["spool_bytes"]) == (False, result["bytes"])
    one.image(2, root="s3://bucket/x")
    assert one.result()["uploads"][0]["spool"]


def test_until_there_is_a_cluster_workers_wait_and_may_end(start: Start) -> None:
    place = "No Ray cluster answers."
    one = start(away=[place] * 1_000_000)
    assert one.hears("failed")["why"] == place
    one.say("spawn", 1)
    one.say("spawn", 2)
    one.say("kill", 2, why="not needed")
    while (message := one.heard.get(timeout=WAIT_S))["t"] == "failed":
        pass
    assert (message["t"], message["worker"], message["why"]) == ("gone", 2, "not needed")
    one.cluster.away.clear()
    while (message := one.heard.get(timeout=WAIT_S))["t"] == "failed":
        pass
    assert (message["t"], message["worker"]) == ("ready", 1)


def test_a_supervisor_that_leaves_meanwhile_ends_it(start: Start) -> None:
    one = start(away=["No Ray cluster answers."] * 10_000)
    one.hears("failed")
    one.say("stop")
    one._threads[0].join(WAIT_S)
    assert not one._threads[0].is_alive()
    one.ended.append(0)


def test_a_cluster_that_refuses_is_a_sentence_and_the_end(start: Start) -> None:
    one = start(refusal="The versions differ.")
    assert one.hears("lost")["why"] == "The versions differ."
    one._threads[0].join(WAIT_S)
    assert one.ended == [0]


def test_a_worker_that_dies_is_gone_and_so_is_what_it_held(start: Start) -> None:
    one = start(die_at={1})
    one.ready()
    for index in range(3):
        one.image(index)
    assert one.hears("result")["index"] == 0
    gone = one.hears("gone")
    assert (gone["blameless"], gone["unfit"]) == (False, False)
    assert "worker process has died" in gone["why"]
    one.ready(2)
    one.image(4, worker=2)
    assert one.hears("result")["index"] == 4
    assert one.bridge.desk.budget.used == 0


def test_a_node_that_dies_is_not_the_fault_of_an_image(start: Start) -> None:
    one = start(die_at={0}, nodes_live=False)
    one.ready()
    one.image(0)
    gone = one.hears("gone")
    assert gone["blameless"]
    assert gone["why"] == "Its node 127.0.0.1 does not answer any more."


def test_a_node_that_cannot_be_reached_is_given_up_before_ray_says_so(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images go to others, and that is not their fault."""
    monkeypatch.setattr(bridge, "LOOK_S", 0.01)
    monkeypatch.setattr(bridge, "NODE_S", 0.05)
    one = start(hang_at={0})
    monkeypatch.setattr(
        bridge, "answers", lambda host, port, timeout_s: f"{host}:{port}" == one.cluster.address
    )
    one.say("spawn", 1)
    one.image(0)
    messages = [one.heard.get(timeout=WAIT_S) for _ in range(2)]
    assert [message["t"] for message in messages] == ["ready", "gone"]
    assert messages[1]["blameless"]
    assert messages[1]["why"] == "Its node 127.0.0.1 does not answer any more."
    assert one.cluster.actors[0].killed.wait(WAIT_S)


def test_one_that_hangs_is_given_up_at_once(start: Start) -> None:
    one = start(hang_at={0})
    one.ready()
    one.image(0)
    one.say("kill", 1, why="no progress for 120 s")
    assert one.hears("gone")["why"] == "no progress for 120 s"
    assert one.cluster.actors[0].killed.wait(WAIT_S)
    assert not (one.out / "0.png").exists()


def test_a_file_that_is_being_written_is_finished_before_its_worker_is_gone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its image could be written twice."""
    begun, go_on = threading.Event(), threading.Event()
    written = writing.written

    def slowly(*args: Any, **given: Any) -> Any:
        begun.set()
        go_on.wait(WAIT_S)
        return written(*args, **given)

    monkeypatch.setattr(writing, "written", slowly)
    one = start()
    one.ready()
    one.image(0)
    one.image(1)
    assert begun.wait(WAIT_S)
    one.say("kill", 1, why="no progress for 120 s")
    assert one.cluster.actors[0].killed.wait(WAIT_S)
    assert one.heard.empty()
    go_on.set()
    assert one.hears("result")["index"] == 0
    assert one.hears("gone")["why"] == "no progress for 120 s"
    assert one.bridge._workers[1].killed_at == 0.0
    assert [path.name for path in one.out.iterdir()] == ["0.png"]
    one.image(2)
    one.ready(2)


def test_a_file_that_hangs_ends_the_bridge(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead network folder: the supervisor starts another bridge."""
    monkeypatch.setattr(bridge, "LOOK_S", 0.02)
    monkeypatch.setattr(bridge, "WRITE_S", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def hang(*args: Any, **given: Any) -> Any:
        begun.set()
        go_on.wait(WAIT_S)
        raise AssertionError("the process has ended by then")

    monkeypatch.setattr(writing, "written", hang)
    one = start()
    one.ready()
    one.image(0)
    assert begun.wait(WAIT_S)
    one.say("kill", 1, why="no progress for 120 s")
    end = time.monotonic() + WAIT_S
    while not one.ended and time.monotonic() < end:
        time.sleep(0.01)
    assert one.ended[0] == 1
    go_on.set()
    one.say("stop")


def test_another_version_on_a_node_is_refused(start: Start) -> None:
    one = start(version="0.0.9")
    one.say("spawn", 1)
    gone = one.hears("gone")
    assert gone["unfit"]
    assert f"has luna-farm 0.0.9, and this farm is {__version__}" in gone["why"]


def test_one_without_a_place_says_so_and_goes_on_waiting(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "NO_PLACE_S", 0.1)
    one = start(place=threading.Event(), small="No node is large enough.")
    one.say("spawn", 1)
    assert one.hears("waits")["why"] == "No node is large enough."
    one.cluster.small = ""
    while (message := one.hears("waits"))["why"] != "The cluster is full.":
        pass
    one.cluster.place.set()
    while (message := one.heard.get(timeout=WAIT_S))["t"] == "waits":
        pass
    assert message["t"] == "ready"
    one.cluster.place.clear()
    one.say("spawn", 2)
    one.say("retire", 2, why="idle")
    while (message := one.heard.get(timeout=WAIT_S))["t"] == "waits":
        pass
    assert (message["t"], message["why"]) == ("gone", "idle")


def test_an_object_store_that_refuses_costs_the_worker_and_not_the_image(start: Start) -> None:
    one = start(call_error=RuntimeError("the store is full"))
    one.ready()
    one.image(0)
    assert one.hears("gone")["why"] == "RuntimeError: the store is full"


def test_the_bytes_on_their_way_are_bounded() -> None:
    budget, order = Budget(100), []
    assert budget.take(1, 60)

    def second() -> None:
        order.append(budget.take(2, 60))

    def third() -> None:
        order.append(budget.take(3, 60))

    threads = [threading.Thread(target=work) for work in (second, third)]
    for thread in threads:
        thread.start()
    budget.leave(3)
    threads[1].join(WAIT_S) if not threads[1].is_alive() else None
    budget.give(1, 60)
    threads[0].join(WAIT_S)
    assert True in order
    budget.leave(2)
    threads[1].join(WAIT_S)
    assert budget.used <= 60
    budget.leave(1)
    budget.leave(3)
    assert budget.take(4, 1000), "one that is larger than all passes alone"


TEXTS = {
    "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.12.3\nThis process on "
    "node 1 was started with:\n    Ray: 2.49.0\n    Python: 3.11.7\n": "The Ray cluster at head:1 runs Ray "
    "2.60.0 on Python 3.12.3, and this farm Ray 2.49.0 on Python 3.11.7; both must be the same.",
    "Failed to connect\nRPC error: InvalidAuthToken: Authentication token is missing": "The Ray cluster at "
    "head:1 refuses the token of this farm. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
    "RAY_AUTH_TOKEN_PATH, to the token of the cluster.",
    "Something else.\nat length": "The Ray cluster at head:1 cannot be used: Something else.",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_ray_says_becomes_a_sentence(text: str) -> None:
    assert why_not(text, "head:1") == TEXTS[text]


def test_the_reason_of_a_death_is_the_line_that_tells_it() -> None:
    died = "The actor died.\n\tpid: 1\nThe actor is dead because it was killed. Worker exit type: X\nmore"
    assert reason(died) == "The actor is dead because it was killed."
    assert reason("") == "no reason given"
    assert split("[::1]:6379") == ("::1", 6379)


@pytest.mark.parametrize("address", ["ray://head:10001", "local", "head", "http://head:8265", "head:99999"])
def test_an_address_of_the_environment_that_is_none_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself would start a cluster, or use its proxy."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert Cluster(RayCluster(), "a").absent() == (
        f"RAY_ADDRESS is {address!r}, and the farm needs HOST:PORT of the head; set it, or ray_address."
    )
