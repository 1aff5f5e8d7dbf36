"""The catalogue: what it costs a farm, how fast it finds in a million rows, how fast it is made again.

    python3 scripts/bench catalogue [--rows 1000000] [--files 10000] [--pairs 15] [--only PART] [--page PAGE]

`cost`: two farms that differ in nothing but the setting `catalogue`, in turns: hand-over and images a second;
and what a row costs the supervisor. `scores`: the scores of an image beside its PNG encoder.
`find`: generated rows, each with a prompt of its own of about 220 characters; searches for words as frequent
as words of prompts are. `rebuild`: generated PNG files as this farm, ComfyUI and A1111 write them. Times of
`find` and `rebuild` are processor time of this process, which other programs do not change; wall time stands
beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bench.catalogue_samples import Writer, a1111_texts, chunk, graph_texts, own_texts, sample_rows

from luna_farm.catalogue import images as rows_of
from luna_farm.catalogue import rebuild
from luna_farm.catalogue.rows import FIELDS, NAME, CatalogueRow
from luna_farm.catalogue.search import Catalogue as Reader
from luna_farm.catalogue.store import Store
from luna_farm.cli import images, trial_farm
from luna_farm.core import frames
from luna_farm.core.instructions import Catalogue
from luna_farm.core.messages import ImageResult
from luna_farm.imaging import quality, scores
from luna_farm.png import encode
from luna_farm.supervisor import catalogue_writer
from luna_farm_client import SaveImage, SaveRequest

PARTS = ("cost", "scores", "find", "rebuild")
SEARCHES = 300
Rows = list[tuple[str, str]]
_MARK = "<!-- figures: {}, made by scripts/bench catalogue -->"


def main() -> int:
    """Measure, print, and with --page write the figures into a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given again")
    parser.add_argument("--page", type=Path, help="page whose figures are replaced")
    args = parser.parse_args()
    shown: list[str] = []
    with tempfile.TemporaryDirectory(prefix="luna-catalogue-") as folder:
        measured: dict[str, Callable[[], Rows]] = {
            "cost": partial(cost, Path(folder), args.pairs),
            "scores": scores_cost,
            "find": partial(find, Path(folder), args.rows),
            "rebuild": partial(rebuild_speed, Path(folder), args.files),
        }
        for part in args.only or PARTS:
            rows = measured[part]()
            lines = [
                "| what | figure |",
                "| --- | --- |",
                *(f"| {what} | {figure} |" for what, figure in rows),
            ]
            print("\n".join(lines), flush=True)
            shown += [*lines, ""]
    if args.page:
        write(args.page, "\n".join(shown).strip())
    return 0


# --- what it costs a farm


def cost(folder: Path, pairs: int) -> Rows:
    """Two farms in turns, one with a catalogue and one without, and what a row costs the supervisor."""
    pixels = images.load([], 1024).pixels
    found: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        farms = {}
        for name in ("on", "off"):
            (folder / name).mkdir()
            setting = ("--catalogue", "true" if name == "on" else "false")
            farms[name] = stack.enter_context(trial_farm.own_farm(folder / name, 2, *setting))[1]
            trial_farm.wait_ready(farms[name], 2, 0.0)
            found[name] = {"hand-over": [], "images": []}
        for what, count, work in (("hand-over", pairs * 20, _handover), ("images", pairs, _burst)):
            for pair in range(count + 2):
                for name in ("on", "off") if pair % 2 else ("off", "on"):
                    took = work(farms[name], folder / name / "out", pixels, pair)
                    if pair >= 2:  # the first ones warm caches and start the cataloguer
                        found[name][what].append(took)
    ratio = {
        what: statistics.median(a / b for a, b in zip(found["on"][what], found["off"][what], strict=True))
        for what in ("hand-over", "images")
    }
    return [
        ("hand-over of a 1024x1024 image, on / off", f"{ratio['hand-over']:.3f} ({pairs * 20} pairs)"),
        ("time for 100 images of 1024x1024, on / off", f"{ratio['images']:.3f} ({pairs} pairs)"),
        ("work of the supervisor for a row", f"{_row_work_ms():.4f} ms of processor time"),
    ]


