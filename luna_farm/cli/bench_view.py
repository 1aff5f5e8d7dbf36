"""The result of `luna-farm bench` as tables: a pure function of the dict that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from luna_farm.cli.terminal import size


def bench_view(result: Mapping[str, Any]) -> RenderableType:
    """Return everything, for a terminal of 80 columns."""
    machine, images = result["environment"], result["images"]
    used = f"Python {machine['python']}, Luna Farm {machine['luna_farm']}"
    opened, ready = result["port_open_s"], result["workers_ready_s"]
    lines = [
        f"{machine['machine']}, {machine['cpus']} CPUs, {used}",
        f"PNG by the {machine['png']}; Pillow {machine['pillow']} on {machine['pillow_zlib']}",
        f"Images: {images['source']}: {', '.join(images['names'])}",
        f"Port open after {opened:.2f} s, {result['workers']} workers ready after {ready:.2f} s",
    ]
    parts: list[RenderableType] = [Text(line, style="dim") for line in lines]
    parts += [
        Text(),
        _handover(result["handover"]),
        Text(),
        _throughput(result["throughput"], result["workers"]),
    ]
    small = result["small"]
    text = f"{small['images']} images of 64x64, a job each: {small['images_per_s']:.0f} images/s, "
    parts.append(Text(f"{text}supervisor {small['supervisor_cpu_ms_per_image']:.2f} ms of CPU an image"))
    parts += [Text(), Text(_undisturbed(result["undisturbed"]))]
    for name, rows in result["encoders"].items():
        parts += [Text(), _encoders(name, rows)]
    parts += [Text(), _memory(result["memory"])]
    return Group(*parts)


def table(title: str, columns: Sequence[str], left: int) -> Table:
    """Return an empty table in the look of all of them; the first `left` columns are text."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for number, name in enumerate(columns):
        made.add_column(name, justify="left" if number < left else "right")
    return made


def _handover(rows: Sequence[Mapping[str, Any]]) -> Table:
    title = (
        "Hand-over (submit to receipt, idle farm), beside its floor (the same bytes\n"
        "copied, a message to another process and back) and beside saving in the\n"
        "caller with Pillow level 4"
    )
    columns = ("images", "type", "p50 ms", "p99 ms", "floor p50", "times", "caller ms", "times less")
    shown = table(title, columns, 2)
    for row in rows:
        shown.add_row(
            row["images"],
            row["dtype"],
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['floor_p50_ms']:.2f}",
            f"{row['times_floor']:.1f}x",
            f"{row['in_the_caller_ms']:.0f}",
            f"{row['times_less']:.0f}x",
        )
    return shown


def _undisturbed(figures: Mapping[str, Any]) -> str:
    workers = "1 worker saves" if figures["workers"] == 1 else f"{figures['workers']} workers save"
    return (
        f"A loop of pure Python in the client keeps {figures['share']:.0%} of its speed while\n"
        f"{workers} {figures['saved_per_s']:.0f} images/s, on {figures['cpus']} CPUs\n"
        f"({figures['images']} images handed over before, level 4; {figures['rounds']} times in turns "
        f"with an\nidle farm; the loop had a processor {figures['beside_running']:.0%} of the time, beside "
        f"the idle farm {figures['alone_running']:.0%})"
    )


def _throughput(rows: Sequence[Mapping[str, Any]], workers: int) -> Table:
    title = (
        f"Throughput (submit to saved and synced) against Pillow level 4 in {workers} threads (not synced)"
    )
    columns = (
        "images",
        "level",
        "images/s",
        "Pillow/s",
        "times",
        "size",
        "submit p50",
        "p99 ms under load",
    )
    shown = table(title, columns, 1)
    for row in rows:
        shown.add_row(
            row["images"],
            str(row["level"]),
            f"{row['images_per_s']:.0f}",
            f"{row['pillow_images_per_s']:.1f}",
            f"{row['times_pillow']:.1f}x",
            f"{row['size_to_pillow']:.3f}",
            f"{row['submit_p50_ms']:.2f}",
            f"{row['submit_p99_ms']:.2f}",
        )
    return shown


def _encoders(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("level", "ms", "Pillow ms", "times", "size", "to Pillow 4: times", "size")
    shown = table(f"PNG encoder, one thread, {name} images", columns, 0)
    for row in rows:
        shown.add_row(
            str(row["level"]),
            f"{row['ms']:.1f}",
            f"{row['pillow_ms']:.0f}",
            f"{row['times_pillow_same_level']:.1f}x",
            f"{row['size_to_pillow_same_level']:.3f}",
            f"{row['times_pillow_4']:.1f}x",
            f"{row['size_to_pillow_4']:.3f}",
        )
    return shown


def _memory(memory: Mapping[str, Any]) -> Table:
    shown = table("Memory after the run", ("process", "RSS", "without the shared arena"), 1)
    rows = [("supervisor", memory["supervisor"]), *(("worker", worker) for worker in memory["workers"])]
    for name, row in rows:
        shown.add_row(name, size(row["rss_bytes"]), size(row["own_bytes"]))
    return shown
