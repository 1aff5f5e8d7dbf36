"""`luna-farm nodes install`: into a ComfyUI, again, over what is not ours, where links are not allowed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from luna_farm.cli import entry, nodes


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    return tmp_path / "ComfyUI"


def install(*arguments: object) -> int:
    return entry.main(["nodes", "install", *map(str, arguments)])


def test_it_links(comfyui, capsys):
    assert install(comfyui) == 0
    target = comfyui / "custom_nodes" / "luna-farm"
    assert target.is_symlink()
    assert (target / "web" / "luna_farm.js").is_file()
    said = capsys.readouterr().out
    assert str(target) in said
    assert "-m pip install" in said


@pytest.mark.parametrize("again", [[], ["--copy"]])
def test_it_can_be_done_again_either_way(again, comfyui):
    for arguments in ([], ["--copy"], again):
        assert install(comfyui, *arguments) == 0
    target = comfyui / "custom_nodes" / "luna-farm"
    assert target.is_symlink() == (not again)
    assert (target / "nodes.py").is_file()


def test_a_copy_leaves_the_installed_nodes_alone(comfyui):
    install(comfyui, "--copy")
    install(comfyui)
    assert (nodes.nodes_folder() / "nodes.py").is_file()


def test_what_is_not_ours_is_not_touched(comfyui, capsys):
    other = comfyui / "custom_nodes" / "luna-farm"
    other.mkdir()
    (other / "precious.py").write_text("x")
    assert install(comfyui) == entry.FAILED
    assert (other / "precious.py").exists()
    assert "Remove it first" in capsys.readouterr().err


def test_a_clone_is_not_touched(comfyui):
    clone = comfyui / "custom_nodes" / "luna-farm"
    (clone / ".git").mkdir(parents=True)
    assert install(comfyui) == entry.FAILED
    assert (clone / ".git").exists()


def test_a_folder_that_is_no_comfyui_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert install(tmp_path) == entry.FAILED
    assert "no folder custom_nodes" in capsys.readouterr().err


def test_custom_nodes_itself_will_do(comfyui):
    assert install(comfyui / "custom_nodes") == 0
    assert (comfyui / "custom_nodes" / "luna-farm" / "nodes.py").exists()


def test_where_links_are_not_allowed_it_copies(comfyui, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert install(comfyui) == 0
    assert not (comfyui / "custom_nodes" / "luna-farm").is_symlink()
    assert (comfyui / "custom_nodes" / "luna-farm" / "nodes.py").is_file()


def test_missing_nodes_are_said(comfyui, monkeypatch, capsys):
    monkeypatch.setattr(nodes.importlib.util, "find_spec", lambda name: None)
    assert install(comfyui) == entry.FAILED
    assert "Reinstall luna-farm" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "said"), [(0, "has luna-farm"), (1, "does not have luna-farm yet")])
@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for ComfyUI's Python")
def test_comfyuis_own_python_is_asked(code, said, comfyui, capsys):
    python = comfyui / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    install(comfyui)
    assert said in capsys.readouterr().out


def test_a_python_that_does_not_start_does_not_have_it(comfyui, capsys):
    python = comfyui / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("not a program")
    install(comfyui)
    assert "does not have luna-farm yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        shutil.Error([("a", "b/nodes.py", "[Errno 28] No space left on device")]),
        PermissionError(13, "Permission denied", "b"),
        KeyboardInterrupt(),
    ],
)
def test_a_copy_that_fails_leaves_what_was_there(comfyui, capsys, monkeypatch, error):
    assert install(comfyui, "--copy") == 0
    target = comfyui / "custom_nodes" / nodes.FOLDER
    (target / "kept").touch()

    def fails(_: object, at: Path, **__: object) -> None:
        at.mkdir()
        (at / "nodes.py").touch()
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", fails)
        code = install(comfyui, "--copy")
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert (target / "kept").is_file()
    assert [path.name for path in target.parent.iterdir()] == [nodes.FOLDER]
    said = capsys.readouterr().err
    assert "Errno" not in said
    if isinstance(error, shutil.Error):
        assert "Cannot write b/nodes.py: No space left on device. What was there before is as it was." in said
    assert install(comfyui, "--copy") == 0
    assert not (target / "kept").exists()
