"""SHA-256 of model files, for the hashes by which galleries know a model.

Computed once a file, in a thread of the worker, and kept by path, size and modification time, in memory and
in a file of the user's cache folder. An image waits a few seconds for them at most; then it is saved without,
and the next one has them. This module must never read outside the given model folders, and never raise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from pathlib import Path

from luna_farm.core.generation_models import MODEL_FILE

WAIT_S = 5.0
"""How long an image waits for hashes that are not known yet."""
READ_BYTES = 4 * 2**20
KEPT = 4096
"""Hashes that are kept on disk; when there are more, the file is begun anew."""

# Where ComfyUI and A1111 keep what; "" is the model folder itself.
FOLDERS = {
    "model": ("checkpoints", "diffusion_models", "unet", "Stable-diffusion", ""),
    "lora": ("loras", "Lora", ""),
    "embed": ("embeddings", ""),
}
_ENDINGS = ("", ".safetensors", ".pt", ".bin", ".ckpt")

Key = tuple[str, int, int]


def find(kind: str, name: str, model_dirs: Iterable[str]) -> Path | None:
    """Return the file of a model, LoRA or embedding below the model folders; None where it is not there.

    kind: "model", "lora" or "embed". name: as the graph has it, with folders, with or without extension.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    if not parts or ".." in parts or "\0" in name or os.path.isabs(name) or ":" in parts[0]:
        return None
    for root in model_dirs:
        for folder in FOLDERS[kind]:
            for ending in _ENDINGS:
                path = Path(root, folder, *parts[:-1], parts[-1] + ending)
                try:
                    if MODEL_FILE.search(path.name) and path.is_file():
                        return path
                except (OSError, ValueError):
                    continue
    return None


class Hashes:
    """The hashes that are known. `store`: the file that keeps them, None for none."""

    def __init__(self, store: Path | None) -> None:
        self._store = store
        self._known: dict[Key, str] = {}
        self._running: dict[Key, Future[str]] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, "hashes")
        self._load()

    def of(self, files: Mapping[str, Path], wait_s: float = WAIT_S) -> tuple[dict[str, str], list[str]]:
        """Return (SHA-256 in hexadecimal by the names of `files`, the names whose hash is not there yet)."""
        found: dict[str, str] = {}
        late: list[str] = []
        for name, path in files.items():
            try:
                found[name] = self._begun(path).result(0 if late else wait_s)
            except Late:
                late.append(name)
            except (OSError, RuntimeError):
                continue
        return found, late

    def _begun(self, path: Path) -> Future[str]:
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                if key not in self._running:
                    self._running[key] = self._threads.submit(self._hash, key)
                return self._running[key]
        done: Future[str] = Future()
        done.set_result(known)
        return done

    def _hash(self, key: Key) -> str:
        digest = hashlib.sha256()
        with open(key[0], "rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
        found = digest.hexdigest()
        with self._lock:
            self._known[key] = found
            self._running.pop(key, None)
        self._keep(key, found)
        return found

    def _load(self) -> None:
        if self._store is None:
            return
        try:
            # Damage costs its line, not the file: the others would be hashed at every start, and kept again.
            lines = self._store.read_text("utf-8", "replace").splitlines()
        except OSError:
            return
        for line in lines[-KEPT:]:
            try:
                path, size, modified, digest = json.loads(line)
                if re.fullmatch("[0-9a-f]{64}", digest):
                    self._known[(str(path), int(size), int(modified))] = digest
            except (ValueError, TypeError):
                continue  # a line that was cut off
        if len(lines) > KEPT:
            self._store.unlink(missing_ok=True)

    def _keep(self, key: Key, digest: str) -> None:
        if self._store is None:
            return
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            with open(self._store, "a", encoding="utf-8") as file:
                file.write(json.dumps([*key, digest]) + "\n")
        except OSError:
            return  # known until this worker ends
