"""Many writers under one name, and folders that are swapped for links meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from measured import Figures
from running_farm import IMPORTED_FROM, MUTATED

from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.storage import writer

WRITER = """
import sys
from luna_farm.storage import writer
out, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for n in range(count):
    done = writer.publish(f"{out}/a.png", [f"{who} {n}".encode()], output_dir=out,
                          temp_name=writer.temp_name(who, n), fsync=False)
    print(done.path)
"""


def race(out: Path, writers: int, each: int, **environ: str) -> dict[str, int]:
    """So many processes publish so many files each under one name, all at once."""
    out.mkdir()
    path = os.pathsep.join([*([str(MUTATED)] if environ else []), str(IMPORTED_FROM)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(out), f"writer{number}", str(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **environ},
            text=True,
        )
        for number in range(writers)
    ]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate()[0].split() for process in processes]
    contents = [path.read_text() for path in out.iterdir() if not path.name.startswith(".")]
    expected = {f"writer{number} {n}" for number in range(writers) for n in range(each)}
    return {
        "files": len(contents),
        "overwritten": len(expected - set(contents)),
        "duplicate": len(contents) - len(set(contents)),
        "told_wrong": sum(len(paths) for paths in told) - len({p for paths in told for p in paths}),
        "stray": sum(path.name.startswith(".") for path in out.iterdir()),
    }


def test_4_processes_with_1000_files_each_under_one_name(tmp_path: Path, figures: Figures) -> None:
    figures.none("names", "4 processes x 1,000 under one name", **race(tmp_path / "out", 4, 1000))


@pytest.mark.skipif(os.name == "nt", reason="NOT TESTED: links need rights of their own on Windows")
def test_1000_swaps_of_a_folder_for_a_link(tmp_path: Path, figures: Figures) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    (out / "a").mkdir(parents=True)
    outside.mkdir()
    over = threading.Event()

    def swap() -> None:
        a = out / "a"
        for number in range(1000):
            kept = out / f"kept{number}"
            # Where the writer finds no folder it makes one, and any of these steps may find it in the way.
            with suppress(OSError):
                a.rename(kept)
            with suppress(OSError):
                a.symlink_to(outside)
            with suppress(OSError):
                a.unlink()
            with suppress(OSError):
                kept.rename(a)
        over.set()

    swapper = threading.Thread(target=swap)
    swapper.start()
    saved = refused = 0
    while not over.is_set() or saved + refused < 1000:
        name = f"{saved + refused}.png"
        try:
            writer.publish(
                f"{out}/a/{name}",
                [b"image"],
                output_dir=str(out),
                temp_name=writer.temp_name("swapped", saved + refused),
                fsync=False,
            )
        except (DiskError, InvalidRequest):
            refused += 1
        else:
            saved += 1
    swapper.join()
    left = len(list(outside.iterdir()))
    figures.none("names", "1,000 swaps of a folder for a link", saved=saved, refused=refused, outside=left)
