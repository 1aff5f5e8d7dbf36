"""A record of what a program does to a disk, and the disk as a power cut at any moment may leave it.

While `recording`, the calls of `os` that change files are done for real and noted. `Disk` replays the notes
up to a cut: what was synced before is there; of the rest each write, each name and each removal may have
reached the disk or not. That is harsher than any real file system, which keeps at least some order.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Node = int
"""Number of a file or folder over its whole life; the file system uses inode numbers again, this does not."""


@dataclass(slots=True)
class Op:
    """`kind`: write (data at an offset), cut, sync, name, unname, syncdir, or a mark of the test."""

    kind: str
    node: Node = 0
    name: str = ""
    child: Node = 0
    offset: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """The notes, and which node is which inode now."""

    root: Path
    ops: list[Op] = field(default_factory=list)
    _nodes: dict[int, Node] = field(default_factory=dict)
    _last: Node = 0

    def __post_init__(self) -> None:
        self.node(os.stat(self.root))

    def node(self, status: os.stat_result, fresh: bool = False) -> Node:
        """The node behind an inode; a `fresh` one has nothing to do with what had that number before."""
        if fresh or status.st_ino not in self._nodes:
            self._last += 1
            self._nodes[status.st_ino] = self._last
        return self._nodes[status.st_ino]

    def mark(self, name: str) -> None:
        """Something that was promised from here on."""
        self.ops.append(Op("mark", name=name))

    def place(self, path: Any, dir_fd: int | None) -> tuple[Node, str] | None:
        """(folder, name) of a path, None outside of what is recorded."""
        path = os.fspath(path)
        folder = os.path.dirname(path)
        if dir_fd is not None and not os.path.isabs(path):
            base = os.readlink(f"/proc/self/fd/{dir_fd}")
            folder = os.path.join(base, folder)
        if not os.path.abspath(folder or ".").startswith(str(self.root)):
            return None
        return self.node(os.stat(folder or ".")), os.path.basename(path)

    def inside(self, fd: int) -> bool:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(self.root))


@contextmanager
def recording(root: Path, patch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Note what happens below `root`, by this process, until the block ends."""
    notes = Recorder(root)
    real = {name: getattr(os, name) for name in CALLS}
    with patch.context() as patched:
        for name, wrap in CALLS.items():
            patched.setattr(os, name, wrap(notes, real[name]))
        yield notes


Call = Callable[..., Any]


