"""The farm on a Linux that answers like Windows or macOS: what differs there is refused here, too.

It shows that no call is made that the platform lacks, and that the other way works. It is no proof for the
platform itself: continuous integration runs the tests there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PLATFORMS = {"windows": "win32", "macos": "darwin"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays other platforms on Linux only")


def use(platform, what, folder):
    """Run `use_farm.py` in a Python that answers like `platform`; return what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LUNA_FARM_")}
    environ |= {"LUNA_FARM_TEST_PRETEND": platform, "PYTHONPATH": str(FOLDER / "pretend")}
    # Coverage looks at paths and platforms itself.
    environ.pop("COVERAGE_PROCESS_CONFIG", None)
    done = subprocess.run(
        [sys.executable, str(FOLDER / "use_farm.py"), what, str(folder)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_module_can_be_imported(platform, tmp_path):
    found = use(platform, "modules", tmp_path)
    assert found["platform"] == PLATFORMS[platform]
    assert found["modules"] > 100


@pytest.mark.parametrize("platform", PLATFORMS)
def test_names_that_differ_in_case_only_are_one_name(platform, tmp_path):
    reports = use(platform, "here", tmp_path)
    assert [state for state, _, _ in reports] == ["done"] * 3, reports
    names = [Path(path).name.lower() for _, _, path in reports]
    assert len(set(names)) == 3
    assert len(list(tmp_path.glob("*.png"))) == 3


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_whole_farm_saves_exactly_and_overwrites_nothing(platform, tmp_path):
    found = use(platform, "farm", tmp_path)
    assert found["states"] == ["done"] * 5, found
    assert found["exact"] == [True] * 4
    assert len({name.lower() for name in found["files"]}) == 5
    assert not [name for name in found["files"] if name.endswith(".tmp")]
    code, said = found["second"]
    assert code != 0
    assert "already runs" in said
    assert found["workers"] == 1
    assert found["said"] == "", "a farm that stops says nothing on its standard error"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_was_accepted_is_saved_after_a_kill(platform, tmp_path):
    found = use(platform, "recovery", tmp_path)
    assert found == {"states": ["done"] * 8, "files": 8}
