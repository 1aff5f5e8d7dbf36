"""How long saving blocks the queue of a running ComfyUI: Save Image beside the Luna savers.

    python3 scripts/bench comfyui [URL] [--image NAME] [--rounds N] [--no-farm] [--pid PID] [--json]

Needs a ComfyUI (default http://127.0.0.1:8188) with the nodes, and a farm. An image of ComfyUI's input
folder (default: the example.png that it ships) is scaled to 1024x1024 and given the noise of a fresh one;
that is cached, so each prompt executes the saver alone. Times are from ComfyUI's own `execution_start` to
`execution_success`, which it notes in whole milliseconds: hence means over many prompts, in turns.
"nothing" saves nothing: what ComfyUI itself takes for such a prompt, in every line; part of it is that it
hashes the image's file each time, so let that be a small one. Files go to its output folder, below
`luna_bench`. With --no-farm, to be called while none runs, the daemon saver is expected to be refused: how
long that blocks. With --pid, the process of ComfyUI on this machine (Linux), the processor time of the thread
that executes prompts as well, from one prompt's end to the next one's: what a machine that is busy with
something else allows to compare. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

TURNS = {"SaveImage": 2, "LunaDaemonImageSaver": 6, "LunaMultiSaver": 2, "nothing": 6}
"""Prompts of each kind in a round: the short ones more often."""
NOISE = 1.2 / 255
"""Added to the image: files are smoother than what a VAE decodes."""
LOOK_S = 0.1
"""Between two looks whether a prompt is done. The first comes late, too: ComfyUI would answer it from the
very interpreter that executes the prompt, and its answer would be counted as blocked time."""
NO_FARM_TURNS = {kind: TURNS[kind] for kind in ("SaveImage", "LunaDaemonImageSaver", "nothing")}
NO_FARM = "ERROR: Connection refused. Is daemon running?"
PAUSE_S = {"LunaDaemonImageSaver": 0.4}
"""The farm finishes before the next prompt, as it does between the images of a GPU."""


def prompt(kind: str, images: int, tag: str, image: str) -> dict[str, Any]:
    """Return a prompt that saves `images` images under a new name."""
    graph: dict[str, Any] = {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {
            "class_type": "ImageScale",
            "inputs": {
                "image": ["1", 0], "upscale_method": "lanczos",
                "width": 1024, "height": 1024, "crop": "center",
            },
        },
        "3": {"class_type": "ImageAddNoise", "inputs": {"image": ["2", 0], "seed": 1, "strength": NOISE}},
        "4": {"class_type": "RepeatImageBatch", "inputs": {"image": ["3", 0], "amount": images}},
    }  # fmt: skip
    inputs: dict[str, Any]
    if kind == "SaveImage":
        inputs = {"images": ["4", 0], "filename_prefix": f"luna_bench/{tag}"}
    elif kind == "nothing":
        return {**graph, "9": {"class_type": "PreviewAny", "inputs": {"source": tag}}}
    else:
        inputs = {
            "image_1": ["4", 0], "save_path": "luna_bench", "filename": tag, "quality_gate": "disabled",
            "min_quality_threshold": 0.3,
        }  # fmt: skip
    return {**graph, "9": {"class_type": kind, "inputs": inputs}}


def call(url: str, body: Any = None) -> Any:
    """Return the JSON that the server answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  the user's own server
        return json.load(answer)


def blocked(url: str, graph: dict[str, Any], expected: str = "") -> int:
    """Execute a prompt and return the milliseconds that it took. `expected`: what the status of the node must
    say, where that is an error."""
    prompt_id = call(f"{url}/prompt", {"prompt": graph})["prompt_id"]
    history: dict[str, Any] = {}
    while prompt_id not in history:
        time.sleep(LOOK_S)
        history = call(f"{url}/history/{prompt_id}")
    entry = history[prompt_id]
    times = {name: data["timestamp"] for name, data in entry["status"]["messages"]}
    status = str(entry["outputs"].get("9", {}).get("text", ""))
    if "execution_success" not in times or (expected not in status if expected else "ERROR" in status):
        sys.exit(f"A prompt failed: {status or entry['status']['messages'][-1]}")
    return int(times["execution_success"] - times["execution_start"])


def used_ms(pid: int | None) -> Counter[str]:
    """Return the processor time that each thread of a process has had so far."""
    tasks = f"/proc/{pid}/task"
    threads = os.listdir(tasks) if pid else []
    return Counter({t: int(Path(tasks, t, "schedstat").read_text().split()[0]) / 1e6 for t in threads})


Times = dict[str, list[float]]


def measure(
    url: str,
    images: int,
    rounds: int,
    image: str,
    turns: dict[str, int],
    expected: dict[str, str],
    pid: int | None,
) -> tuple[Times, Times]:
    """Return the times of each kind, and the processor times of the thread that used most of all; the first
    round only warms up."""
    found: Times = {kind: [] for kind in turns}
    used: dict[str, list[Counter[str]]] = {kind: [] for kind in turns}
    for at in range(rounds + 1):
        for kind, times in turns.items():
            for turn in range(times):
                tag = f"{kind}_{images}_{at}_{turn}_{time.time_ns()}"
                before = used_ms(pid)
                took = blocked(url, prompt(kind, images, tag, image), expected.get(kind, ""))
                if at:
                    found[kind].append(took)
                    after = used_ms(pid)
                    after.subtract({thread: before[thread] for thread in after})
                    used[kind].append(after)
                time.sleep(PAUSE_S.get(kind, 0.05) * images)
    total = sum((one for all_of_kind in used.values() for one in all_of_kind), Counter())
    executing = max(total, key=lambda thread: total[thread], default="")
    return found, {kind: [one[executing] for one in of_kind] for kind, of_kind in used.items() if total}


def main() -> int:
    """Measure one and five images, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8188", help="ComfyUI (default port 8188)")
    parser.add_argument("--image", default="example.png", help="a file of ComfyUI's input folder")
    parser.add_argument("--rounds", type=int, default=8, help="rounds that count (default 8)")
    parser.add_argument("--no-farm", action="store_true", help="no farm runs: how soon the node says so")
    parser.add_argument("--pid", type=int, help="ComfyUI's process: its processor time as well (Linux)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    args = parser.parse_args()
    saver = "LunaDaemonImageSaver"
    turns, expected = (TURNS, {}) if not args.no_farm else (NO_FARM_TURNS, {saver: NO_FARM})
    try:
        found = {
            images: measure(args.url, images, args.rounds, args.image, turns, expected, args.pid)
            for images in (1, 5)
        }
    except urllib.error.URLError as error:
        sys.exit(f"No ComfyUI answers at {args.url} ({error.reason}). Start it, with the nodes, and a farm.")
    if args.json:
        print(json.dumps(found))
        return 0
    for images, of_images in found.items():
        for what, kinds in zip(("blocked", "processor"), of_images, strict=True):
            if kinds:
                title = f"{images} x 1024x1024, {what} milliseconds of the whole prompt"
                print(f"{title} (mean, median, least of n; times less than SaveImage: of the medians)")
            for kind, times in kinds.items():
                median = statistics.median(times)
                less = statistics.median(kinds["SaveImage"]) / median if median else float("inf")
                figures = f"{statistics.mean(times):8.2f} {median:8.2f} {min(times):8.2f} of {len(times)}"
                print(f"  {kind:<22}{figures}   {less:6.1f} times less")
    return 0
