"""The whole farm beside Pillow: `luna-farm bench` of this checkout.

    python3 scripts/bench farm [--page docs/benchmarks.md] [IMAGE ...]

Takes the arguments of `luna-farm bench`. `--page` writes the tables to a page, with the machine and the
command.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

HEAD = """# Measured

Made by `python3 scripts/bench farm{arguments}`; nothing here is typed in. Times drift from machine to machine
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
    """Measure, or measure and write the page. Returns the exit code of the measurement."""
    if "--page" in sys.argv:
        return write_page()
    return subprocess.run([sys.executable, "-m", "luna_farm", "bench", *sys.argv[1:]]).returncode


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
