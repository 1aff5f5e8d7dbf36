"""The status of a farm as it looks in a terminal: a pure function from the status dict to what rich prints.

It must never ask the farm or the system anything: what it shows is what the status says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from luna_farm.cli.options import for_this_farm
from luna_farm.cli.terminal import duration, size
from luna_farm.config import in_url
from luna_farm.core.counted import counted

_BARS = "▁▂▃▄▅▆▇█"
_KEPT = 60
_LISTED = 5
Named = Callable[[str], str]
"""Makes the commands in a message name the farm."""


@dataclass(slots=True)
class Trend:
    """The last minute of a farm that is watched: images and bytes a second, depth of the queue, CPU."""

    images_per_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    bytes_per_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    queued: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    cpu_percent: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _last: tuple[float, int, int] | None = None

    def add(self, status: Mapping[str, Any], now: float) -> None:
        """Take a status, seen at monotonic time `now`."""
        totals = status["totals"]
        seen = (now, int(totals["images_saved"]), int(totals["bytes_written"]))
        if self._last is not None and now > self._last[0]:
            span = now - self._last[0]
            # A farm that was restarted counts from zero again.
            self.images_per_s.append(max(0, seen[1] - self._last[1]) / span)
            self.bytes_per_s.append(max(0, seen[2] - self._last[2]) / span)
        self._last = seen
        self.queued.append(status["queue"]["images"])
        self.cpu_percent.append(sum(row.get("cpu_percent", 0.0) for row in _processes(status)))


def sparkline(values: Iterable[float]) -> str:
    """Return values as a line of bars, the highest full; zeros are the lowest bar."""
    numbers = list(values)
    top = max(numbers, default=0.0)
    if top <= 0:
        return _BARS[0] * len(numbers)
    return "".join(
        _BARS[min(len(_BARS) - 1, int(number / top * (len(_BARS) - 1) + 0.5))] for number in numbers
    )


def status_view(
    status: Mapping[str, Any], trend: Trend | None = None, arguments: Sequence[str] = ()
) -> RenderableType:
    """Return everything `status` says, for a terminal of 80 columns and more. `arguments` of the command line
    name the farm in the commands that it recommends."""
    named = partial(for_this_farm, arguments=arguments)
    parts: list[RenderableType] = [_head(status, named), _process_table(status), _figures(status)]
    if trend is not None:
        parts.append(_trends(trend))
    if len(status.get("engines", ())) > 1:
        parts.append(_node_table(status["engines"], status.get("nodes", ())))
    if status.get("folders"):
        parts.append(_folder_table(status["folders"]))
    if status.get("destinations"):
        parts.append(_destination_table(status["destinations"]))
    if status.get("dead_letters"):
        parts.append(_dead_letters(status["dead_letters"], named))
    if status.get("incomplete_jobs"):
        parts.append(_incomplete_jobs(status["incomplete_jobs"], named))
    parts += [Text(f"Note: {named(note)}", style="yellow") for note in status.get("notes", ())]
    return Group(*parts)


def _processes(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    supervisor = {"pid": status.get("pid"), "state": "supervisor", **status.get("supervisor", {})}
    bridges = [{**row, "state": "bridge"} for row in status.get("bridges", ())]
    return [supervisor, *bridges, *status.get("workers", ())]


def _head(status: Mapping[str, Any], named: Named) -> Text:
    host, port, feed_port = in_url(str(status.get("host"))), status.get("port"), status.get("feed_port")
    up = duration(float(status.get("uptime_s", 0)))
    text = Text.assemble(
        (f"Luna Farm {status.get('version', '')}", "bold"), f"  up {up}, jobs on {host}:{port}"
    )
    if feed_port:
        text.append(f", dashboard {'https' if status.get('tls') else 'http'}://{host}:{feed_port}/")
    if status.get("paused"):
        text.append(named("  paused (luna-farm resume)"), style="yellow bold")
    if status.get("draining"):
        text.append("  draining", style="yellow bold")
    return text


def _process_table(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("process", justify="right")
    table.add_column("state")
    for name in ("CPU", "memory", "threads", "files", "up", "images", "MB/s"):
        table.add_column(name, justify="right")
    for row in _processes(status):
        is_worker = "images_saved" in row
        table.add_row(
            str(row.get("pid", "")),
            Text(str(row["state"]), style="green" if row["state"] == "busy" else ""),
            f"{row.get('cpu_percent', 0):.0f} %",
            size(row.get("own_bytes") or row.get("rss_bytes", 0)),
            str(row.get("threads", "")),
            str(row.get("open_files", "")),
            duration(float(row.get("uptime_s", 0))),
            str(row.get("images_saved", "")) if is_worker else "",
            f"{row.get('mb_per_s', 0):.1f}" if is_worker else "",
        )
    return table


def _figures(status: Mapping[str, Any]) -> Table:
    queue, arena, totals = status["queue"], status["arena"], status["totals"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "queue",
        f"{counted(queue['jobs'], 'job')}, {counted(queue['images'], 'image')}, {size(queue['bytes'])}",
    )
    used, reserved, most = (size(arena[name]) for name in ("used_bytes", "reserved_bytes", "bytes"))
    table.add_row("arena", f"{used} used, {reserved} reserved and warm, at most {most}")
    failed = Text(f"{totals['images_failed']} failed", style="red" if totals["images_failed"] else "")
    saved = f"{totals['images_saved']} saved ({size(totals['bytes_written'])}), "
    table.add_row("images", Text.assemble(saved, f"{totals['images_discarded']} discarded, ", failed))
    spooled = status.get("upload_spool", {}).get("used_bytes", 0)
    if spooled:
        table.add_row("spool", f"{size(spooled)} encoded, on the way to destinations")
    if status.get("encoders"):
        table.add_row("encoders", ", ".join(f"{name}: {how}" for name, how in status["encoders"].items()))
    return table


def _trends(trend: Trend) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(min_width=_KEPT, no_wrap=True, style="cyan")
    table.add_column(justify="right")
    table.add_row("images/s", sparkline(trend.images_per_s), f"{_last(trend.images_per_s):.1f}")
    table.add_row("written", sparkline(trend.bytes_per_s), f"{size(_last(trend.bytes_per_s))}/s")
    table.add_row("queued", sparkline(trend.queued), f"{_last(trend.queued):.0f}")
    table.add_row("CPU", sparkline(trend.cpu_percent), f"{_last(trend.cpu_percent):.0f} %")
    return table


def _last(values: deque[float]) -> float:
    return values[-1] if values else 0.0


def _folder_table(folders: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("folder", overflow="fold")
    table.add_column("free", justify="right")
    table.add_column("state")
    for folder in folders:
        total = folder.get("total_bytes", 0)
        free = f"{size(folder['free_bytes'])} of {size(total)}" if total else "?"
        state, error = str(folder.get("state", "ok")), str(folder.get("error", ""))
        text = (
            f"{state} for {duration(float(folder.get('since_s', 0)))}: {error}"
            if state != "ok"
            else error or state
        )
        table.add_row(str(folder["path"]), free, Text(text, style="red" if state != "ok" else ""))
    return table


def _node_table(engines: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]]) -> Group:
    """Who encodes where, and an engine that has no workers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("node", overflow="fold")
    table.add_column("engine")
    for name in ("workers", "busy", "images", "MB/s", "encode", "transfer"):
        table.add_column(name, justify="right")
    for row in nodes:
        ms = (f"{row['encode_ms']:.1f} ms", f"{row['transfer_ms']:.1f} ms" if row["node"] else "")
        counts = (str(row[name]) for name in ("workers", "busy", "images"))
        table.add_row(row["node"] or "this machine", row["engine"], *counts, f"{row['mb_per_s']:.1f}", *ms)
    failing = [row for row in engines if row["state"] != "ok"]
    lines = [
        Text(f"engine {e['engine']} fails for {duration(float(e['since_s']))}: {e['error']}", style="red")
        for e in failing
    ]
    return Group(table, *lines)


