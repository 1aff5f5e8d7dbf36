"""What is said of the distribution in several places agrees, and everything in the packages is shipped."""

from __future__ import annotations

import configparser
import fnmatch
import importlib
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import luna_farm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
IGNORED = {"__pycache__"}


@pytest.fixture(scope="module")
def cfg():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lines(text):
    return [line for line in text.strip().splitlines() if line and not line.startswith("#")]


def requirements(texts):
    return {(r.name.lower(), str(r.specifier), str(r.marker or "")) for r in map(Requirement, texts)}


def folder_of(package):
    top, _, rest = package.partition(".")
    folder = {"luna_farm": "luna_farm", "luna_farm_client": "client", "luna_farm_nodes": "comfy_nodes"}[top]
    return ROOT / folder / rest.replace(".", "/")


def test_the_literals_that_the_registry_needs_repeat_setup_cfg(cfg, project):
    for name in ("name", "description", "license"):
        assert project[name] == cfg["metadata"][name]
    assert project["requires-python"] == cfg["options"]["python_requires"]
    assert project["version"] == luna_farm.__version__
    assert cfg["metadata"]["version"] == "attr: luna_farm.__version__"
    assert requirements(project["dependencies"]) == requirements(lines(cfg["options"]["install_requires"]))


def test_nothing_else_is_said_twice(cfg, project):
    repeated = {
        "name",
        "version",
        "description",
        "license",
        "requires-python",
        "dependencies",
        "license-files",
    }
    assert set(project) == repeated | {"dynamic", "urls"}
    assert set(project["dynamic"]) == {
        "readme",
        "keywords",
        "classifiers",
        "optional-dependencies",
        "scripts",
    }


def test_the_version_of_the_changelog_is_this_one():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == luna_farm.__version__


def test_every_package_is_listed_and_every_listed_one_is_there(cfg):
    listed = set(lines(cfg["options"]["packages"]))
    found = set()
    for top, folder in (
        ("luna_farm", "luna_farm"),
        ("luna_farm_client", "client"),
        ("luna_farm_nodes", "comfy_nodes"),
    ):
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((top, *parts)))
    assert listed == found


def test_every_file_of_a_package_is_shipped(cfg):
    packages = lines(cfg["options"]["packages"])
    patterns = {name: re.split(r"[,\s]+", text.strip()) for name, text in cfg["options.package_data"].items()}
    compiled = ("*.c", "*.h", "*.so", "*.pyd", "*.o", "*.pyc")
    left_out = []
    folders = {folder_of(package): package for package in packages}
    for folder, package in folders.items():
        for file in folder.rglob("*"):
            nearest = next((up for up in file.parents if up in folders), None)
            if not file.is_file() or file.suffix == ".py" or nearest != folder or IGNORED & set(file.parts):
                continue
            name = file.relative_to(folder).as_posix()
            depth = name.count("/")
            fits = [
                p for p in patterns.get(package, []) if fnmatch.fnmatch(name, p) and p.count("/") == depth
            ]
            if not fits and not any(fnmatch.fnmatch(name, p) for p in compiled):
                left_out.append(f"{package}: {name}")
    assert left_out == []


def test_every_package_is_typed():
    for package in ("luna_farm", "luna_farm_client", "luna_farm_nodes"):
        assert (folder_of(package) / "py.typed").is_file()


def test_the_command_is_there(cfg):
    (line,) = lines(cfg["options.entry_points"]["console_scripts"])
    name, _, place = (part.strip() for part in line.partition("="))
    module, _, function = place.partition(":")
    assert name == "luna-farm"
    assert callable(getattr(importlib.import_module(module), function))


def test_the_farm_itself_asks_for_no_torch(cfg):
    runtime = {Requirement(line).name for line in lines(cfg["options"]["install_requires"])}
    assert not runtime & {"torch", "scipy", "scikit-image", "opencv-python"}
    assert "torch" in cfg["options.extras_require"]["torch"]


def test_each_dependency_is_explained_in_the_documents(cfg):
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for line in lines(cfg["options"]["install_requires"]):
        assert f"`{Requirement(line).name}`" in page


def test_declared_pythons_are_those_that_are_supported(cfg):
    declared = re.findall(r"Python :: (3\.\d+)$", cfg["metadata"]["classifiers"], re.MULTILINE)
    assert declared == ["3.10", "3.11", "3.12", "3.13", "3.14"]


def test_the_registry_finds_what_it_needs():
    comfy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]
    assert set(comfy) == {"PublisherId", "DisplayName", "Icon"}
