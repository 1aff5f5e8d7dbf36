"""A real ComfyUI and a real farm: COMFYUI_DIR and COMFYUI_PYTHON say where (see CONTRIBUTING).

COMFYUI_FRONTEND is the folder of another frontend than the one installed there (the one with index.html).
Everything happens in a temporary base directory. Without the variables these tests are skipped, loudly.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).resolve().parents[2]
START_S, PROMPT_S, LOOK_S = 600.0, 120.0, 0.02
"""Bounds of waits that end as soon as they may: a machine that has other work gives a ComfyUI seconds of
processor time in minutes."""
WORKERS = 2
DIRECTORY, PYTHON = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFYUI_PYTHON")
FRONTEND = os.environ.get("COMFYUI_FRONTEND")
PACKAGES = {"luna_farm": "luna_farm", "luna_farm_client": "client", "luna_farm_nodes": "comfy_nodes"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "COMFYUI_DIR and COMFYUI_PYTHON are not set: no real ComfyUI to test against (CONTRIBUTING)"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.comfyui)
            item.add_marker(pytest.mark.timeout(1200))
            if not (DIRECTORY and PYTHON):
                item.add_marker(pytest.mark.skip(reason=reason))


def until(found: Callable[[], Any], what: str, within_s: float = PROMPT_S) -> Any:
    """Return what `found` returns once that is something."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(LOOK_S)
    raise AssertionError(f"After {within_s:.0f} s still not: {what}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Farm:
    """A farm that can be started and stopped; `environ` leads clients to it."""

    folder: Path
    environ: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "luna_farm", "start", "--feed-port", "off"]
        with (self.folder / "farm.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | self.environ, stdout=log, stderr=log)
        until(self._listens, "the farm listens", START_S)

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", int(self.environ["LUNA_FARM_PORT"]))) == 0

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None

    def workers(self) -> list[int]:
        """The process ids of the workers, once all are idle: one that still starts cannot be stopped."""
        with self.client() as client:

            def idle() -> list[int]:
                rows = client.status()["workers"]
                ready = len(rows) == WORKERS and all(row["state"] == "idle" for row in rows)
                return [row["pid"] for row in rows] if ready else []

            return list(until(idle, "the workers are ready"))

    @contextmanager
    def paused(self) -> Iterator[Callable[[], None]]:
        """No image is saved inside, however long that takes, unless what is yielded is called before."""
        with self.client() as client:
            client.pause()
            try:
                yield client.resume
            finally:
                client.resume()

    def client(self) -> Any:
        from luna_farm_client import FarmClient

        token = (Path(self.environ["LUNA_FARM_STATE_DIR"]) / "token").read_text().strip()
        return FarmClient("127.0.0.1", int(self.environ["LUNA_FARM_PORT"]), token)


@dataclass
class Comfy:
    """A running ComfyUI and what its API says."""

    base: Path
    port: int

    until = staticmethod(until)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{self.url}{path}", data, kind), timeout=60
            ) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()}") from None
        return json.loads(text) if text else None

    def queue(self, prompt: dict[str, Any], workflow: Any = None, client_id: str = "test") -> str:
        """Queue a prompt in the API's form; returns its id."""
        extra = {"extra_pnginfo": {"workflow": workflow or {"nodes": [], "title": "Ünïcode 月"}}}
        body = {"prompt": prompt, "client_id": client_id, "extra_data": extra}
        return str(self.post("/prompt", body)["prompt_id"])

    def history(self, prompt_id: str) -> dict[str, Any]:
        return dict(self.get(f"/history/{prompt_id}").get(prompt_id, {}))

    def run(self, prompt: dict[str, Any], workflow: Any = None) -> dict[str, Any]:
        """Queue a prompt and return its history once it was executed."""
        prompt_id = self.queue(prompt, workflow)
        entry = until(lambda: self.history(prompt_id), "the prompt is executed")
        return {**entry, "prompt_id": prompt_id}

    def settled(self, prompt_id: str, node: str = "9") -> dict[str, Any]:
        """Return a saver's output in the history once its job is over."""

        def over() -> Any:
            output = self.history(prompt_id)["outputs"][node]
            return output if output["luna_farm"][0]["state"] != "queued" else None

        return dict(until(over, "the job is over"))

    def files(self, *pictures: dict[str, str]) -> list[Path]:
        return [self.base / "output" / one["subfolder"] / one["filename"] for one in pictures]

    def view(self, picture: dict[str, str]) -> bytes:
        with urllib.request.urlopen(
            f"{self.url}/view?{urllib.parse.urlencode(picture)}", timeout=60
        ) as answer:
            return bytes(answer.read())