def _destination_table(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Destinations, and below them what is wrong: its sentences are too long for a column."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("destination", overflow="fold")
    table.add_column("uploads", justify="right")
    table.add_column("state")
    lines = []
    for row in rows:
        state = Text("ok")
        if row.get("state") == "failing":
            state = Text(f"failing for {duration(float(row.get('since_s', 0)))}", style="red")
            lines.append(Text(str(row.get("error", "")), style="red"))
        uploads = f"{row.get('uploading', 0)} of {row.get('uploading', 0) + row.get('waiting', 0)}"
        table.add_row(str(row["destination"]), uploads, state)
    return Group(table, *lines)


def _dead_letters(letters: Iterable[Mapping[str, Any]], named: Named) -> Group:
    rows = list(letters)
    found = "1 dead letter" if len(rows) == 1 else f"{len(rows)} dead letters"
    lines = [Text(f"{found} {named('(luna-farm retry ID tries again, dismiss ID gives up):')}", style="red")]
    lines += [
        Text(f"  {row['job_id']}  {row.get('path', '')}: {row.get('error', '')}") for row in rows[:_LISTED]
    ]
    if len(rows) > _LISTED:
        lines.append(Text(f"  and {len(rows) - _LISTED} more"))
    return Group(*lines)


def _incomplete_jobs(rows: Sequence[Mapping[str, Any]], named: Named) -> Group:
    head = f"{counted(len(rows), 'job')} without all images (luna-farm dismiss ID removes it from this list):"
    lines = [Text(named(head), style="red")]
    for row in rows[-_LISTED:]:
        share = f"{row['images']} of {counted(row['num_images'], 'image')}"
        lines.append(Text(f"  {row['job_id']}  {share} not saved, such as {row['path']}: {row['error']}"))
    if len(rows) > _LISTED:
        lines.append(Text(f"  and {len(rows) - _LISTED} more"))
    return Group(*lines)
