"""A real farm whose destination is a real server behind a proxy that fails on purpose."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from farm_process import FarmProcess, until
from fault_proxy import FaultProxy
from numpy.typing import NDArray
from servers import Server

from luna_farm.locations import parse
from luna_farm.storage.sinks import open_sink
from luna_farm_client import FarmClient, JobReport, SaveImage, SaveRequest

Pixels = NDArray[np.uint8]
DONE_S = 120.0
FOREIGN = b"an object of another program"


def pixels(number: int, side: int = 32) -> Pixels:
    """An image that no other number has."""
    image = np.zeros((side, side, 3), np.uint8)
    image[0, :4] = [[number >> shift & 255] * 3 for shift in (0, 8, 16, 24)]
    return image


class UploadingFarm:
    """A farm below `home` that sends to `server` through `proxy`."""

    def __init__(self, home: Path, server: Server, proxy: FaultProxy, **settings: Any) -> None:
        self.home, self.server, self.proxy = home, server, proxy
        url, self.options = server.through(proxy.port)
        self.url = f"{url}/{home.parent.name}-{home.name}"
        """A prefix that no other test uses."""
        self.foreign: set[str] = set()
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.options.items()]
        (home / "luna-farm.toml").write_text(
            f'[destinations.store]\nurl = "{url}"\n' + "\n".join(lines) + "\n"
        )
        self.farm = FarmProcess(home, **settings)

    def start(self, **environ: str) -> FarmClient:
        """Start the farm, with crash points in the environment, and return a client."""
        os.environ.update(environ)
        try:
            self.farm.start()
        finally:
            for name in environ:
                del os.environ[name]
        return self.client()

    def client(self, timeout: float = DONE_S) -> FarmClient:
        """A client that finds the farm again after each start, and sends again what was not answered."""
        client = FarmClient("127.0.0.1", self.farm.port, timeout=timeout, restart_s=timeout)
        client.endpoint = dataclasses.replace(client.endpoint, state_dir=self.farm.state)
        return client

    def kept_alive(self) -> contextlib.AbstractContextManager[None]:
        """Start the farm again whenever it has died."""
        return self.farm.kept_alive()

    def save(self, client: FarmClient, numbers: Iterable[int], **given: Any) -> str:
        """Hand over one job with an image for each number; returns its id."""
        images = [SaveImage(pixels(n), affix=f"I{n}") for n in numbers]
        request = SaveRequest(images=images, **{"output_dir": self.url, "filename": "a", **given})
        return client.submit(request).job_id

    def wait(self, client: FarmClient, jobs: Iterable[str]) -> list[JobReport]:
        """The reports of jobs, once they are done."""
        return [client.wait(job, timeout=DONE_S) for job in jobs]

    def stored(self) -> dict[str, bytes]:
        """Everything below the prefix, asked of the server itself."""
        location = parse("url", self.url)
        if self.server.folder is not None:
            root = self.server.folder / location.prefix
            return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        import obstore

        sink: Any = open_sink(parse("url", self.server.url), self.server.options)
        store = sink._store(0)
        names = [row["path"] for rows in obstore.list(store, prefix=location.prefix + "/") for row in rows]
        found = {name[len(location.prefix) + 1 :]: bytes(obstore.get(store, name).bytes()) for name in names}
        sink.close()
        return found

    def spooled(self) -> list[str]:
        """What lies in the spool of uploads."""
        return os.listdir(self.home / "state" / "uploads")

    def status(self) -> dict[str, Any]:
        """The status, by a connection of its own."""
        with self.client() as client:
            return client.status()

    def destination(self) -> dict[str, Any]:
        """The status of the destination, {} before its first upload."""
        rows = [row for row in self.status()["destinations"] if row["destination"] == "store"]
        return rows[0] if rows else {}

    def kill_uploader(self) -> bool:
        """kill -9 of the uploader; False if there is none."""
        pid = self.status()["uploader"]["pid"]
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return bool(pid)

    def put_foreign(self, numbers: Iterable[int]) -> None:
        """Store objects of another program under the names that images would get."""
        import obstore

        location = parse("url", self.url)
        sink: Any = open_sink(parse("url", self.server.url), self.server.options)
        for number in numbers:
            name = f"a_I{number}.png"
            obstore.put(sink._store(0), f"{location.prefix}/{name}", FOREIGN)
            self.foreign.add(name)
        sink.close()

    def check(self, expected: int) -> None:
        """Assert that so many images are stored, each once and whole, that objects of others are as they
        were, and that nothing is left behind."""
        import io

        from PIL import Image

        found = self.stored()
        replaced = [name for name in self.foreign if found.pop(name, b"") != FOREIGN]
        assert not replaced, "0 overwritten"
        numbers = []
        for name, data in found.items():
            with Image.open(io.BytesIO(data)) as image:
                row = np.asarray(image.convert("RGB"))[0, :4, 0].astype(int)
            number = sum(int(value) << 8 * place for place, value in enumerate(row))
            assert f"_I{number}." in name or f"_I{number}_" in name, "the pixels are those of the name"
            numbers.append(number)
        assert sorted(numbers) == list(range(expected)), "0 lost, 0 twice"
        until(lambda: not self.spooled(), "the spool is empty")
