"""Images that can be told apart, what was promised about them, and the count of what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luna_farm.errors import UnknownJob
from luna_farm_client import FarmClient, JobReport, Receipt, SaveImage, SaveRequest

Pixels = NDArray[np.uint8]
SMALL = (40, 64)
LARGE = (2048, 4096)
"""24 MB."""
AGAIN = ("", "crash", "dead_letter")
"""Codes of images that were made or set aside: a person tries the latter again."""
_noise = np.random.default_rng(7).integers(0, 255, (256, 64, 3), dtype=np.uint8)


def sample(number: int, size: tuple[int, int] = SMALL, *, noisy: bool = False) -> Pixels:
    """A sample that no other number has. `noisy`: of noise only, which no encoder makes smaller."""
    if noisy:
        return np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[...] = np.arange(size[1], dtype=np.uint8)[None, :, None]
    pixels[:8] = (number & 255, number >> 8 & 255, number >> 16 & 255)
    pixels[-16:, :64] = np.roll(_noise, number, axis=0)[:16]
    return pixels


@dataclass(slots=True)
class Promised:
    """One accepted job and the samples in it."""

    receipt: Receipt
    numbers: tuple[int, ...]


@dataclass(slots=True)
class Album:
    """What was handed over through one client, and the proof that all of it arrived."""

    out: Path
    size: tuple[int, int] = SMALL
    noisy: bool = False
    promised: list[Promised] = field(default_factory=list)
    retried: int = 0
    _next: int = 0
    _asked: tuple[int, ...] = ()

    def sample(self, number: int) -> Pixels:
        """The sample of a number."""
        return sample(number, self.size, noisy=self.noisy)

    def add(self, client: FarmClient, count: int = 1, **options: object) -> Promised:
        """Hand over a job of `count` new samples."""
        given = {"filename": "a", "output_dir": self.out, **options}
        return self.keep(client.submit(SaveRequest(images=self.next_images(count), **given)))

    def next_images(self, count: int = 1) -> list[SaveImage]:
        """New samples; what a farm that refuses them never saw is handed over again as others."""
        self._asked = tuple(range(self._next, self._next + count))
        self._next += count
        return [SaveImage(self.sample(n), affix=f"I{i}") for i, n in enumerate(self._asked)]

    def keep(self, receipt: Receipt) -> Promised:
        """The samples of the last `next_images` were accepted."""
        self.promised.append(Promised(receipt, self._asked))
        return self.promised[-1]

    def wait_for_last(self, client: FarmClient, timeout: float = 120.0) -> JobReport | None:
        """The report of the last job, once it is finished or set aside."""
        return _finished(client, self.promised[-1].receipt.job_id, timeout)

    def wait(self, client: FarmClient, timeout: float = 120.0) -> list[JobReport | None]:
        """The reports once all is finished; jobs that were set aside are tried again, as a person would."""
        reports = []
        for promised in self.promised:
            report = _finished(client, promised.receipt.job_id, timeout)
            while report and report.state == "failed" and all(i.code in AGAIN for i in report.images):
                self.retried += 1
                client.retry(promised.receipt.job_id)
                report = _finished(client, promised.receipt.job_id, timeout)
            reports.append(report)
        return reports

    def settled(self, client: FarmClient) -> dict[str, int]:
        """Wait until all is finished, and `count`."""
        reports = self.wait(client)
        return self.count(reports)

    def count(self, reports: list[JobReport | None]) -> dict[str, int]:
        """lost: promised and not there. corrupt: other pixels. duplicate: files too many. stray: temporary
        files."""
        lost = corrupt = 0
        expected: set[Path] = set()
        for promised, report in zip(self.promised, reports, strict=True):
            paths = [image.path for image in report.images] if report else list(promised.receipt.paths)
            for number, path in zip(promised.numbers, paths, strict=True):
                expected.add(Path(path))
                if not Path(path).is_file():
                    lost += 1
                elif not shows(Path(path), self.sample(number)):
                    corrupt += 1
        stray = set(self.out.rglob(".luna-*"))
        found = {path for path in self.out.rglob("a_*") if path.is_file()}
        return {
            "samples": sum(len(p.numbers) for p in self.promised),
            "lost": lost,
            "corrupt": corrupt,
            "duplicate": len(found - expected),
            "stray": len(stray),
        }


def _finished(client: FarmClient, job_id: str, timeout: float) -> JobReport | None:
    """None for a job that the farm does not know (any more)."""
    try:
        return client.wait(job_id, timeout)
    except UnknownJob:
        return None


def shows(path: Path, pixels: Pixels) -> bool:
    """Whether a file holds exactly these pixels."""
    try:
        with Image.open(path) as image:
            return bool(np.array_equal(np.asarray(image.convert("RGB")), pixels))
    except (OSError, SyntaxError, ValueError):
        return False


def whole(folder: Path) -> Iterator[bool]:
    """For each sample file below `folder`, whether it can be read to its end."""
    for path in folder.rglob("*.png"):
        try:
            with Image.open(path) as image:
                image.load()
            yield True
        except (OSError, SyntaxError, ValueError):
            yield False
