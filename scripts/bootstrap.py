"""The environment that demo and test run in: one `.venv` in the checkout, made and kept up to date by itself.

Plain Python, standard library only: this is what runs before anything is installed. It must never write
outside the checkout (pip's own cache aside) and never install into the Python that started it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "luna-farm.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# On Python 3.11 this exact release is what the tests were run with; without a pin pip may choose one that was
# not built for the processor alone, and fetch gigabytes of GPU libraries that no test uses. Elsewhere: the
# latest.
TORCH = "torch==2.13.0" if sys.version_info[:2] == (3, 11) else "torch"


class StepFailed(Exception):
    """A command ended with another exit code than 0; `output` is what it wrote."""

    def __init__(self, title: str, code: int, output: str) -> None:
        super().__init__(f"{title} failed with exit code {code}")
        self.code = code
        self.output = output


class Steps:
    """Shows what is being done: a line that lives on a terminal, one plain line per step elsewhere."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def run(
        self,
        title: str,
        command: list[str | Path],
        *,
        environ: dict[str, str] | None = None,
        show: bool = False,
        cwd: Path = ROOT,
    ) -> str:
        """Run `command` and return its output (both streams); with `show` it goes straight to the terminal.

        Raises StepFailed if the exit code is not 0.
        """
        self.done += 1
        started = time.monotonic()
        label = f"[{self.done}/{self.total}] {title}"
        if show or not self.live:
            print(f"{label} ...", flush=True)
        stream = None if show else subprocess.PIPE
        with subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(environ or {})},
            stdout=stream,
            stderr=None if show else subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            output = self._follow(process, label, started) if process.stdout else ""
            code = process.wait()
        took = f"{time.monotonic() - started:.1f} s"
        if self.live and not show:
            print("\r\033[K", end="")
        print(f"{label}: {'done' if code == 0 else 'FAILED'} in {took}", flush=True)
        if code != 0:
            raise StepFailed(title, code, output)
        return output

    def _follow(self, process: subprocess.Popen[str], label: str, started: float) -> str:
        """Collect the output; on a terminal keep one line moving, with the time and the last line."""
        assert process.stdout is not None
        last: deque[str] = deque([""], maxlen=1)
        ended = threading.Event()

        def paint() -> None:
            while not ended.wait(0.1):
                width = shutil.get_terminal_size().columns - 1
                text = f"{label}  {time.monotonic() - started:.0f} s  {last[0].strip()}"
                print(f"\r\033[K{text[:width]}", end="", flush=True)

        painter = threading.Thread(target=paint, daemon=True)
        if self.live:
            painter.start()
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if line.strip():
                    last.append(line)
        finally:
            ended.set()
            if self.live:
                painter.join()
        return "".join(lines)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def wanted_state(extras: str, packages: list[str]) -> dict[str, str]:
    """Return what the environment must be made from: interpreter, requirements, compiled sources."""
    requirements = [
        (ROOT / name).read_bytes() for name in ("setup.cfg", "pyproject.toml") if (ROOT / name).exists()
    ]
    sources = sorted([*ROOT.glob("luna_farm/**/*.[ch]"), ROOT / "setup.py"])
    return {
        "python": sys.version,
        "root": str(ROOT),
        "requirements": _digest(*requirements),
        "sources": _digest(*(source.read_bytes() for source in sources if source.exists())),
        "installed": ",".join([extras, *packages]),
    }


def stamped() -> dict[str, str]:
    """Return what the present environment was made from; empty if there is none."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def prepare(extras: str, packages: list[str]) -> None:
    """Make `.venv` hold the project (editable) with `extras` and `packages`; quick if it already does.

    An environment that test made serves demo as well: its extras include those of demo.
    Raises StepFailed, or SystemExit with a sentence if this Python cannot make environments.
    """
    wanted, have = wanted_state(extras, packages), stamped()
    if have.get("installed", "").startswith("dev") and extras == "demo":
        wanted["installed"] = have["installed"]
    if have == wanted and PYTHON.exists():
        return
    same_base = all(have.get(key) == wanted[key] for key in ("python", "root")) and PYTHON.exists()
    only_sources = same_base and all(have.get(key) == wanted[key] for key in ("requirements", "installed"))
    if VENV.exists() and not STAMP.exists():
        sys.exit(f"{VENV} is there, and this command did not make it. Move it away, or remove it.")
    _claim()  # an empty stamp: a broken attempt is repeated in full
    # The kernel is optional: one that does not compile any more must not hide behind its predecessor.
    for built in ROOT.glob(f"luna_farm/**/*{sysconfig.get_config_var('EXT_SUFFIX')}"):
        built.unlink()
    pip: list[str | Path] = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]
    project = ["--no-build-isolation", "--editable"]
    if only_sources:
        print("The compiled sources changed: building them anew.", flush=True)
        Steps(1).run("build", [*pip, "--no-deps", *project, "."])
    else:
        print(
            f"Setting up {VENV.relative_to(Path.cwd()) if VENV.is_relative_to(Path.cwd()) else VENV}", end=" "
        )
        print("(once; it takes a minute or two, depending on the network).", flush=True)
        steps = Steps(2 if same_base else 3)
        if not same_base:
            _make_venv(steps)
        steps.run("build tools", [*pip, "setuptools>=77", "wheel"])
        steps.run("Luna Farm and what it needs", [*pip, *project, f".[{extras}]", *packages])
    STAMP.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def _claim() -> None:
    """Mark the environment as one that this module made: only such a one is ever replaced."""
    VENV.mkdir(exist_ok=True)
    STAMP.write_text("{}", encoding="utf-8")


def _make_venv(steps: Steps) -> None:
    """Make an empty environment, also where a distribution keeps ensurepip in a package of its own."""
    shutil.rmtree(VENV, ignore_errors=True)
    _claim()
    try:
        steps.run("virtual environment", [sys.executable, "-m", "venv", VENV])
    except StepFailed as failed:
        shutil.rmtree(VENV, ignore_errors=True)
        _claim()
        bare = subprocess.run([sys.executable, "-m", "venv", "--without-pip", VENV], capture_output=True)
        own = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "pip"]
        if bare.returncode or subprocess.run(own, capture_output=True).returncode:
            print(failed.output, file=sys.stderr)
            sys.exit(
                f"{sys.executable} cannot make virtual environments. Debian and Ubuntu keep that part in a "
                "package of its own: sudo apt install python3-venv"
            )


def check_python() -> None:
    """Refuse a Python that is too old, with a sentence instead of a syntax error later."""
    if sys.version_info < (3, 10):  # noqa: UP036  this runs on whatever python3 is
        sys.exit(
            f"Luna Farm needs Python 3.10 or newer; this is {sys.version.split()[0]} ({sys.executable})."
        )
