#!/usr/bin/env python3
"""Run the unit tests and a whole farm on another processor or another Python: scripts/emulated.py ARCH

    python3 scripts/emulated.py arm64
    python3 scripts/emulated.py s390x tests/imaging      # a big-endian one, some tests only
    python3 scripts/emulated.py amd64 --suite trixie     # this processor, the Python of that Debian

For Debian with `apt install qemu-user-static gcc-aarch64-linux-gnu gcc-s390x-linux-gnu`. It takes Python and
what the farm needs from Debian's packages of that architecture and release into build/emulated/ (for this
processor modules come from PyPI, as users have them), compiles the kernel, and runs everything. Another
processor is emulated by qemu, which takes about twenty times as long as here; property tests take fewer
examples there. It must never install anything into this system.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITES = ("forky", "trixie")
"""Releases of Debian: forky has Python 3.14, trixie 3.13."""
MIRROR = "http://deb.debian.org/debian"
KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCHITECTURES = {
    "arm64": ("qemu-aarch64-static", "aarch64-linux-gnu"),
    "s390x": ("qemu-s390x-static", "s390x-linux-gnu"),
    "amd64": ("", "x86_64-linux-gnu"),
}
"""Debian's name -> the emulator ("": this processor), and the compiler's name."""
MODULES = [
    *("numpy", "pil", "psutil", "msgpack", "websockets", "rich", "platformdirs", "prometheus-client", "isal"),
    *("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "jsonschema", "packaging", "trustme"),
]
UNIT = [
    *(
        f"tests/{name}"
        for name in ("core", "imaging", "storage", "catalogue", "client", "supervisor", "worker")
    ),
    *("tests/nodes", "tests/testing"),
    *(str(file.relative_to(ROOT)) for file in sorted(ROOT.glob("tests/test_*.py"))),
]
PYPI = [
    *("numpy", "pillow", "psutil", "msgpack", "websockets", "rich", "platformdirs", "prometheus-client"),
    *("deflate", "isal", "zlib-ng", "simplejpeg", "imagecodecs", "av", "tifffile", "sd-parsers"),
    *("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "jsonschema", "packaging", "trustme"),
]
EXAMPLES = 10
PATIENCE_S = 1800.0
LINKS = {"luna_farm": "luna_farm", "luna_farm_client": "client", "luna_farm_nodes": "comfy_nodes"}

SITE = '''"""Loaded at the start of every emulated Python: programs that it starts are emulated, too."""
import os, sys
sys.executable = sys._base_executable = os.environ["LUNA_EMULATED_PYTHON"]
'''
CANNOT = {
    "test_memory_is_taken_as_it_is_needed_and_given_back": "takes MADV_REMOVE for a hint and does nothing",
    "test_a_process_too_starved_to_attach_does_not_destroy_the_segment": "does not limit memory (RLIMIT_AS)",
}
"""Tests of what the emulator does not do."""
PLUGIN = f'''"""Fewer examples of property tests, time to start, and none of what qemu does not do."""
import sys
import hypothesis
import pytest
CANNOT = {CANNOT!r}
def pytest_collection_modifyitems(items):
    waiting = sys.modules.get("farm_process")
    if waiting is not None:
        waiting.PATIENCE_S = {PATIENCE_S}
    for item in items:
        why = CANNOT.get(item.name.partition("[")[0])
        if why:
            item.add_marker(pytest.mark.skip(reason=f"NOT TESTED: qemu {{why}}"))
        test = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        given = getattr(test, "_hypothesis_internal_use_settings", None)
        if given is not None:
            few = hypothesis.settings(given, max_examples=min({EXAMPLES}, given.max_examples), deadline=None)
            test._hypothesis_internal_use_settings = few
'''
FARM = """
from luna_farm.cli import launch, trial_farm
launch.READY_WITHIN_S = trial_farm.READY_WITHIN_S = 900.0
import platform, runpy, sys
print(platform.machine(), sys.byteorder, "endian, Python", platform.python_version(), flush=True)
if __name__ == "__main__":
    sys.exit(runpy.run_path(sys.argv[1])["main"]())
