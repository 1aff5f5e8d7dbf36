"""Every code block of the tutorials and how-to pages runs as it is shown, in order, on a farm of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from free_ports import free_port

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/tutorials/*.md"), *ROOT.glob("docs/how-to/*.md")])
RUNNER = Path(__file__).with_name("page_runner.py")
# What a page may install; nothing is installed by a test.
PIP = """#!/bin/sh
case "$1 $2" in
  "install luna-farm"|"install luna-farm[cloud]") ;;
  *) echo "pip $*: not expected here" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def reader(tmp_path):
    """The surroundings of a reader who follows a page: an empty folder, a ComfyUI, and free ports."""
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "main.py").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pip").write_text(PIP)
    (programs / "pip").chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LUNA_FARM_")}
    path = [str(programs), str(Path(sys.executable).parent), inherited.get("PATH", "")]
    environ = {
        **inherited,
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join(path),
        "LUNA_FARM_STATE_DIR": str(tmp_path / "state"),
        "LUNA_FARM_PORT": str(free_port()),
        "LUNA_FARM_FEED_PORT": str(free_port()),
        "LUNA_FARM_ARENA_BYTES": "32MiB",
    }
    yield tmp_path, environ
    stop = [sys.executable, "-m", "luna_farm", "stop", "--now"]
    if (tmp_path / "state").exists():
        subprocess.run(stop, env=environ, capture_output=True, check=False)


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """What a reader with a bucket knows; the endpoint is that of the test's own server."""
    pytest.importorskip("moto", reason="NOT TESTED: no server of S3 without moto")
    monkeypatch.syspath_prepend(ROOT / "tests" / "sinks")
    from servers import moto

    with moto(tmp_path) as server:
        yield {
            "S3_KEY_ID": server.options["access_key_id"],
            "S3_SECRET_KEY": server.options["secret_access_key"],
            "LUNA_FARM_DESTINATION_RENDERS_ENDPOINT": server.options["endpoint"],
        }


@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="the pages are for a POSIX shell")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_as_it_is_shown(page, reader, request):
    folder, environ = reader
    if page.stem == "s3":
        environ |= request.getfixturevalue("s3")
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(page)], cwd=folder, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_a_block_that_fails_fails_its_page(tmp_path):
    for code in ("```bash\nfalse | cat\n```\n", "```python\nassert 1 > 2\n```\n", "```ruby\n1\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(f"# A page\n\n{code}")
        assert subprocess.run([sys.executable, str(RUNNER), str(page)], capture_output=True).returncode != 0


def test_there_are_pages():
    assert len(PAGES) >= 7
