"""`bench`: figures of the right kind. How large they are is for no test to say."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import features
from rich.console import Console

from luna_farm.cli import measure
from luna_farm.cli.bench_view import bench_view


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
    rows = [(row["pictures"], row["level"]) for row in result["throughput"]]
    assert rows == [("clean", 4), ("clean", 1), ("noisy", 4), ("noisy", 1)]
    assert set(result["encoders"]) == {"clean", "noisy"}
    assert [row["level"] for row in result["encoders"]["clean"]] == list(measure.LEVELS)
    assert result["memory"]["supervisor"]["rss_bytes"] > 0
    assert len(result["memory"]["workers"]) == 1
    assert result["environment"]["pillow_zlib"]
    assert result["small"]["images"] == 4
    assert 0 < result["port_open_s"] <= result["workers_ready_s"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "state"] == []
    table = io.StringIO()
    Console(file=table, width=100).print(bench_view(result))
    for part in ("Hand-over", "Throughput", "one thread, noisy pictures", "Memory", "supervisor", "on zlib"):
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
