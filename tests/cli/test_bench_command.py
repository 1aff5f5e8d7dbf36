"""`bench`: figures of the right kind. How large they are is for no test to say."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import features
from rich.console import Console

from luna_farm.cli import bench, measure, undisturbed
from luna_farm.cli.bench_view import bench_view
from luna_farm.cli.floor import Floor
from luna_farm.errors import ArenaError, FarmUnavailable
from luna_farm.storage import arena


def test_a_small_run_measures_everything_on_a_farm_of_its_own(cli, tmp_path):
    small = (
        "--size",
        "48",
        "--images",
        "3",
        "--rounds",
        "1",
        "--repeats",
        "2",
        "--workers",
        "1",
        "--small",
        "4",
    )
    code, out, err = cli("bench", *small, "--output-dir", tmp_path, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    kinds = [(row["images"], row["dtype"]) for row in result["handover"]]
    assert kinds == [
        (images, dtype) for images in ("1 x 48", "5 x 48", "1 x 96") for dtype in ("uint8", "float32")
    ]
    rows = [(row["images"], row["level"]) for row in result["throughput"]]
    assert rows == [("clean", 4), ("clean", 1), ("noisy", 4), ("noisy", 1)]
    assert set(result["encoders"]) == {"clean", "noisy"}
    assert [row["level"] for row in result["encoders"]["clean"]] == list(measure.LEVELS)
    assert result["memory"]["supervisor"]["rss_bytes"] > 0
    assert len(result["memory"]["workers"]) == 1
    assert result["environment"]["pillow_zlib"]
    assert result["small"]["images"] == 4
    for row in result["handover"]:
        assert row["floor_p50_ms"] > 0
        assert row["times_floor"] == pytest.approx(row["p50_ms"] / row["floor_p50_ms"])
    beside = result["undisturbed"]
    # How far above 1 a loaded machine lifts it is for no test to say: the loop alone may be slowed as well.
    assert beside["share"] > 0
    assert beside["beside_running"] > 0
    assert beside["workers"] == max(1, beside["cpus"] - 1)
    assert (beside["images"], beside["rounds"]) == (3 * beside["cpus"], bench.STRETCHES)
    assert 0 < result["port_open_s"] <= result["workers_ready_s"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "state"] == []
    table = io.StringIO()
    Console(file=table, width=100).print(bench_view(result))
    for part in (
        "Hand-over",
        "floor p50",
        "of its speed while",
        "Throughput",
        "one thread, noisy images",
        "Memory",
        "supervisor",
        "on zlib",
    ):
        assert part in table.getvalue()


@pytest.mark.parametrize("options", [("--workers", "0"), ("--images", "x"), ("--size", "-1")])
def test_counts_have_a_range(options, cli):
    assert cli("bench", *options)[0] == 2


@pytest.mark.parametrize(
    ("running", "text"),
    [("1.2.13", "zlib 1.2.13 (built for "), ("1.3.1.zlib-ng", "zlib-ng 1.3.1.zlib-ng (built for ")],
)
def test_the_zlib_that_runs_is_told_apart_from_the_one_it_was_built_for(running, text, monkeypatch):
    versions = {"zlib": running, "pil": "13.0.0"}
    monkeypatch.setattr(features, "version", versions.get)
    assert measure.environment()["pillow_zlib"].startswith(text)


def test_percentiles():
    values = list(range(100, 0, -1))
    assert (measure.percentile(values, 0.5), measure.percentile(values, 0.99)) == (51, 100)
    assert measure.percentile([7], 0.99) == 7


def test_saving_in_the_caller_takes_batches_and_floats_and_leaves_nothing(tmp_path):
    batch = np.zeros((2, 4, 4, 3), np.float32)
    assert measure.in_the_caller(batch, tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_fails_stops_the_measurement(farm, tmp_path):
    farm.after_wait = "failed"
    with pytest.raises(RuntimeError, match="is failed"):
        measure.farm_throughput(farm, [np.zeros((4, 4, 3), np.uint8)], tmp_path, 4)


@pytest.fixture
def segments(monkeypatch):
    """The shared memory that was made, by name."""
    made, create = [], arena.Arena.create

    def noted(segment, size):
        made.append(segment)
        return create(segment, size)

    monkeypatch.setattr(arena.Arena, "create", noted)
    return made


def test_the_floor_copies_pixels_asks_another_process_and_leaves_nothing(segments):
    bright = np.full((2, 4, 4, 3), 0.5, np.float32)
    dark = np.full((6, 5, 3), 7, np.uint8)
    with Floor([bright, dark]) as floor:
        (segment,) = segments
        view = arena.Arena.attach(segment)
        assert floor.round(bright) > 0
        assert set(view.view(0, bright.size)) == {127}
        assert floor.round(dark) > 0
        assert set(view.view(0, dark.size)) == {7}
        view.close()
        process = floor._process
        assert process.is_alive()
    assert process.exitcode == 0
    with pytest.raises(ArenaError):
        arena.Arena.attach(segment)


def test_the_floor_says_so_when_the_other_process_is_gone():
    pixels = np.zeros((4, 4, 3), np.uint8)
    with Floor([pixels]) as floor:
        floor._process.kill()
        floor._process.join()
        with pytest.raises(ConnectionError):
            floor.round(pixels)


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 1), (16, 15)])
def test_the_loop_has_a_processor_of_its_own_where_there_are_two(cpus, workers):
    assert undisturbed.workers_beside(cpus) == workers


@pytest.fixture
def short_loop(monkeypatch):
    monkeypatch.setattr(undisturbed, "ALONE_S", 0.0)


@pytest.mark.usefixtures("short_loop")
def test_the_loop_runs_beside_a_full_queue_and_every_job_is_waited_for(farm, tmp_path):
    images = [np.zeros((4, 4, 3), np.uint8)] * 3
    figures = undisturbed.undisturbed(farm, images, tmp_path, workers=2, rounds=2)
    names = [(request.filename, request.png_compression) for request in farm.requests]
    assert names == 2 * [*[("held", 9)] * 4, *[("beside", 4)] * 3]
    assert {job for job, _ in farm.waited} == set(farm.reports)
    assert figures["saved_per_s"] > 0
    assert figures["share"] > 0


@pytest.mark.usefixtures("short_loop")
def test_the_loop_ends_though_the_farm_is_gone(farm, tmp_path, monkeypatch):
    known = farm.wait

    def wait(job_id, timeout=None):
        if job_id == max(farm.reports):  # the last one, which the loop runs beside
            raise FarmUnavailable("No farm at 127.0.0.1:1.", "127.0.0.1", 1)
        return known(job_id, timeout)

    monkeypatch.setattr(farm, "wait", wait)
    with pytest.raises(FarmUnavailable):
        undisturbed.undisturbed(farm, [np.zeros((4, 4, 3), np.uint8)], tmp_path, workers=1, rounds=1)


@pytest.mark.parametrize(("arena_bytes", "most", "count"), [(4800, 40, 40), (4800, 90, 73), (64, 40, 1)])
def test_the_queue_is_filled_with_what_fits(arena_bytes, most, count, farm):
    farm.statuses = [{"arena": {"bytes": arena_bytes}}]
    images = [np.full((4, 4, 3), number, np.uint8) for number in range(2)]
    got = undisturbed.filling(farm, images, 1, most)
    assert [int(image[0, 0, 0]) for image in got] == [number % 2 for number in range(count)]


def test_what_a_loop_waited_for_a_processor_is_told_apart():
    stretch = undisturbed.Stretch(iterations=300, seconds=2.0, running_s=1.5)
    assert (stretch.speed, stretch.running) == (150, 0.75)
    assert undisturbed.loop(lambda: True).iterations == undisturbed.ITERATIONS
