"""The folder that ComfyUI loads: light, quiet, clean for the Registry's scan, complete in every language."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import luna_farm_nodes
from luna_farm_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

NODES = Path(luna_farm_nodes.__file__).resolve().parent
ROOT = NODES.parent
LANGUAGES = sorted(folder.name for folder in (NODES / "locales").iterdir())
# What ComfyUI's loader does with a folder in custom_nodes/.
LOAD = """
import importlib.util, sys
path = sys.argv[1]
spec = importlib.util.spec_from_file_location(path.replace(".", "_x_"), path + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
before = set(sys.modules)
spec.loader.exec_module(module)
new = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = new & {"numpy", "torch", "PIL", "msgpack", "luna_farm", "luna_farm_client", "asyncio"}
print(sorted(module.NODE_CLASS_MAPPINGS), module.WEB_DIRECTORY, sorted(heavy))
import threading; print(threading.active_count())
"""


def load(folder: Path, code: str = "", *flags: str) -> subprocess.CompletedProcess[str]:
    """Load a folder as ComfyUI does, in an interpreter that has nothing installed."""
    command = [sys.executable, "-I", "-S", *flags, "-c", LOAD + code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


@pytest.mark.parametrize(("folder", "web"), [(NODES, "./web"), (ROOT, "./comfy_nodes/web")])
def test_comfyui_loads_it_with_nothing_installed_and_nothing_started(folder, web):
    done = load(folder)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{sorted(NODE_CLASS_MAPPINGS)} {web} []", "1"]
    assert (folder / web).is_dir()


def test_a_clone_finds_the_packages_beside_it():
    done = load(
        ROOT, "import luna_farm_client, luna_farm; print(luna_farm_client.__file__, luna_farm.__file__)"
    )
    assert done.stderr == ""
    paths = done.stdout.splitlines()[-1].split()
    assert paths == [str(ROOT / "client" / "__init__.py"), str(ROOT / "luna_farm" / "__init__.py")]


def test_the_clone_finder_knows_nothing_else():
    done = load(
        ROOT, "print(module.CloneFinder.find_spec('numpy'), module.CloneFinder.find_spec('luna_farm', ['x']))"
    )
    assert done.stdout.splitlines()[-1] == "None None"


@pytest.mark.parametrize("path", sorted(NODES.rglob("*.py")), ids=lambda path: path.name)
def test_the_registry_scan_finds_nothing(path):
    names = r"\b(eval|exec|pickle|subprocess|os\.system|marshal|ctypes|__import__)\b"
    words = names + r"|(?<!re\.)\bcompile\b|\.\./|\.\.\\"
    assert re.findall(words, path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", sorted(NODES.glob("web/*.js")), ids=lambda path: path.name)
def test_scripts_bring_no_code_from_elsewhere(path):
    text = path.read_text("utf-8")
    assert re.findall(r"\beval\b|new Function|innerHTML|document\.write|https?://", text) == []


def test_requirements_are_those_of_the_distribution():
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = {line.strip() for line in config["options"]["install_requires"].splitlines() if line.strip()}
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert {line.strip() for line in lines if line and not line.startswith("#")} == declared


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_every_node_has_a_name_and_a_help_page(name):
    assert NODE_DISPLAY_NAME_MAPPINGS[name]
    pages = [NODES / "web" / "docs" / f"{name}.md", NODES / "web" / "docs" / name / "zh.md"]
    for page in pages:
        text = page.read_text("utf-8")
        for group in ("required", "optional"):
            for one in NODE_CLASS_MAPPINGS[name].INPUT_TYPES()[group]:
                family = re.sub(r"_[1-5]$", "", one)
                assert family in text or name == "LunaMultiSaver", f"{page.name} does not mention {one}"


def expected(name: str) -> dict[str, object]:
    """What the English file must say of a node: what the node itself says."""
    node = NODE_CLASS_MAPPINGS[name]
    inputs = {
        one: {"name": one, "tooltip": options["tooltip"]}
        for group in ("required", "optional")
        for one, (_, options) in node.INPUT_TYPES()[group].items()
    }
    outputs = {
        str(at): {"name": label, "tooltip": tip}
        for at, (label, tip) in enumerate(zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True))
    }
    texts = {"display_name": NODE_DISPLAY_NAME_MAPPINGS[name], "description": node.DESCRIPTION}
    return {**texts, "inputs": inputs, "outputs": outputs}


def test_english_is_what_the_nodes_say():
    found = json.loads((NODES / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
    assert found == {name: expected(name) for name in NODE_CLASS_MAPPINGS}


def shape(value: object) -> object:
    """The keys of a translation, and the tokens in its texts."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items() if key != "name"}
    return sorted(re.findall(r"%[^%\s]+%|\{\w+\}", str(value)))


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_translations_are_complete(language):
    found = json.loads((NODES / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    assert shape(found) == shape({name: expected(name) for name in NODE_CLASS_MAPPINGS})


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_the_words_of_the_scripts_are_translated(language):
    script = (NODES / "web" / "luna_text.js").read_text("utf-8")
    english = dict(re.findall(r'^  (\w+): "(.*)",$', script, re.MULTILINE))
    found = json.loads((NODES / "locales" / language / "main.json").read_text("utf-8"))["lunaFarm"]
    assert shape(found) == shape(english)


@pytest.mark.parametrize("folder", ["locales", "example_workflows"])
def test_a_clone_carries_what_comfyui_looks_for_at_its_top(folder):
    """ComfyUI searches custom_nodes/*/locales and custom_nodes/*/example_workflows, and follows no
    setting."""

    def files(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert files(ROOT / folder) == files(NODES / folder), f"copy comfy_nodes/{folder} to {folder}"


@pytest.mark.parametrize("path", sorted(NODES.glob("example_workflows/*.json")), ids=lambda path: path.stem)
def test_example_workflows_fit_the_nodes(path):
    graph = json.loads(path.read_text("utf-8"))
    ours = [node for node in graph["nodes"] if node["type"] in NODE_CLASS_MAPPINGS]
    assert ours
    for node in ours:
        inputs = NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()
        widgets = [
            name
            for group in ("required", "optional")
            for name, (kind, options) in inputs[group].items()
            if kind not in ("IMAGE", "MASK", "METADATA", "LUNA_IMAGES") and not options.get("forceInput")
        ]
        assert len(node["widgets_values"]) == len(widgets), node["type"]
    assert path.with_suffix(".jpg").is_file(), "the picture that ComfyUI's template browser shows"
