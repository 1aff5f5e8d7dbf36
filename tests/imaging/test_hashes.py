"""Hashes of models: found below the model folders only, computed once, kept, and never waited for long."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from luna_farm.imaging import hashes


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of models as ComfyUI has it."""
    for name in (
        "checkpoints/XL/base.safetensors",
        "loras/a.safetensors",
        "embeddings/bad.pt",
        "loras/b.txt",
    ):
        (tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / name).write_bytes(name.encode() * 1000)
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    return tmp_path / "models"


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("model", "XL/base.safetensors", "checkpoints/XL/base.safetensors"),
        ("model", "XL\\base.safetensors", "checkpoints/XL/base.safetensors"),
        ("model", "XL/base", "checkpoints/XL/base.safetensors"),
        ("lora", "a", "loras/a.safetensors"),
        ("embed", "bad", "embeddings/bad.pt"),
        ("model", "loras/a.safetensors", "loras/a.safetensors"),
        ("lora", "missing", None),
        ("lora", "b.txt", None),
        ("lora", "../../secret.safetensors", None),
        ("lora", "a/../../../secret.safetensors", None),
        ("lora", "", None),
        ("lora", "x\0", None),
        ("lora", "C:/x.safetensors", None),
    ],
)
def test_files_are_found_below_the_folders_only(
    models: Path, kind: str, name: str, expected: str | None
) -> None:
    found = hashes.find(kind, name, ["/nowhere", str(models)])
    assert found == (models / expected if expected else None)
    assert hashes.find("model", str(models.parent / "secret.safetensors"), [str(models)]) is None


def test_a_hash_is_computed_once_and_kept(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "cache" / "hashes.jsonl"
    path = models / "loras/a.safetensors"
    assert hashes.Hashes(store).of({"lora:a": path}) == ({"lora:a": _sha(path)}, [])
    again = hashes.Hashes(store)
    monkeypatch.setattr(again, "_hash", None)
    assert again.of({"lora:a": path}) == ({"lora:a": _sha(path)}, [])


def test_a_file_that_changed_is_hashed_anew(models: Path) -> None:
    path = models / "loras/a.safetensors"
    known = hashes.Hashes(None)
    known.of({"x": path})
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert known.of({"x": path})[0] == {"x": hashlib.sha256(b"other").hexdigest()}


def test_what_is_late_is_named_and_there_the_next_time(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, go = hashes.Hashes(None), threading.Event()
    hash_file = known._hash

    def slow(key: hashes.Key) -> str:
        go.wait(60)
        return hash_file(key)

    monkeypatch.setattr(known, "_hash", slow)
    path = models / "loras/a.safetensors"
    assert known.of({"x": path, "y": path}, wait_s=0.01) == ({}, ["x", "y"])
    go.set()
    assert known.of({"x": path}, wait_s=30) == ({"x": _sha(path)}, [])


def test_what_cannot_be_read_or_kept_costs_nothing(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    known = hashes.Hashes(tmp_path / "file" / "store")
    path = models / "loras/a.safetensors"
    assert known.of({"gone": models / "gone.pt", "x": path}) == ({"x": _sha(path)}, [])


def test_a_store_that_is_damaged_or_too_long_is_read_as_far_as_it_goes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = tmp_path / "store", models / "loras/a.safetensors"
    hashes.Hashes(store).of({"x": path})
    store.write_text('{"broken\n[1]\n' + store.read_text(), "utf-8")
    monkeypatch.setattr(hashes, "KEPT", 2)
    assert hashes.Hashes(store).of({"x": path})[0] == {"x": _sha(path)}
    assert not store.exists()
    store.write_bytes(b"\xff\n")
    assert hashes.Hashes(store).of({"x": path})[0] == {"x": _sha(path)}
    assert hashes.Hashes(store).of({"x": path}, 0.0) == ({"x": _sha(path)}, []), "damage costs its own line"
