"""A Ray cluster beyond a network that is slow, loses packets, or is gone: nothing hangs, nothing is lost.

The head and its nodes are in a network of their own (`network.py`); the farm and a node without CPUs are on
this side of the wire.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from images import Album
from measured import LONG, Figures
from network import FAR, NEAR, SECOND_FAR, Wire, cut, why_not
from nodes import WHY_NOT, RayNodes
from running_farm import RunningFarm, Start, until

NOT_NOW = "NOT TESTED: these clusters take a minute to start; scripts/faults.py --long tests them"
CANNOT = WHY_NOT or why_not() or ("" if LONG else NOT_NOW)
pytestmark = pytest.mark.skipif(bool(CANNOT), reason=CANNOT)


@pytest.fixture
def wire() -> Iterator[Wire]:
    """The wire; this test is on its near side."""
    with Wire() as made:
        yield made


@pytest.fixture
def nodes(wire: Wire) -> Iterator[RayNodes]:
    """A head with one CPU and a node with two on the far side, one without CPUs on this side."""
    made = RayNodes([1, 2, 0], ips=[FAR, SECOND_FAR, NEAR], before=[wire.before, wire.before, []])
    try:
        yield made.start()
    finally:
        made.stop()


def start(farm: Start, nodes: RayNodes) -> RunningFarm:
    """A farm on this side whose cluster works."""
    given = {"engine": "ray", "ray_address": nodes.address, "ray_max_workers": 3, "min_workers": 1}
    one = farm(**given, **nodes.secrets)
    until(lambda: any(worker["node"] for worker in one.status()["workers"]), "a worker there", 90)
    one.out.mkdir()
    return one


def state(one: RunningFarm) -> str:
    """Whether the engine works, by the status."""
    return str(next(row["state"] for row in one.status()["engines"] if row["engine"] == "ray"))


def test_a_network_that_is_slow_and_loses_packets_loses_no_image(
    farm: Start, nodes: RayNodes, wire: Wire, figures: Figures
) -> None:
    """50 ms each way, and of a hundred packets two are lost."""
    one = start(farm, nodes)
    album = Album(one.out, size=(256, 256), noisy=True)
    wire.delay_s, wire.loss = 0.05, 0.02
    with one.client() as client:
        for _ in range(60):
            album.add(client, png_compression=9)
        reports = album.wait(client, 300)
    far = sum(row["images"] for row in one.status()["nodes"] if row["node"])
    wire.delay_s = wire.loss = 0.0
    assert one.stop() == 0
    figures.none("ray network", "slow and lossy", images=60, **album.count(reports))
    assert far > 10, "the cluster did its part"
    assert wire.lost


def test_a_network_that_is_gone_means_workers_of_this_machine_until_it_is_back(
    farm: Start, nodes: RayNodes, wire: Wire, figures: Figures
) -> None:
    """Cut while images are there: a line in the log, the images are saved here, the cluster is used again."""
    one = start(farm, nodes)
    album = Album(one.out, size=(512, 512), noisy=True)
    with one.client() as client:
        for _ in range(20):
            album.add(client, png_compression=9)
        until(lambda: any(one.out.glob("*.png")), "the first image")
        with cut(wire):
            started = time.monotonic()
            until(lambda: state(one) == "failing", "the loss is seen")
            seen_s = time.monotonic() - started
            for _ in range(10):
                album.add(client, png_compression=9)
            reports = album.wait(client, 120)
        until(lambda: state(one) == "ok", "the cluster is used again", 120)
        until(lambda: any(worker["node"] for worker in one.status()["workers"]), "a worker there", 90)
        album.add(client)
        last = album.wait_for_last(client)
    assert f"The head of the Ray cluster at {nodes.address} does not answer any more." in one.log_text()
    assert one.stop() == 0
    assert last is not None
    count = album.count([*reports, last])
    figures.none("ray network", "gone", images=31, seen_s=round(seen_s, 1), **count)
    assert one.left_processes() == []


def test_a_node_whose_network_is_gone_costs_its_images_nothing_but_time(
    farm: Start, nodes: RayNodes, wire: Wire, figures: Figures
) -> None:
    """The head is on this side; only nodes are cut off. Ray finds that out, and others make the images."""
    nodes.stop()
    other = RayNodes([0, 2, 1], ips=[NEAR, FAR, SECOND_FAR], before=[[], wire.before, wire.before])
    try:
        one = start(farm, other.start())
        album = Album(one.out, size=(512, 512), noisy=True)
        with one.client() as client:
            for _ in range(20):
                album.add(client, png_compression=9)
            until(lambda: any(one.out.glob("*.png")), "the first image")
            with cut(wire):
                started = time.monotonic()
                reports = album.wait(client, 300)
                took_s = time.monotonic() - started
        assert one.stop() == 0
        figures.none(
            "ray network", "nodes cut off", images=20, saved_after_s=round(took_s, 1), **album.count(reports)
        )
    finally:
        other.stop()
