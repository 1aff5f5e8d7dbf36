"""Prometheus series of the farm: counted from the same events that the feed sends, laid out only when
they are asked for.

`observe` runs for every event and costs about a microsecond; saved images are counted many at a time. The
client library is imported at the first scrape, so that a farm that is not scraped does not carry it. This
module must never look at a clock, a file or a process: what is true now comes in the status that is handed to
`render`. No label holds a path, a name or a job id.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

HANDOVER_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
STEP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COUNTED_TOGETHER = 256
"""Saved images, or hand-overs, after which they are counted."""
WAIT_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)


class Histogram:
    """Counts per bucket and their sum, in seconds. `bounds` are the upper ends, rising; +Inf is implied."""

    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0

    def add_ms(self, values_ms: Iterable[float]) -> None:
        """Count durations given in milliseconds: many at once, since each bound is looked for once."""
        ordered, below = sorted(values_ms), 0
        for place, bound in enumerate(self.bounds):
            at = bisect_right(ordered, bound * 1000.0)
            self.counts[place] += at - below
            below = at
        self.counts[-1] += len(ordered) - below
        self.sum_s += sum(ordered) / 1000.0

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper end as text, cumulative count), as the exposition format wants them."""
        rows, total = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        return rows


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """What the feed knows of itself at the time of a scrape. `ready` is what /readyz answers."""

    ready: bool
    subscribers: int
    dropped: int


