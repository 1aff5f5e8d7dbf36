#!/usr/bin/env python3
"""`luna-farm bench` of this checkout, without installing anything first: python3 scripts/bench.py [FILE ...]

Takes the same arguments. It must never measure anything but what lies in the checkout.
"""

from __future__ import annotations

import subprocess
import sys

import bootstrap

if __name__ == "__main__":
    bootstrap.check_python()
    try:
        bootstrap.prepare("demo", [])
    except bootstrap.StepFailed as error:
        sys.exit(f"{error.output}\n{error}")
    sys.exit(subprocess.run([bootstrap.PYTHON, "-m", "luna_farm", "bench", *sys.argv[1:]]).returncode)
