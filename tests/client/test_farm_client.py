"""`FarmClient` against a real farm: samples in, files out, and errors as what they are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from farm_process import FarmProcess, until
from numpy.typing import NDArray
from PIL import Image
from plain_process import ROOT

from luna_farm.errors import (
    FarmBusy,
    FarmUnavailable,
    InvalidRequest,
    NotPossible,
    Unauthorized,
    UnknownJob,
)
from luna_farm_client import FarmClient, SaveImage, SaveRequest, policy

Start = Callable[..., FarmProcess]


def sample(height: int = 32, width: int = 48, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def request(out: Path, *pixels: object, **fields: object) -> SaveRequest:
    images = [SaveImage(p, affix="RAW") for p in pixels or (sample(),)]
    return SaveRequest(images, output_dir=out, **{"filename": "a", **fields})


def test_what_is_submitted_is_saved_under_the_name_of_the_receipt(farm: FarmClient, tmp_path: Path) -> None:
    pixels = sample()
    receipt = farm.submit(request(tmp_path, pixels, save_path="shots"))
    assert receipt.paths == (str(tmp_path / "shots" / "a_RAW.png"),)
    assert (receipt.num_images, receipt.warnings) == (1, ())
    assert receipt.job_id in receipt.message
    report = farm.wait(receipt.job_id, timeout=60)
    assert (report.state, report.finished, report.paths) == ("done", True, receipt.paths)
    (image,) = report.images
    assert (image.state, image.error, image.format, image.affix) == ("saved", "", "png", "RAW")
    assert image.bytes == Path(image.path).stat().st_size
    assert set(image.ms) >= {"gate", "encode", "write"}
    with Image.open(image.path) as saved:
        assert np.array_equal(np.asarray(saved), pixels)


def test_the_caller_may_reuse_its_memory_at_once(farm: FarmClient, tmp_path: Path) -> None:
    pixels = sample()
    before = pixels.copy()
    receipt = farm.submit(request(tmp_path, pixels))
    pixels[:] = 0
    farm.wait(receipt.job_id, timeout=60)
    with Image.open(receipt.paths[0]) as saved:
        assert np.array_equal(np.asarray(saved), before)


def test_job_jobs_and_ping(farm: FarmClient, tmp_path: Path) -> None:
    first = farm.submit(request(tmp_path))
    second = farm.submit(request(tmp_path))
    farm.wait(first.job_id, timeout=60)
    assert farm.job(first.job_id).state == "done"
    assert [job.job_id for job in farm.jobs(limit=2)] == [second.job_id, first.job_id]
    assert farm.ping() > 0


def test_a_wait_may_end_before_the_job(farm: FarmClient, tmp_path: Path) -> None:
    receipt = farm.submit(request(tmp_path, *[sample(512, 512)] * 8))
    report = farm.wait(receipt.job_id, timeout=0)
    assert report.state in ("queued", "running", "done")
    assert farm.wait(receipt.job_id).state == "done"


def test_the_status_is_what_the_command_line_shows(farm: FarmClient, shared_farm: FarmProcess) -> None:
    status = farm.status()
    assert status["running"] is True
    assert status["pid"] == shared_farm.pid
    assert "id" not in status
    assert {"version", "uptime_s", "workers", "queue", "arena", "totals"} <= set(status)
    assert set(status["queue"]) == {"jobs", "images", "bytes"}
    assert {"jobs", "images_saved", "images_discarded", "images_failed", "bytes_written"} <= set(
        status["totals"]
    )
    for worker in until(lambda: farm.status()["workers"], "a worker is ready"):
        assert {"pid", "state", "rss_bytes", "cpu_percent", "images_saved"} <= set(worker)


def test_errors_of_the_farm_are_the_same_classes_here(farm: FarmClient, tmp_path: Path) -> None:
    with pytest.raises(UnknownJob, match="no-such-job") as unknown:
        farm.job("no-such-job")
    assert unknown.value.job_id == "no-such-job"
    for ask in (farm.wait, farm.cancel, farm.retry):
        with pytest.raises(UnknownJob):
            ask("no-such-job")
    receipt = farm.submit(request(tmp_path))
    farm.wait(receipt.job_id, timeout=60)
    for refused in (farm.cancel, farm.retry):
        with pytest.raises(NotPossible, match="is done"):
            refused(receipt.job_id)


def test_an_image_larger_than_the_arena_is_saved(farm: FarmClient, tmp_path: Path) -> None:
    before = farm.status()["arena"]  # other tests share the farm: slots of theirs may be in quarantine
    arena_bytes = before["bytes"]
    large = np.broadcast_to(np.uint8(7), (8192, arena_bytes // 8192 + 1, 1))
    report = farm.wait(farm.submit(request(tmp_path, large)))
    assert report.state == "done"
    with Image.open(report.paths[0]) as saved:
        assert saved.size == (large.shape[1], 8192)
    assert farm.status()["arena"]["used_bytes"] <= before["used_bytes"]


def test_a_batch_larger_than_the_arena_is_one_job_with_one_receipt(farm: FarmClient, tmp_path: Path) -> None:
    arena_bytes = farm.status()["arena"]["bytes"]
    side = 512
    count = arena_bytes // (side * side) + 4
    batch = np.zeros((count, side, side, 1), np.uint8)
    batch[:, 0, 0, 0] = np.arange(count) % 251
    receipt = farm.submit(request(tmp_path, batch, png_compression=1))
    assert (receipt.num_images, len(receipt.paths)) == (count, count)
    report = farm.wait(receipt)
    assert report.state == "done"
    for index in (0, 1, count // 2, count - 1):
        with Image.open(report.images[index].path) as saved:
            assert saved.getpixel((0, 0)) == index % 251


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros(4, np.uint8),
        np.full((4, 4, 3), 200.0, np.float32),
        np.full((400, 400, 3), 200.0, np.float32),
        [[1, 2], [3, 4]],
        None,
    ],
    ids=["channels", "empty", "dtype", "shape", "far above 1", "large and far above 1", "list", "none"],
)
def test_bad_pixels_are_refused_here_and_nothing_is_handed_over(
    farm: FarmClient, tmp_path: Path, pixels: object
) -> None:
    before = farm.status()["totals"]["jobs"]
    with pytest.raises(InvalidRequest, match="allowed: "):
        farm.submit(request(tmp_path, pixels))
    assert farm.status()["totals"]["jobs"] == before
    assert not list(tmp_path.iterdir())
    receipt = farm.submit(request(tmp_path))
    assert farm.wait(receipt.job_id, timeout=60).state == "done", "the client is as good as before"


def test_what_is_no_request_and_no_time_is_refused_with_a_sentence(farm: FarmClient, tmp_path: Path) -> None:
    one = request(tmp_path)
    for given in (one, None, 5, "a.png", {"images": []}):
        with pytest.raises(InvalidRequest, match="allowed: a list of SaveRequest"):
            farm.submit_many(given)
    receipt = farm.submit(one)
    for timeout in ("10", True, [1]):
        with pytest.raises(InvalidRequest, match="allowed: seconds, or None"):
            farm.wait(receipt, timeout)


def test_a_refused_job_does_not_spoil_the_next_one(farm: FarmClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    farm.submit(request(tmp_path))
    for _ in range(4):
        with pytest.raises(InvalidRequest, match="not a folder"):
            farm.submit(request(tmp_path, save_path="file"))
        assert farm.submit(request(tmp_path)).num_images == 1


def test_several_threads_may_use_one_client(farm: FarmClient, tmp_path: Path) -> None:
    paths: list[str] = []
    failed: list[BaseException] = []

    def save(number: int) -> None:
        try:
            for _ in range(5):
                receipt = farm.submit(request(tmp_path, sample(seed=number)))
                paths.extend(farm.wait(receipt.job_id, timeout=60).paths)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set(paths)) == 30
    assert all(Path(path).exists() for path in paths)


def test_without_a_farm_it_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    farm = FarmClient("127.0.0.1", 9, token="x", timeout=1.0)
    with pytest.raises(FarmUnavailable, match=r"127\.0\.0\.1:9.*luna-farm start") as missing:
        farm.status()
    assert (missing.value.host, missing.value.port) == ("127.0.0.1", 9)


def test_with_a_wrong_token_it_is_not_let_in(shared_farm: FarmProcess) -> None:
    with shared_farm.client(token="wrong") as farm, pytest.raises(Unauthorized, match="token"):
        farm.ping()


def test_after_close_it_speaks_no_more(shared_farm: FarmProcess) -> None:
    farm = shared_farm.client()
    farm.ping()
    farm.close()
    with pytest.raises(FarmUnavailable, match="closed"):
        farm.ping()


def test_closing_gives_back_what_was_leased_ahead(shared_farm: FarmProcess, tmp_path: Path) -> None:
    with shared_farm.client() as watcher:
        before = watcher.status()["arena"]["used_bytes"]
        for _ in range(12):
            with shared_farm.client() as farm:
                receipt = farm.submit(request(tmp_path, sample(1024, 1024)))
                farm.wait(receipt.job_id, timeout=60)
        until(lambda: watcher.status()["arena"]["used_bytes"] <= before, "all leases are back")


def test_when_busy_it_waits_or_reports(start_farm: Start, tmp_path: Path) -> None:
    process = start_farm(max_jobs=1)
    with process.client() as farm:
        farm.pause()  # or the first might be saved before the others ask
        first = farm.submit(request(tmp_path))
        with pytest.raises(FarmBusy, match="max_jobs") as busy:
            farm.submit(request(tmp_path), when_busy="report")
        assert 0 < busy.value.retry_after_s <= 2
        farm.resume()
        second = farm.submit(request(tmp_path))
        assert farm.job(first.job_id).finished
        assert farm.wait(second.job_id, timeout=60).state == "done"


def test_a_restart_of_the_farm_goes_unnoticed(start_farm: Start, tmp_path: Path) -> None:
    process = start_farm()
    farm = process.client(restart_s=60.0)
    receipts = [farm.submit(request(tmp_path, sample(256, 256, seed=n))) for n in range(10)]
    process.kill()
    starting = threading.Thread(target=process.start)
    starting.start()
    receipts += [farm.submit(request(tmp_path, sample(256, 256, seed=n))) for n in range(10, 20)]
    reports = [farm.wait(receipt.job_id, timeout=60) for receipt in receipts]
    starting.join()
    farm.close()
    assert {report.state for report in reports} == {"done"}
    for number, report in enumerate(reports):
        with Image.open(report.paths[0]) as saved:
            assert np.array_equal(np.asarray(saved), sample(256, 256, seed=number))
    assert (
        len({path for report in reports for path in report.paths}) == 20 == len(list(tmp_path.glob("*.png")))
    )


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_farm_that_has_ended_is_told_at_once(
    start_farm: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, own: bool
) -> None:
    """For every request, also of a client that was connected, and of one that has another state folder: this
    farm is not started again."""
    monkeypatch.setattr(policy, "RESTART_S", 1e6)
    process = start_farm()
    with process.client(timeout=1e6) as farm:
        if not own:
            token = farm.endpoint.token()
            farm.endpoint = replace(farm.endpoint, state_dir=tmp_path / "other", given_token=token)
            farm._policy._ended = farm.endpoint.ended
        receipt = farm.submit(request(tmp_path, sample()))
        farm.wait(receipt)
        getattr(process, end)()
        pixels = sample()
        asks: list[Callable[[], object]] = [
            lambda: farm.submit(request(tmp_path, sample())),
            lambda: farm.wait(receipt),
            farm.ping,
            farm.status,
            lambda: farm.save(pixels, tmp_path / "a.png"),
        ]
        for ask in asks[:1] if end == "kill" else asks:
            with pytest.raises(
                FarmUnavailable, match="was stopped" if end == "stop" else "crashed or was killed"
            ):
                ask()


def test_stopping_tells_the_process(start_farm: Start) -> None:
    process = start_farm()
    with process.client() as farm:
        assert farm.shutdown() == process.pid
    assert process.process is not None
    assert process.process.wait(60) == 0


def test_a_paused_farm_accepts_and_saves_only_once_it_is_resumed(start_farm: Start, tmp_path: Path) -> None:
    process = start_farm(feed_port=0)
    with process.client() as farm:
        assert farm.pause().paused
        receipt = farm.submit(request(tmp_path, sample(), sample(seed=1)))
        assert farm.wait(receipt, timeout=0).state == "queued"
        assert farm.status()["paused"]
        assert farm.pause().waiting == 2
        cancelled = farm.cancel(receipt, 1)
        assert [image.state for image in cancelled.images] == ["queued", "cancelled"]
        assert not farm.resume().paused
        assert [image.state for image in farm.wait(receipt).images] == ["saved", "cancelled"]
        with pytest.raises(InvalidRequest, match="index: 2 is not allowed"):
            farm.cancel(receipt, 2)
        with pytest.raises(NotPossible, match="no failed images to dismiss"):
            farm.dismiss(receipt)
        link = farm.dashboard_link()
    port = process._endpoint()["feed_port"]
    assert link.startswith(f"http://127.0.0.1:{port}/#login=")


def test_a_farm_without_a_feed_has_no_dashboard(shared_farm: FarmProcess) -> None:
    with (
        shared_farm.client() as farm,
        pytest.raises(NotPossible, match=r"no dashboard.*Restart the farm with a free --feed-port"),
    ):
        farm.dashboard_link()


FORKS = """
import os, sys
import numpy as np
from luna_farm_client import FarmClient, SaveImage, SaveRequest

