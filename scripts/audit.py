#!/usr/bin/env python3
"""What the farm is made of, and what is known against it: a bill of materials and an audit of dependencies.

    python3 scripts/audit.py                writes build/sbom.json (CycloneDX) and audits what is installed
    python3 scripts/audit.py --output FILE

Uses pip-audit and cyclonedx-bom (`pip install pip-audit cyclonedx-bom`), and does what needs no network: is
every file of the runtime dependencies the one that its distribution lists (RECORD), do they fit together,
what are their licences. What could not be done is said loudly, in lines with "did not run". Exits with 1 for
a known vulnerability, a changed file or dependencies that do not fit. It must never report as checked what no
service answered for.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata as metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "luna-farm"
ASK_S = 300
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def main() -> int:
    """Do everything, whatever the step before said."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "sbom.json")
    output: Path = parser.parse_args().output
    installed = {_key(name): name for name in runtime()}
    print(f"{len(installed)} distributions at run time: {', '.join(sorted(installed))}")
    found = [*changed_files(installed), *misfits(), *vulnerabilities(installed)]
    licences(installed)
    bill_of_materials(output)
    for line in found:
        print(f"FOUND: {line}")
    return 1 if found else 0


def runtime() -> list[str]:
    """Return what is installed of the runtime dependencies of setup.cfg, with what those need."""
    names: list[str] = []
    wanted = _listed()
    while wanted:
        name = wanted.pop()
        if _key(name) in map(_key, names):
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform or Python version
        names.append(name)
        wanted += [
            found[0] for need in needs if "extra ==" not in need and (found := _REQUIREMENT.match(need))
        ]
    return names


def _listed() -> list[str]:
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].split("\n")
    return [found[0] for line in lines if (found := _REQUIREMENT.match(line))]


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def changed_files(installed: dict[str, str]) -> Iterator[str]:
    """Compare every file of the runtime dependencies with the hash that its distribution lists."""
    count = 0
    for name in installed.values():
        for file in metadata.files(name) or []:
            if file.hash is None or file.hash.mode not in hashlib.algorithms_guaranteed:
                continue
            try:
                digest = hashlib.new(file.hash.mode, Path(str(file.locate())).read_bytes()).digest()
            except OSError:
                yield f"{name}: {file} is missing"
                continue
            count += 1
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                yield f"{name}: {file} is not the file that was installed"
    print(f"{count} installed files compared with the hashes of their distributions")


def misfits() -> Iterator[str]:
    """Ask pip whether the versions fit together."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        print("Whether the versions fit together did not run: there is no pip in this environment.")
    elif done.returncode:
        names = "|".join(map(re.escape, _listed()))
        yield from (line for line in done.stdout.splitlines() if re.match(rf"({names})\b", line))


def vulnerabilities(installed: dict[str, str]) -> Iterator[str]:
    """Ask the vulnerability service of PyPI, by pip-audit, about everything that is installed."""
    if importlib.util.find_spec("pip_audit") is None:
        print("The audit for known vulnerabilities did not run: pip install pip-audit")
        return
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
        answered: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("The audit for known vulnerabilities did not run: the vulnerability service cannot be reached.")
        return
    ours = [entry for entry in answered if _key(entry["name"]) in installed]
    unknown = [entry["name"] for entry in ours if "skip_reason" in entry]
    print(f"{len(ours) - len(unknown)} of {len(installed)} distributions were looked up at the service")
    silent = len(installed) - len(ours) + len(unknown)
    if silent:
        print(f"The audit for known vulnerabilities did not run for {silent} of them: no service answered.")
    for entry in answered:
        for known in entry.get("vulns", []):
            fixed = ", ".join(known.get("fix_versions") or ["no version yet"])
            yield f"{entry['name']} {entry['version']}: {known['id']}, fixed in {fixed}"


def licences(installed: dict[str, str]) -> None:
    """Say under what each dependency comes."""
    for name in sorted(installed.values()):
        about = metadata.metadata(name)
        classified = [
            line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if "License" in line
        ]
        said = (
            *(about.get_all("License-Expression") or []),
            ", ".join(classified),
            *(about.get_all("License") or []),
        )
        licence = next(filter(None, said), "not said")
        print(f"  {name} {about['Version']}: {licence.splitlines()[0]}")


def bill_of_materials(output: Path) -> None:
    """Write what is installed here as CycloneDX JSON, by cyclonedx-py."""
    if importlib.util.find_spec("cyclonedx_py") is None:
        print("The bill of materials did not run: pip install cyclonedx-bom")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--pyproject",
        str(ROOT / "pyproject.toml"),
    ]
    command += ["--output-reproducible", "--of", "JSON", "-o", str(output), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"The bill of materials did not run: {done.stderr.strip().splitlines()[-1]}")
        return
    components = json.loads(output.read_text("utf-8"))["components"]
    print(f"{output}: {len(components)} components of {NAME} and this environment (CycloneDX)")


if __name__ == "__main__":
    sys.exit(main())
