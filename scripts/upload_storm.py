#!/usr/bin/env python3
"""Save to a real S3 server while everything is killed: python3 scripts/upload_storm.py

2,000 images, 200 kills of workers and the uploader, 20 of the supervisor, every tenth request fails, and
every twentieth name is taken by an object of another program. Counts what is lost, stored twice, overwritten,
or left in the spool; any of it fails. The tests run a short form of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

TEST = Path(__file__).parents[1] / "tests" / "sinks" / "test_upload_storm.py"


def main() -> int:
    """Run the long form; returns the exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "--timeout=3600", str(TEST)]
    return subprocess.run(command, env={**os.environ, "LUNA_FARM_TEST_LONG": "1"}, check=False).returncode


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    sys.exit(main())