@dataclass(slots=True)
class Metrics:
    """All counters and histograms of one farm since its start."""

    jobs: Counter[str] = field(default_factory=Counter)  # by final state
    images: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (outcome, format or reason)
    workers: Counter[str] = field(default_factory=Counter)  # by event
    folders: Counter[str] = field(default_factory=Counter)
    queued_jobs: int = 0
    queued_images: int = 0
    written_bytes: int = 0
    handover: Histogram = field(default_factory=lambda: Histogram(HANDOVER_S))
    queue_wait: Histogram = field(default_factory=lambda: Histogram(WAIT_S))
    gate: Histogram = field(default_factory=lambda: Histogram(STEP_S))
    encode: Histogram = field(default_factory=lambda: Histogram(STEP_S))
    write: Histogram = field(default_factory=lambda: Histogram(STEP_S))
    save: Histogram = field(default_factory=lambda: Histogram(WAIT_S))
    saved: list[Mapping[str, Any]] = field(default_factory=list)
    handovers_ms: list[float] = field(default_factory=list)
    """Saved images and times of hand-overs that are not counted yet."""

    def observe(self, event: Mapping[str, Any]) -> None:
        """Count one event of the feed; events of no interest are passed over."""
        count = _COUNTED.get(event["event"])
        if count is not None:
            count(self, event)

    def render(self, status: Mapping[str, Any], facts: FeedFacts, accept: str = "") -> tuple[bytes, str]:
        """Return the series as (text, content type): OpenMetrics if the Accept header asks for it, else
        Prometheus'."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        self.count_late()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(self, status, facts))
        encoder, content_type = choose_encoder(accept)
        rendered: Callable[[CollectorRegistry], bytes] = encoder
        return rendered(registry), content_type

    def count_late(self) -> None:
        """Count what has come since the last time of what is counted many at a time."""
        self.handover.add_ms(self.handovers_ms)
        self.handovers_ms.clear()
        saved, self.saved = self.saved, []
        # A rejected image has a file too, and was counted as rejected.
        kept = [event for event in saved if event.get("state", "saved") == "saved"]
        self.images.update([("saved", event.get("format", "")) for event in kept])
        self.written_bytes += sum([event.get("bytes", 0) for event in saved])
        for key, histogram in (
            ("queue_ms", self.queue_wait),
            ("gate_ms", self.gate),
            ("encode_ms", self.encode),
            ("write_ms", self.write),
            ("ms", self.save),
        ):
            histogram.add_ms([event[key] for event in saved if key in event])


def _job_queued(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.queued_jobs += 1
    metrics.queued_images += event.get("num_images", 0)
    handover_ms = event.get("handover_ms")
    if handover_ms is not None:
        metrics.handovers_ms.append(handover_ms)
        if len(metrics.handovers_ms) >= COUNTED_TOGETHER:  # images may all be rejected, or fail
            metrics.count_late()


def _image_saved(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.saved.append(event)
    if len(metrics.saved) >= COUNTED_TOGETHER:
        metrics.count_late()


def _image_rejected(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.images["rejected", event.get("on_reject", "")] += 1


def _image_failed(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.images["failed", event.get("code") or "error"] += 1


def _image_lost(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.images["failed", "lost"] += 1


def _images_missing(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.images["failed", "missing"] += event["count"]


def _job_done(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.jobs[event.get("state", "done")] += 1


def _worker(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.workers[event["event"]] += 1


def _folder(metrics: Metrics, event: Mapping[str, Any]) -> None:
    metrics.folders[event["event"]] += 1


_COUNTED: Mapping[str, Callable[[Metrics, Mapping[str, Any]], None]] = {
    "save_job_queued": _job_queued,
    "image_saved": _image_saved,
    "image_rejected": _image_rejected,
    "image_failed": _image_failed,
    "save_job_done": _job_done,
    "job_lost": _image_lost,
    "images_missing": _images_missing,
    "worker_started": _worker,
    "worker_reaped": _worker,
    "worker_lost": _worker,
    "folder_failing": _folder,
}


class _Snapshot:
    """One scrape: what was counted, and the status of this moment, as metric families of the client
    library."""

    def __init__(self, metrics: Metrics, status: Mapping[str, Any], facts: FeedFacts) -> None:
        self._metrics = metrics
        self._status = status
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        """Yield every family; the names follow Prometheus' conventions (base units, `_total` for
        counters)."""
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()

    def _counters(self) -> Iterable[Metric]:
        metrics = self._metrics
        yield _counter("jobs_accepted", "Jobs taken over.", metrics.queued_jobs)
        yield _counter("images_accepted", "Images taken over.", metrics.queued_images)
        yield _counters("jobs_finished", "Jobs that ended, by state.", ("state",), metrics.jobs)
        for outcome, label, text in (
            ("saved", "format", "Images whose file is whole under its final name."),
            (
                "rejected",
                "on_reject",
                "Images below the threshold of the quality gate, by what became of them.",
            ),
            ("failed", "code", "Images that could not be saved, by error code."),
        ):
            rows = {key[1]: count for key, count in metrics.images.items() if key[0] == outcome}
            yield _counters(f"images_{outcome}", text, (label,), rows)
        yield _counter("written_bytes", "Bytes of all files saved.", metrics.written_bytes)
        yield _counter("workers_started", "Workers spawned.", metrics.workers["worker_started"])
        yield _counter(
            "workers_reaped", "Workers ended because they were idle.", metrics.workers["worker_reaped"]
        )
        yield _counter("workers_lost", "Workers that died or were killed.", metrics.workers["worker_lost"])
        yield _counter(
            "folder_failures", "Output folders that became unwritable.", metrics.folders["folder_failing"]
        )
        yield _counter(
            "feed_dropped", "Feed subscribers dropped because they read too slowly.", self._facts.dropped
        )

    def _histograms(self) -> Iterable[Metric]:
        from prometheus_client.core import HistogramMetricFamily

        metrics = self._metrics
        for name, text, histogram in (
            ("handover", "From the receipt of a submit to its acknowledgement.", metrics.handover),
            ("queue_wait", "From the acknowledgement to the start of work on an image.", metrics.queue_wait),
            ("gate", "Judging one image.", metrics.gate),
            ("encode", "Encoding one image.", metrics.encode),
            ("write", "Writing one file, to the disk if fsync is on.", metrics.write),
            ("save", "From the acknowledgement to the file, one image.", metrics.save),
        ):
            family = HistogramMetricFamily(f"luna_farm_{name}_seconds", text)
            family.add_metric([], buckets=histogram.buckets(), sum_value=histogram.sum_s)
            yield family

    def _gauges(self) -> Iterable[Metric]:
        status, facts = self._status, self._facts
        workers = status.get("workers", ())
        queue, arena = status.get("queue", {}), status.get("arena", {})
        states = Counter(worker["state"] for worker in workers)
        yield _gauges("workers", "Workers by state.", ("state",), states)
        yield _gauge("workers_resident_bytes", "Resident memory of all workers.", _sum(workers, "rss_bytes"))
        yield _gauge("workers_cpu_ratio", "Cores that all workers use.", _sum(workers, "cpu_percent") / 100)
        yield _gauge("queue_jobs", "Jobs not finished.", queue.get("jobs", 0))
        yield _gauge("queue_images", "Images not finished.", queue.get("images", 0))
        yield _gauge("queue_bytes", "Pixels not finished.", queue.get("bytes", 0))
        yield _gauge("arena_bytes", "Shared memory for pixels.", arena.get("bytes", 0))
        reserved = arena.get("reserved_bytes", 0)
        yield _gauge("arena_reserved_bytes", "Shared memory that is there now.", reserved)
        yield _gauge("arena_used_bytes", "Shared memory that holds pixels.", arena.get("used_bytes", 0))
        folders = status.get("folders", ())
        failing = sum(folder.get("state") == "failing" for folder in folders)
        yield _gauge("folders_failing", "Output folders that cannot be written now.", failing)
        free = [folder["free_bytes"] for folder in folders if folder.get("free_bytes") is not None]
        if free:
            yield _gauge("folder_free_bytes", "Free space of the fullest output folder's disk.", min(free))
        yield _gauge(
            "dead_letters",
            "Jobs that wait for a person to look at them.",
            len(status.get("dead_letters", ())),
        )
        yield _gauge("uptime_seconds", "Time since the start of the supervisor.", status.get("uptime_s", 0))
        yield _gauge("ready", "1 if new jobs are accepted, as /readyz says.", facts.ready)
        yield _gauge("feed_subscribers", "Subscribers of the feed.", facts.subscribers)
        yield _gauges("info", "The running version.", ("version",), {str(status.get("version", "")): 1})


def _sum(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    return float(sum(row.get(key) or 0 for row in rows))


def _counter(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"luna_farm_{name}", text, value=value)


def _counters(name: str, text: str, labels: tuple[str], rows: Mapping[str, int]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"luna_farm_{name}", text, labels=labels)
    for value, count in sorted(rows.items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"luna_farm_{name}", text, value=float(value))


def _gauges(name: str, text: str, labels: tuple[str], rows: Mapping[str, int]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"luna_farm_{name}", text, labels=labels)
    for value, count in sorted(rows.items()):
        family.add_metric([value], float(count))
    return family
