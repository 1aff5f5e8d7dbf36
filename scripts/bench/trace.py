"""The steps of one hand-over in client and supervisor, with their times.

    python3 scripts/bench trace [--side 1024] [--type uint8 | float32] [--repeat 200]

Starts a farm in a temporary folder whose supervisor notes each step, hands images over while it is idle, and
prints the median time of each step since the call of `submit`. Noting costs both sides some microseconds a
step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

WARM_UP = 20
START_S = 60.0
PAUSE_S = 0.01
"""Between a job and the next, so that the farm is done with the one before."""
AFTER_S = 0.0005
"""What the supervisor does this long after the receipt is shown, too: the image is handed to a worker."""
Note = tuple[float, str, str]

notes: list[Note] = []


def note(who: str, what: str) -> None:
    """Note a step that has just been done."""
    notes.append((time.perf_counter(), who, what))


def noted(owner: Any, name: str, who: str, what: Callable[..., str]) -> None:
    """Have every call of `owner.name` noted when it is over; `what` words it, of its result and arguments."""
    real = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        result = real(*args, **options)
        note(who, what(result, *args))
        return result

    setattr(owner, name, call)


def farm(traced: Path, arguments: list[str]) -> int:
    """Run a farm whose supervisor notes what it does, and write its notes to `traced` in the end."""
    from luna_farm.cli import entry
    from luna_farm.core import frames
    from luna_farm.storage.journal import Journal
    from luna_farm.supervisor import connection, executor, supervisor

    who = "supervisor"
    noted(connection.ClientConnection, "get_buffer", who, lambda *_: "is awake and about to read")
    noted(frames, "decode", who, lambda message, *_: f"has read `{message.get('cmd', message.get('t'))}`")
    noted(supervisor, "handle", who, lambda _, __, event, *___: f"has decided on {type(event).__name__}")
    noted(Journal, "append", who, lambda *_: "has written the journal")

    def execute(self: executor.Executor, decided: Iterable[Any]) -> None:
        for instruction in decided:
            self._table[type(instruction)](instruction)
            note(who, f"has carried out {type(instruction).__name__}")

    executor.Executor.execute = execute  # type: ignore[method-assign]
    sys.argv = ["luna-farm", *arguments]
    try:
        return entry.main()
    finally:
        traced.write_text(json.dumps(notes))


def trace_client() -> None:
    """Have this process note what its clients do."""
    from luna_farm_client import connection, outgoing, session

    who = "client"
    noted(outgoing.Outgoing, "__post_init__", who, lambda *_: "has made the request")
    noted(connection.Connection, "_send", who, lambda _, __, step: f"has sent `{step.message['cmd']}`")
    noted(session.Session, "_copy", who, lambda *_: "has copied the pixels")
    noted(connection.Connection, "_receive", who, lambda *_: "has the answer")


def hand_over(pixels: Any, folder: Path, repeat: int) -> list[tuple[float, float]]:
    """Hand over `repeat` times; returns begin and end of each call of `submit`."""
    from luna_farm_client import FarmClient, SaveImage, SaveRequest

    spans = []
    with FarmClient() as client:
        for number in range(WARM_UP + repeat):
            request = SaveRequest([SaveImage(pixels)], output_dir=folder, filename="traced")
            time.sleep(PAUSE_S)
            begun = time.perf_counter()
            receipt = client.submit(request)
            if number >= WARM_UP:
                spans.append((begun, time.perf_counter()))
            client.wait(receipt.job_id)
    return spans


def steps(spans: list[tuple[float, float]], all_notes: list[Note]) -> list[tuple[float, str, str]]:
    """Return (median microseconds since `submit`, who, what) of every step that most hand-overs have."""
    found: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    for begun, ended in spans:
        nth: Counter[tuple[str, str]] = Counter()
        for at, who, what in all_notes:
            if begun <= at <= ended + (AFTER_S if who == "supervisor" else 0.0):
                nth[who, what] += 1
                found[who, what, nth[who, what]].append((at - begun) * 1e6)
    usual = [
        (median(times), who, what) for (who, what, _), times in found.items() if 2 * len(times) > len(spans)
    ]
    return sorted(usual)


def started(folder: Path, traced: Path) -> subprocess.Popen[bytes]:
    """Start the traced farm and return once it listens; the environment leads clients to it."""
    os.environ["LUNA_FARM_STATE_DIR"] = str(folder / "state")
    command = [
        sys.executable,
        str(Path(__file__).parent),
        "--here",
        "trace",
        "--farm",
        str(traced),
        "start",
        "--port",
        "0",
        "--feed-port",
        "off",
    ]
    with (folder / "farm.log").open("w") as log:
        process = subprocess.Popen([*command, "--output-dir", str(folder)], stdout=log, stderr=log)
    endpoint = folder / "state" / "endpoint.json"
    end = time.monotonic() + START_S
    while not endpoint.exists():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"The farm did not start:\n{(folder / 'farm.log').read_text()}")
        time.sleep(0.05)
    os.environ["LUNA_FARM_PORT"] = str(json.loads(endpoint.read_text())["port"])
    return process


def main() -> int:
    """Trace and print. Returns the exit code."""
    if sys.argv[1:2] == ["--farm"]:
        return farm(Path(sys.argv[2]), sys.argv[3:])
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=1024, help="of the image in pixels (default: 1024)")
    parser.add_argument("--type", choices=("uint8", "float32"), default="uint8", help="(default: uint8)")
    parser.add_argument("--repeat", type=int, default=200, help="hand-overs (default: 200)")
    args = parser.parse_args()
    import numpy as np

    noise = np.random.default_rng(1).random((args.side, args.side, 3), np.float32)
    pixels = noise if args.type == "float32" else (noise * 255).astype(np.uint8)
    with tempfile.TemporaryDirectory(prefix="luna-trace-") as name:
        folder = Path(name)
        process = started(folder, folder / "notes.json")
        try:
            trace_client()
            spans = hand_over(pixels, folder / "out", args.repeat)
        finally:
            process.terminate()
            process.wait()
        theirs = [tuple(each) for each in json.loads((folder / "notes.json").read_text())]
    print(f"{args.side}x{args.side}x3 {args.type}, microseconds since `submit`, medians of {args.repeat}")
    for at, who, what in steps(spans, sorted([*theirs, *notes])):
        print(f"{at:8.0f}  {'' if who == 'client' else '    '}{who} {what}")
    print(f"{median(end - begin for begin, end in spans) * 1e6:8.0f}  `submit` returns")
    return 0
