#!/usr/bin/env python3
"""Runs the C test of the PNG kernel in every form that can be built and run here.

    python scripts/kernel_forms.py             every form, some minutes
    python scripts/kernel_forms.py --short     the forms of this machine under sanitizers, some seconds

A form is a compiler, a processor and a set of instructions. Those of this machine run under AddressSanitizer
and UBSan. Windows, macOS, ARM and others are built by `zig cc` (pip install ziglang) and run under Wine or
qemu (apt-get install wine qemu-user-static). Each form gets a line: passed, FAILED, BUILT (there is nothing
here that runs it) or NOT RUN with what is missing. Exits with 1 if a form failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "tests" / "kernel" / "kernel_test.c"
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SHORT_ROUNDS, LONG_ROUNDS, EMULATED_ROUNDS = 6, 48, 12
LIMIT_S = 500
# What each set of instructions is built with: all from one source.
INSTRUCTIONS = {
    "plain C": ["-DLUNA_PORTABLE"],
    "SSE2": ["-DLUNA_MOST_ISA=ISA_BASE"],
    "AVX2": ["-DLUNA_MOST_ISA=ISA_AVX2"],
    "the best here": [],
    "the best by CPUID, as with MSVC": ["-DLUNA_CPUID"],
}
# zig's name of the target, what runs it ("" for the machine itself), and further flags.
TARGETS: tuple[tuple[str, str | None, list[str]], ...] = (
    ("x86_64-windows-gnu", "wine", []),
    ("x86_64-macos", None, []),
    ("aarch64-macos", None, []),
    ("aarch64-linux-musl", "qemu-aarch64-static", []),
    ("arm-linux-musleabihf", "qemu-arm-static", []),
    ("x86-linux-musl", "qemu-i386-static", []),
    ("s390x-linux-musl", "qemu-s390x-static", []),
    ("powerpc64le-linux-musl", "qemu-ppc64le-static", []),
    ("riscv64-linux-musl", "qemu-riscv64-static", []),
)


@dataclass(frozen=True)
class Form:
    """How to build a form (None: what is missing stands in `lacks`) and how to run it."""

    name: str
    build: list[str] | None
    run: list[str] | None
    rounds: int
    lacks: str = ""


def main() -> int:
    """Build and run all forms, print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    forms = list(native(SHORT_ROUNDS if arguments.short else LONG_ROUNDS))
    if not arguments.short:
        forms += emulated()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        failed = False
        for line in pool.map(lambda form: attempt(form, Path(folder)), forms):
            print(line, flush=True)
            failed = failed or line.startswith("FAILED")
    return int(failed)


def native(rounds: int) -> Iterator[Form]:
    """The forms of this machine, by its own compiler."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    x86 = platform.machine() in ("x86_64", "AMD64")
    for name, flags in INSTRUCTIONS.items():
        title = f"{platform.machine()} {sys.platform}, {name}, sanitizers"
        if compiler is None or not sys.platform.startswith("linux"):
            yield Form(title, None, None, 0, "gcc or clang on Linux")
        elif x86 or name == "plain C":
            yield Form(title, [compiler, "-std=gnu11", *SANITIZE, *flags], [], rounds)


def emulated() -> Iterator[Form]:
    """The forms of other systems and processors, by zig."""
    zig = importlib.util.find_spec("ziglang") is not None
    for target, runner, flags in TARGETS:
        if not zig:
            yield Form(target, None, None, 0, "zig (pip install ziglang)")
            continue
        build = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O2", *flags]
        found = shutil.which(runner) if runner else None
        lacks = f"built; nothing here runs it{f' ({runner} is missing)' if runner else ''}"
        yield Form(target, build, [found] if found else None, EMULATED_ROUNDS, lacks)


def attempt(form: Form, folder: Path) -> str:
    """Build and run one form. Returns its line."""
    if form.build is None:
        return f"NOT RUN  {form.name}: {form.lacks}"
    program = folder / ("".join(c if c.isalnum() else "_" for c in form.name) + ".exe")
    built = subprocess.run([*form.build, str(SOURCE), "-o", str(program)], capture_output=True, text=True)
    if built.returncode:
        return f"FAILED   {form.name}: does not compile\n{built.stderr[-2000:]}"
    if form.run is None:
        return f"BUILT    {form.name}: {form.lacks}"
    command = [*form.run, str(program), str(form.rounds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"FAILED   {form.name}: not done after {LIMIT_S} s"
    said = (done.stdout + done.stderr[-2000:] * (done.returncode != 0)).strip()
    return f"{'FAILED  ' if done.returncode else 'passed  '} {form.name}: {said}"


if __name__ == "__main__":
    sys.exit(main())