def _open(notes: Recorder, real: Call) -> Call:
    def call(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        before = None
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            unnamed: int = real(path, flags, mode, dir_fd=dir_fd)
            notes.node(os.fstat(unnamed), fresh=True)
            return unnamed
        if flags & os.O_CREAT:
            try:
                before = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
            except FileNotFoundError:
                before = None
        fd: int = real(path, flags, mode, dir_fd=dir_fd)
        place = notes.place(path, dir_fd) if flags & os.O_CREAT else None
        if place is not None:
            node = notes.node(os.fstat(fd), fresh=before is None)
            if before is None:
                notes.ops.append(Op("name", place[0], place[1], node))
            elif flags & os.O_TRUNC:
                notes.ops.append(Op("cut", node, offset=0))
        return fd

    return call


def _write(notes: Recorder, real: Call) -> Call:
    def call(fd: int, data: Any) -> int:
        if not notes.inside(fd):
            done: int = real(fd, data)
            return done
        end = os.fstat(fd).st_size
        done = real(fd, data)
        whole = b"".join(bytes(part) for part in data) if isinstance(data, list | tuple) else bytes(data)
        notes.ops.append(Op("write", notes.node(os.fstat(fd)), offset=end, data=whole[:done]))
        return done

    return call


def _truncate(notes: Recorder, real: Call) -> Call:
    def call(fd: int, size: int) -> None:
        real(fd, size)
        if notes.inside(fd):
            notes.ops.append(Op("cut", notes.node(os.fstat(fd)), offset=size))

    return call


def _sync(notes: Recorder, real: Call) -> Call:
    def call(fd: int) -> None:
        real(fd)
        if notes.inside(fd):
            kind = "syncdir" if os.path.isdir(f"/proc/self/fd/{fd}") else "sync"
            notes.ops.append(Op(kind, notes.node(os.fstat(fd))))

    return call


def _link(notes: Recorder, real: Call) -> Call:
    def call(source: Any, target: Any, **named: Any) -> None:
        real(source, target, **named)
        place = notes.place(target, named.get("dst_dir_fd"))
        if place is not None:
            status = os.stat(target, dir_fd=named.get("dst_dir_fd"), follow_symlinks=False)
            notes.ops.append(Op("name", *place, notes.node(status)))

    return call


def _replace(notes: Recorder, real: Call) -> Call:
    def call(source: Any, target: Any, **named: Any) -> None:
        old = notes.place(source, named.get("src_dir_fd"))
        real(source, target, **named)
        new = notes.place(target, named.get("dst_dir_fd"))
        if new is not None and old is not None:
            status = os.stat(target, dir_fd=named.get("dst_dir_fd"), follow_symlinks=False)
            notes.ops.append(Op("name", *new, notes.node(status)))
            notes.ops.append(Op("unname", *old))

    return call


def _unlink(notes: Recorder, real: Call) -> Call:
    def call(path: Any, *, dir_fd: int | None = None) -> None:
        real(path, dir_fd=dir_fd)
        place = notes.place(path, dir_fd)
        if place is not None:
            notes.ops.append(Op("unname", *place))

    return call


def _mkdir(notes: Recorder, real: Call) -> Call:
    def call(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        place = notes.place(path, dir_fd)
        if place is not None:
            status = os.stat(path, dir_fd=dir_fd)
            notes.ops.append(Op("name", *place, notes.node(status, fresh=True)))

    return call


CALLS: dict[str, Callable[[Recorder, Call], Call]] = {
    "open": _open,
    "write": _write,
    "writev": _write,
    "ftruncate": _truncate,
    "fsync": _sync,
    "fdatasync": _sync,
    "link": _link,
    "replace": _replace,
    "rename": _replace,
    "unlink": _unlink,
    "mkdir": _mkdir,
}


class Disk:
    """What may be found after a power cut behind the first `cut` notes. `kept`: the chance of each change
    that was not synced to be there; 0.0 and 1.0 are the two extremes."""

    def __init__(self, ops: list[Op], cut: int, chance: random.Random, kept: float) -> None:
        past = ops[:cut]
        self._data: dict[Node, bytearray] = {}
        self._names: dict[Node, dict[str, Node]] = {}
        synced = {(op.kind, op.node): at for at, op in enumerate(past) if op.kind in ("sync", "syncdir")}
        for at, op in enumerate(past):
            sync = "sync" if op.kind in ("write", "cut") else "syncdir"
            if synced.get((sync, op.node), -1) > at or chance.random() < kept:
                self._do(op)

    def _do(self, op: Op) -> None:
        if op.kind == "write":
            data = self._data.setdefault(op.node, bytearray())
            data.extend(bytes(max(0, op.offset - len(data))))
            data[op.offset : op.offset + len(op.data)] = op.data
        elif op.kind == "cut":
            del self._data.setdefault(op.node, bytearray())[op.offset :]
        elif op.kind == "name":
            self._names.setdefault(op.node, {})[op.name] = op.child
        elif op.kind == "unname":
            self._names.get(op.node, {}).pop(op.name, None)

    def read(self, relative: str) -> bytes | None:
        """The content of a file below the recorded folder, None if it is not there."""
        node = 1
        for part in relative.split("/"):
            found = self._names.get(node, {}).get(part)
            if found is None:
                return None
            node = found
        return bytes(self._data.get(node, b""))

    def files(self) -> dict[str, bytes]:
        """All files that can be reached, by their relative path."""
        found: dict[str, bytes] = {}
        stack = [("", 1)]
        while stack:
            prefix, folder = stack.pop()
            for name, node in self._names.get(folder, {}).items():
                if node in self._names:
                    stack.append((f"{prefix}{name}/", node))
                else:
                    found[prefix + name] = bytes(self._data.get(node, b""))
        return found