out, port = sys.argv[1:]
client = FarmClient("127.0.0.1", int(port))

def save(name, value):
    pixels = np.full((1100, 1000, 3), value / 255 + 0.001, np.float32)
    receipt = client.submit(SaveRequest([SaveImage(pixels)], output_dir=out, filename=f"{name}_{value}"))
    return client.wait(receipt.job_id, timeout=60).state

assert save("parent", 1) == "done"
children = []
for child in range(1, 4):
    pid = os.fork()
    if pid == 0:
        ends = {save(f"child{child}", 20 * child + n) for n in range(4)}
        client.close()
        os._exit(ends != {"done"})
    children.append(pid)
assert {save("parent", 2 + n) for n in range(4)} == {"done"}
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
assert save("parent", 100) == "done"
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: this system does not fork")
def test_a_process_that_was_forked_may_use_the_client_it_inherited(
    shared_farm: FarmProcess, tmp_path: Path
) -> None:
    # Python 3.12 warns of forking beside threads, which is just what this is about.
    command = [
        sys.executable,
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        FORKS,
        str(tmp_path),
        str(shared_farm.port),
    ]
    environ = {**os.environ, "LUNA_FARM_STATE_DIR": str(shared_farm.state), "PYTHONPATH": ROOT}
    program = subprocess.run(command, env=environ, timeout=120, capture_output=True, text=True, check=False)
    assert (program.returncode, program.stderr) == (0, "")
    saved = sorted(tmp_path.iterdir())
    assert len(saved) == 6 + 3 * 4
    for path in saved:
        with Image.open(path) as sample:
            assert sample.getextrema() == ((int(path.stem.split("_")[1]),) * 2,) * 3, path.name
