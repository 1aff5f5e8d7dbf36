#!/usr/bin/env python3
"""Check the files that GitHub reads: workflows, Dependabot, issue forms. python3 scripts/workflows.py

Needs check-jsonschema, which brings the schemas with it. actionlint and zizmor see more and are used where
they are on the path; where not, it says so. Needs no network.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
SCHEMAS = {
    "vendor.github-workflows": ("workflows/*.yml",),
    "vendor.dependabot": ("dependabot.yml",),
    "vendor.github-issue-forms": ("ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/idea.yml"),
    "vendor.github-issue-config": ("ISSUE_TEMPLATE/config.yml",),
}


def main() -> int:
    """Check everything. Returns the exit code."""
    failed = 0
    for schema, patterns in SCHEMAS.items():
        files = sorted(file for pattern in patterns for file in GITHUB.glob(pattern))
        assert files, patterns
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
        failed += subprocess.run(command).returncode != 0
    workflows = sorted(str(file) for file in GITHUB.glob("workflows/*.yml"))
    for tool, arguments in (("actionlint", workflows), ("zizmor", ["--offline", "--quiet", str(GITHUB)])):
        found = shutil.which(tool)
        if found is None:
            print(f"NOT RUN: {tool} is not on the path; the workflows were checked by their schemas")
        else:
            failed += subprocess.run([found, *arguments]).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    sys.exit(main())
