#!/usr/bin/env python3
"""`luna-farm bench` of this checkout, without installing anything first: python3 scripts/bench.py [FILE ...]

Takes the same arguments, and --page FILE: writes the tables to a page such as docs/benchmarks.md, with the
machine and the command. It must never measure anything but what lies in the checkout.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import bootstrap

HEAD = """# Measured

Made by `python3 scripts/bench.py{arguments}`; nothing here is typed in. Times drift from machine to machine
and from day to day, so read the ratios: both sides of each were taken in this one run, in turns.

```
{tables}
```

**The floor** is the least that any program does to give images to another process: the same bytes copied
into shared memory (float32 quantised there by our kernel), one message of 600 bytes over loopback to another
Python process, and its answer, through plain blocking sockets. It is taken in turns with our hand-overs, so
that both find the same cold caches and sleeping processors; what a hand-over takes beyond it is ours.

**The loop** holds the interpreter of the client's process all the time. The images are handed over before,
and the farm has one worker less than processors. Above 100 % a processor changed its speed in between.

More: [Pillow on zlib-ng](baselines.md), [more workers, and a GPU](scaling.md), [PNG encoders](png.md).
"""


def main() -> int:
    """Prepare the environment, then measure in it. Returns the exit code of the measurement."""
    bootstrap.check_python()
    try:
        bootstrap.prepare("demo", [])
    except bootstrap.StepFailed as error:
        print(f"{error.output}\n{error}", file=sys.stderr)
        return 1
    if "--page" not in sys.argv:
        return subprocess.run([bootstrap.PYTHON, "-m", "luna_farm", "bench", *sys.argv[1:]]).returncode
    if Path(sys.prefix).resolve() != bootstrap.VENV.resolve():
        return subprocess.run([bootstrap.PYTHON, __file__, *sys.argv[1:]]).returncode
    return write_page()


def write_page() -> int:
    """Measure, and write the page."""
    from rich.console import Console

    from luna_farm.cli.bench_view import bench_view

    arguments = sys.argv[1:]
    at = arguments.index("--page")
    page, rest = Path(arguments[at + 1]), arguments[:at] + arguments[at + 2 :]
    command = [sys.executable, "-m", "luna_farm", "bench", "--json", *rest]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        return done.returncode
    out = io.StringIO()
    Console(file=out, width=110, markup=False, highlight=False).print(bench_view(json.loads(done.stdout)))
    tables = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    named = "".join(f" {Path(part).name}" for part in rest)
    page.write_text(HEAD.format(arguments=named, tables=tables), encoding="utf-8")
    print(f"Written to {page}.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
