"""Prometheus series: counted right, named by the conventions, readable by the official parser, cheap to
count."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fake_farm import FakeFarm
from prometheus_client.parser import text_string_to_metric_families

from luna_farm.feed.metrics import COUNTED_TOGETHER, FeedFacts, Histogram, Metrics

FACTS = FeedFacts(ready=True, subscribers=3, dropped=1)


def rendered(metrics: Metrics, status: dict[str, Any] | None = None) -> dict[tuple[str, ...], float]:
    """Return {(name, label value...): value} of one scrape."""
    body, content_type = metrics.render(status or {}, FACTS)
    assert content_type.startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def saved(**more: Any) -> dict[str, Any]:
    return {
        "event": "image_saved",
        "format": "png",
        "bytes": 1000,
        "ms": 20.0,
        "queue_ms": 4.0,
        "encode_ms": 8.0,
        "write_ms": 2.0,
    } | more


def test_hand_overs_are_counted_where_no_image_is_saved() -> None:
    """All may be rejected: what is kept for later stays bounded."""
    metrics = Metrics()
    for _ in range(2 * COUNTED_TOGETHER):
        metrics.observe({"event": "save_job_queued", "num_images": 1, "handover_ms": 0.2})
    assert len(metrics.handovers_ms) < COUNTED_TOGETHER
    assert rendered(metrics)["luna_farm_handover_seconds_count",] == 2 * COUNTED_TOGETHER


def test_events_are_counted() -> None:
    metrics = Metrics()
    metrics.observe({"event": "save_job_queued", "num_images": 3, "handover_ms": 0.2})
    metrics.observe(saved())
    metrics.observe(saved(format="webp"))
    metrics.observe({"event": "image_rejected", "on_reject": "discard"})
    metrics.observe(saved(state="discarded"))
    metrics.observe({"event": "image_failed", "code": "disk"})
    metrics.observe({"event": "job_lost"})
    metrics.observe({"event": "save_job_done", "state": "failed"})
    metrics.observe({"event": "worker_started"})
    metrics.observe({"event": "worker_lost"})
    metrics.observe({"event": "folder_failing"})
    metrics.observe({"event": "something_new"})
    found = rendered(metrics)
    assert found["luna_farm_jobs_accepted_total",] == 1
    assert found["luna_farm_images_accepted_total",] == 3
    assert found["luna_farm_images_saved_total", "png"] == 1
    assert found["luna_farm_images_saved_total", "webp"] == 1
    assert found["luna_farm_images_rejected_total", "discard"] == 1
    assert found["luna_farm_images_failed_total", "disk"] == 1
    assert found["luna_farm_images_failed_total", "lost"] == 1
    assert found["luna_farm_written_bytes_total",] == 3000
    assert found["luna_farm_jobs_finished_total", "failed"] == 1
    assert found["luna_farm_workers_started_total",] == 1
    assert found["luna_farm_workers_lost_total",] == 1
    assert found["luna_farm_folder_failures_total",] == 1
    assert found["luna_farm_feed_dropped_total",] == 1


def test_durations_are_in_seconds_and_fall_into_their_buckets() -> None:
    metrics = Metrics()
    metrics.observe(saved())
    metrics.observe(saved(encode_ms=8.0))
    found = rendered(metrics)
    assert found["luna_farm_encode_seconds_sum",] == pytest.approx(0.016)
    assert found["luna_farm_encode_seconds_bucket", "0.005"] == 0
    assert found["luna_farm_encode_seconds_bucket", "0.01"] == 2
    assert found["luna_farm_encode_seconds_bucket", "+Inf"] == found["luna_farm_encode_seconds_count",] == 2
    assert found["luna_farm_gate_seconds_count",] == 0


@pytest.mark.parametrize(
    ("ms", "counts"), [(1.0, [1, 0, 0]), (1.001, [0, 1, 0]), (10.0, [0, 1, 0]), (10.001, [0, 0, 1])]
)
def test_an_upper_end_belongs_to_its_bucket(ms: float, counts: list[int]) -> None:
    histogram = Histogram((0.001, 0.01))
    histogram.add_ms([ms])
    assert histogram.counts == counts


def test_the_status_becomes_gauges() -> None:
    farm = FakeFarm()
    farm.queued_images = 4
    farm.workers[0]["state"] = "busy"
    farm.workers[0]["cpu_percent"] = 150.0
    farm.folders[1]["state"] = "failing"
    farm.dead_letters = [{"job_id": "a"}]
    found = rendered(Metrics(), farm.status())
    assert found["luna_farm_workers", "busy"] == found["luna_farm_workers", "idle"] == 1
    assert found["luna_farm_workers_cpu_ratio",] == 1.5
    assert found["luna_farm_queue_images",] == 4
    assert found["luna_farm_folders_failing",] == 1
    assert found["luna_farm_folder_free_bytes",] == min(row["free_bytes"] for row in farm.folders)
    assert found["luna_farm_dead_letters",] == 1
    assert found["luna_farm_ready",] == 1
    assert found["luna_farm_feed_subscribers",] == 3
    assert found["luna_farm_info", "0.1.0"] == 1


def test_a_farm_that_has_only_started_can_be_scraped() -> None:
    assert rendered(Metrics(), {})["luna_farm_queue_images",] == 0


def test_openmetrics_is_given_to_who_asks() -> None:
    body, content_type = Metrics().render({}, FACTS, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def labels_of(body: str) -> Iterator[str]:
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            yield from sample.labels.values()


def test_no_series_tells_a_path_or_a_job() -> None:
    farm = FakeFarm()
    events = [event for _ in range(20) for event in farm.job()]
    for event in events:
        farm.metrics.observe(event)
    body = farm.metrics.render(farm.status(), FACTS)[0].decode()
    assert not [label for label in labels_of(body) if "/" in label]
    assert not {event["job_id"] for event in events} & set(labels_of(body))


def test_the_library_is_loaded_at_the_first_scrape() -> None:
    code = (
        "import sys; from luna_farm.feed.metrics import Metrics, FeedFacts; m = Metrics();"
        "assert 'prometheus_client' not in sys.modules; m.render({}, FeedFacts(True, 0, 0));"
        "assert 'prometheus_client' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
