"""What the ComfyUI Registry gets: the nodes alone, loadable as they are, and nothing that its scan bans."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import registry  # noqa: E402 - of the scripts' folder

from luna_farm_nodes import NODE_CLASS_MAPPINGS  # noqa: E402

LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("published", sys.argv[1] + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
print(len(module.NODE_CLASS_MAPPINGS))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "luna-farm"
    folder.mkdir()
    registry.build(folder)
    return folder


def test_it_holds_the_nodes_and_asks_for_the_farm_as_a_package(published):
    with zipfile.ZipFile(published.with_suffix(".zip")) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"__init__.py", "web", "locales", "example_workflows", "pyproject.toml", "LICENSE"} <= tops
    assert not {"luna_farm", "client", "scripts", "tests"} & tops
    requirement = (published / "requirements.txt").read_text().strip()
    assert requirement.startswith("luna-farm>=")
    assert requirement in (published / "pyproject.toml").read_text()


def test_comfyui_loads_it(published):
    command = [sys.executable, "-I", "-S", "-c", LOAD, str(published)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (str(len(NODE_CLASS_MAPPINGS)), "")


def test_the_scan_finds_nothing(published):
    assert list(registry.forbidden(published)) == []


def test_bandit_finds_nothing(published):
    pytest.importorskip("bandit", reason="bandit is missing: install the extra [test]")
    assert registry.bandit(published) == []


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "import subprocess as quiet",
        "from subprocess import Popen",
        "from concurrent.futures import process; import multiprocessing.pool",
        "import os; os.system('x')",
        "import os; os.execv('x', [])",
        "import os; os.spawnl(0, 'x')",
        "from os import system as say",
        "import pickle; pickle.loads(b'')",
        "eval('1')",
        "exec('1')",
        "__import__('x')",
        "import importlib; importlib.import_module('x')",
        "compile('1', 'x', 'eval')",
    ],
)
def test_the_scan_finds_what_is_banned(line, tmp_path):
    (tmp_path / "bad.py").write_text(f"def f():\n    {line}\n")
    assert [one.split(":")[:2] for one in registry.forbidden(tmp_path)][:1] == [["bad.py", "2"]]


def test_the_scan_leaves_regular_expressions_alone(tmp_path):
    (tmp_path / "good.py").write_text("import re\nre.compile('x')\n")
    assert list(registry.forbidden(tmp_path)) == []