"""


class Machine:
    """An emulated machine: its files, and how its Python is run."""

    def __init__(self, architecture: str, suite: str) -> None:
        self.architecture, self.suite = architecture, suite
        self.emulator, self.triplet = ARCHITECTURES[architecture]
        self.folder = ROOT / "build" / "emulated" / f"{architecture}-{suite}"
        self.root = self.folder / "root"
        self.python = self.folder / "python"

    def fill(self) -> None:
        """Fetch and unpack the packages, unless that was done."""
        if self.python.exists():
            return
        for name in ("state/lists/partial", "cache/archives/partial", "parts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        source = self.folder / "sources.list"
        source.write_text(f"deb [arch={self.architecture} signed-by={KEY}] {MIRROR} {self.suite} main\n")
        options = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::sourcelist": source,
            "Dir::Etc::sourceparts": self.folder / "parts",
            "Debug::NoLocking": "true",
        }
        apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        subprocess.run([*apt, "update"], check=True)
        modules = [f"python3-{name}" for name in MODULES] if self.emulator else ["python3"]
        subprocess.run([*apt, "-y", "--download-only", "install", "libpython3-dev", *modules], check=True)
        for package in sorted((self.folder / "cache" / "archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, self.root], check=True)
        self._finish()

    def _finish(self) -> None:
        for name in ("bin", "lib", "lib64", "sbin"):
            link = self.root / name
            if not link.exists():
                link.symlink_to(f"usr/{name}")
        libraries = self.root / "usr" / "lib" / self.triplet
        version = self.version()
        if self.emulator:
            for name in ("blas", "lapack"):  # what update-alternatives would link
                (libraries / f"lib{name}.so.3").unlink(missing_ok=True)
                (libraries / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
        else:
            self._install(version)
        site = self.root / "usr" / "lib" / f"python{version}" / "sitecustomize.py"
        site.unlink(missing_ok=True)
        site.write_text(SITE)
        (self.folder / "few_examples.py").write_text(PLUGIN)
        (self.folder / "whole_farm.py").write_text(FARM)
        names = self.folder / "names"
        names.mkdir(exist_ok=True)
        for name, folder in LINKS.items():
            (names / name).unlink(missing_ok=True)
            (names / name).symlink_to(ROOT / folder)
        inside = self.root / "usr" / "bin" / f"python{version}"
        loader = f"{self.root}/lib64/ld-linux-x86-64.so.2 --library-path {libraries}"
        runs = f"{self.emulator} -L {self.root}" if self.emulator else loader
        self.python.write_text(
            "#!/bin/sh\n"
            f"export LUNA_EMULATED_PYTHON={self.python} PYTHONHOME={self.root}/usr\n"
            f"export PYTHONPATH={names}:{self.folder}\n"
            f'exec {runs} {inside} "$@"\n'
        )
        self.python.chmod(0o755)

    def _install(self, version: str) -> None:
        """Install what farm and tests need from PyPI, as wheels for that Python."""
        where: list[str | Path] = [
            "--target",
            self.folder,
            "--python-version",
            version,
            "--only-binary=:all:",
            "--upgrade",
        ]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *where, *PYPI], check=True)

    def version(self) -> str:
        """Return the version of its Python, such as 3.14."""
        (found,) = {path.name for path in (self.root / "usr" / "include").glob("python3.*")}
        return found.removeprefix("python")

    def compile(self) -> None:
        """Compile the kernel beside its source; its name says for which Python it is."""
        version, imaging = self.version(), ROOT / "luna_farm" / "imaging"
        include = self.folder / "include"
        (include / self.triplet).mkdir(parents=True, exist_ok=True)
        headers = self.root / "usr" / "include"
        link = include / self.triplet / f"python{version}"
        if not link.exists():
            link.symlink_to(headers / self.triplet / f"python{version}")
        target = imaging / f"_png.cpython-{version.replace('.', '')}-{self.triplet}.so"
        command = [
            f"{self.triplet}-gcc",
            "-O3",
            "-std=c99",
            "-shared",
            "-fPIC",
            f"-I{headers / f'python{version}'}",
        ]
        subprocess.run([*command, f"-I{include}", imaging / "_png.c", "-o", target], check=True)

    def run(self, *arguments: str | Path) -> int:
        """Run its Python in the checkout. Returns the exit code."""
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        return subprocess.run([self.python, *arguments], cwd=ROOT, env=environ).returncode


def main() -> int:
    """Prepare and run. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the unit tests and a farm on an emulated processor.")
    parser.add_argument("architecture", choices=ARCHITECTURES)
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0], help="release of Debian")
    parser.add_argument("tests", nargs="*", default=UNIT, help="which tests (default: the unit tests)")
    given = parser.parse_intermixed_args()
    machine = Machine(given.architecture, given.suite)
    machine.fill()
    machine.compile()
    failed = machine.run(machine.folder / "whole_farm.py", ROOT / "scripts" / "smoke.py")
    quiet = ["-q", "-p", "no:cacheprovider", "--timeout=3600"]
    quiet += ["-p", "few_examples"] if machine.emulator else []
    return machine.run("-m", "pytest", *quiet, *given.tests) or failed


if __name__ == "__main__":
    sys.exit(main())