def _request(out: Path, pixels: Any, number: int) -> SaveRequest:
    known = {"positive": "a lighthouse on a cliff, golden hour, film grain", "seed": number, "steps": 20}
    return SaveRequest([SaveImage(pixels[number % len(pixels)])], output_dir=out, metadata=known)


def _handover(farm: Any, out: Path, pixels: Any, number: int) -> float:
    request = _request(out, pixels, number)
    started = time.perf_counter()
    receipt = farm.submit(request)
    took = time.perf_counter() - started
    farm.wait(receipt)
    return took


def _burst(farm: Any, out: Path, pixels: Any, number: int) -> float:
    started = time.perf_counter()
    receipts = [farm.submit(_request(out, pixels, number + n)) for n in range(100)]
    for receipt in receipts:
        farm.wait(receipt)
    return time.perf_counter() - started


class _Unstarted:
    """In the place of the cataloguer: messages are encoded and go nowhere."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def send(self, message: dict[str, Any]) -> None:
        frames.encode(message)

    def flush(self) -> None:
        pass


def _row_work_ms() -> float:
    """Milliseconds of processor time that the row of an image adds to the supervisor: it comes in a result,
    is taken off, and goes into a batch of 25."""
    row = next(sample_rows(Writer(), 1))
    plain = ImageResult(
        "saved", path=row.path, bytes=row.bytes, ms={"gate": 0.1, "encode": 2.0, "write": 2.0}
    )
    results = (replace(plain, row=rows_of.pack(row.to_map())), plain)

    def handle(result: ImageResult) -> float:
        frame = frames.encode({"t": "result", "job_id": "a1b2c3d4", "index": 0, "result": result.to_map()})
        writer = catalogue_writer.CatalogueWriter("", (), 0, list, print)
        arrived = frames.FrameBuffer()
        started = time.process_time()
        for number in range(5000):
            arrived.feed(frame)
            message = arrived.next()
            assert message is not None
            found = ImageResult.from_map(message["result"])
            if found.row:
                replace(found, row=b"")
                writer.add(Catalogue(found.row))
            if number % 25 == 24:
                writer.flush()
                writer._unconfirmed.clear()
        return (time.process_time() - started) / 5000 * 1e3

    with mock.patch.object(catalogue_writer, "Child", _Unstarted):
        took = [tuple(handle(result) for result in results) for _ in range(9)]
    return min(on for on, _ in took) - min(off for _, off in took)


def scores_cost() -> Rows:
    """The scores of an image beside its encoder, one thread."""
    rows: Rows = []
    for noisy, name in ((False, "clean"), (True, "noisy")):
        pictures = [images.noisy(image) if noisy else image for image in images.load([], 1024).pixels]
        own = statistics.median(_least(partial(scores.measure, p)) for p in pictures)
        png = statistics.median(_least(partial(encode, p, level=4)) for p in pictures)
        gate = statistics.median(_least(partial(quality.judge, p, "both", 0.3)) for p in pictures)
        rows.append(
            (
                f"scores of a {name} 1024x1024x3 image",
                f"{own:.2f} ms; PNG level 4 of it {png:.1f} ms, the quality gate {gate:.1f} ms",
            )
        )
    return rows


def _least(work: Callable[[], Any], times: int = 9) -> float:
    """Milliseconds of processor time, the least of some runs."""
    best = float("inf")
    for _ in range(times):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best * 1e3


# --- how fast it finds


def find(folder: Path, count: int) -> Rows:
    """Fill a catalogue and search it."""
    path, writer = folder / NAME, Writer()
    started, store = time.process_time(), Store(path)
    batch: list[CatalogueRow] = []
    for row in sample_rows(writer, count):
        batch.append(row)
        if len(batch) == 1000:
            store.put(batch)
            batch = []
    store.put(batch)
    store.close()
    put_ms = (time.process_time() - started) * 1e3 / count
    catalogue = Reader(path)
    seeds = [row.seed for row in catalogue.search(limit=SEARCHES)]
    pick = writer.random
    searches: dict[str, list[Callable[[], object]]] = {
        **{
            f"find by {n} word{'s' * (n > 1)}": [
                partial(catalogue.search, " ".join(writer.pick(n))) for _ in range(SEARCHES)
            ]
            for n in (1, 2, 3)
        },
        "find by seed": [partial(catalogue.search, seed=seed) for seed in seeds],
        "find by model": [
            lambda: catalogue.search(model=f"model_{pick.randint(0, 40)}_") for _ in range(SEARCHES)
        ],
        "find blank images": [lambda: catalogue.search(score="blank") for _ in range(20)],
        "find near duplicates": [
            lambda: catalogue.search(similar=f"{pick.getrandbits(64):016x}") for _ in range(40)
        ],
        "find low contrast (reads all rows)": [
            lambda: catalogue.search(score="variance<0.00001") for _ in range(5)
        ],
    }
    size = path.stat().st_size
    rows: Rows = [
        ("rows", f"{count:,}, {size / count:.0f} bytes of the file each"),
        ("writing a row", f"{put_ms:.2f} ms of processor time, in batches"),
    ]
    for what, calls in searches.items():
        rows.append((what, _percentiles(calls)))
    catalogue.close()
    return rows


def _percentiles(calls: list[Callable[[], object]]) -> str:
    own, wall = [], []
    for call in calls:
        started, cpu = time.perf_counter(), time.process_time()
        call()
        own.append((time.process_time() - cpu) * 1e3)
        wall.append((time.perf_counter() - started) * 1e3)
    own.sort()
    wall.sort()
    at = min(len(own) - 1, int(len(own) * 0.95))
    return (
        f"median {statistics.median(own):.1f} ms, 95 % within {own[at]:.1f} ms of processor time "
        f"(wall: {statistics.median(wall):.1f} and {wall[at]:.1f} ms)"
    )


# --- how fast it is made again


def rebuild_speed(folder: Path, count: int) -> Rows:
    """Write PNG files and read them again."""
    writer, out = Writer(), folder / "files"
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    plain = encode(pixels)
    kinds = {"luna": own_texts, "comfyui": graph_texts, "a1111": a1111_texts}
    for kind in kinds:
        (out / kind).mkdir(parents=True)
    for n in range(count):
        kind = list(kinds)[n % len(kinds)]
        chunks = b"".join(chunk(key, text) for key, text in kinds[kind](writer).items())
        (out / kind / f"{n:06d}.png").write_bytes(plain[:33] + chunks + plain[33:])
    size = statistics.mean(path.stat().st_size for path in out.rglob("*.png"))
    store = Store(folder / "again.sqlite")
    wall, cpu = time.perf_counter(), time.process_time()
    done = rebuild.rebuild(store, [str(out)], FIELDS)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    catalogue = Reader(folder / "again.sqlite")
    without = [row.path for row in catalogue.search(limit=10_000) if not row.prompt or row.seed is None]
    assert done.images == count, "every file has a row"
    assert not without, "every row has its prompt and its seed"
    catalogue.close()
    store.close()
    made_by = "a third each of this farm, ComfyUI and A1111"
    return [
        (
            f"rebuild of {count:,} PNG files of {size / 1e3:.0f} kB, {made_by}",
            f"{count / cpu:,.0f} files a second of processor time, one thread (wall: {count / wall:,.0f})",
        )
    ]


# --- the page


def write(page: Path, tables: str) -> None:
    """Replace what stands between the marks of a page."""
    begin, end = _MARK.format("begin"), _MARK.format("end")
    machine = f"{measure_machine()}, Python {platform.python_version()}"
    text = page.read_text(encoding="utf-8")
    new = f"{begin}\nOn {machine}:\n\n{tables}\n{end}"
    page.write_text(
        re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: new, text, flags=re.DOTALL),
        encoding="utf-8",
    )


def measure_machine() -> str:
    """Return the processor and how many there are."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        name = found[1] if found else name
    return f"{os.cpu_count()} cores ({name})"