def packages(folder: Path) -> Path:
    """Make a folder for PYTHONPATH with the packages of this checkout under their import names."""
    folder.mkdir()
    for name, source in PACKAGES.items():
        (folder / name).symlink_to(ROOT / source)
    known = folder / "luna_farm-0.dist-info" / "METADATA"  # what tells an installed package from a clone
    known.parent.mkdir()
    known.write_text("Metadata-Version: 2.1\nName: luna-farm\nVersion: 0\n")
    return folder


def base_directory(base: Path) -> Path:
    for name in ("custom_nodes", "input", "output", "temp", "models", "user/default"):
        (base / name).mkdir(parents=True)
    (base / "user/default/comfy.settings.json").write_text(
        '{"Comfy.TutorialCompleted": true, "Comfy.Locale": "en"}'
    )
    noise = np.random.default_rng(7).integers(0, 256, (192, 256, 3), np.uint8)
    ramp = np.indices((192, 256)).sum(0)[..., None] // 2
    Image.fromarray(((noise // 4) + ramp).clip(0, 255).astype(np.uint8)).save(base / "input" / "picture.png")
    Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(base / "input" / "flat.png")
    Image.fromarray(data.astronaut()).save(base / "input" / "astronaut.png")
    return base


def start_comfyui(
    base: Path, environ: dict[str, str], *arguments: str
) -> tuple[Comfy, subprocess.Popen[bytes]]:
    port = free_port()
    command = [str(PYTHON), "main.py", "--cpu", "--base-directory", str(base), "--port", str(port)]
    command += ["--disable-api-nodes", "--database-url", "sqlite:///:memory:", *arguments]
    command += ["--front-end-root", FRONTEND] if FRONTEND else []
    with (base / "comfyui.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=DIRECTORY, env=os.environ | environ, stdout=log, stderr=log)
    comfy = Comfy(base, port)

    def ready() -> bool:
        assert process.poll() is None, (base / "comfyui.log").read_text()[-3000:]
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(ready, "ComfyUI listens", START_S)
    except BaseException:
        stop(process)
        raise
    return comfy, process


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    environ = {
        "LUNA_FARM_PORT": str(free_port()),
        "LUNA_FARM_STATE_DIR": str(folder / "state"),
        "LUNA_FARM_ARENA_BYTES": str(128 * 2**20),
        "LUNA_FARM_MIN_WORKERS": str(WORKERS),
        "LUNA_FARM_MAX_WORKERS": str(WORKERS),
        "PYTHONPATH": str(packages(folder / "packages")),
    }
    made = Farm(folder, environ)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory, farm: Farm) -> Iterator[Comfy]:
    """ComfyUI with the nodes installed by `luna-farm nodes install`."""
    base = base_directory(tmp_path_factory.mktemp("comfyui"))
    command = [sys.executable, "-m", "luna_farm", "nodes", "install", str(base)]
    subprocess.run(command, check=True, env=os.environ | farm.environ, capture_output=True)
    made, process = start_comfyui(base, farm.environ)
    yield made
    stop(process)


@pytest.fixture
def running(farm: Farm) -> Farm:
    """The farm, running whatever the test before did to it."""
    if farm.process is None:
        farm.start()
    return farm


@pytest.fixture
def prompt(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """`prompt(node="LunaDaemonImageSaver", source="picture.png", **inputs)`: load a picture and save it as
    node "9".

    Every test saves under a name of its own, so ComfyUI's cache knows none of them.
    """
    name = request.node.name.replace("[", "_").replace("]", "")

    def make(
        node: str = "LunaDaemonImageSaver", source: str = "picture.png", **inputs: Any
    ) -> dict[str, Any]:
        given = {
            "save_path": "tests",
            "filename": name,
            "quality_gate": "disabled",
            "min_quality_threshold": 0.3,
        }
        return {
            "1": {"class_type": "LoadImage", "inputs": {"image": source}, "_meta": {"title": "Quelle ü"}},
            "9": {
                "class_type": node,
                "inputs": {**given, "image_1": ["1", 0], **inputs},
                "_meta": {"title": "Saver"},
            },
        }

    return make


@pytest.fixture(scope="session")
def comfyui() -> Any:
    """The functions above, for a module that needs a ComfyUI of its own."""
    return SimpleNamespace(base_directory=base_directory, start=start_comfyui, stop=stop)
