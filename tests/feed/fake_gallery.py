"""A catalogue of made-up images, with thumbnails and some files: for the tests of the gallery
and its screenshots. Deterministic: the same number gives the same image."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path

from fake_farm import picture

from luna_farm.catalogue.rows import NAME, CatalogueRow
from luna_farm.catalogue.search import Catalogue
from luna_farm.catalogue.store import Store
from luna_farm.feed.gallery import Gallery
from luna_farm.storage import thumbnails
from luna_farm.storage.thumbnails import Thumbnails

MODELS = ("flux1-dev", "juggernautXL_v9", "sd_xl_base_1.0", "realvisxl_v5")
SUBJECTS = (
    "a lighthouse on a cliff",
    "hills under a full moon",
    "a harbour in the fog",
    "a pine forest after rain",
)
STYLES = ("oil on canvas", "35mm photograph", "soft light, film grain", "ink and watercolour")
STEP_S = 97.0
SCALE = 6


class FakeGallery:
    """Rows, newest last, that end at `now`; those below `files` have a file, those below `small` a
    thumbnail."""

    def __init__(self, folder: Path, *, now: float | None = None) -> None:
        self.folder = folder
        self.now = time.time() if now is None else now
        self.store = Store(folder / NAME)
        self.small = Thumbnails(folder / thumbnails.NAME, 1 << 30)
        self.out = folder / "out"
        self.out.mkdir(exist_ok=True)

    def gallery(self, *, can_open: bool = True) -> Gallery:
        """What a feed serves."""
        return Gallery(Catalogue(self.folder / NAME), self.small, can_open=can_open)

    def fill(self, count: int, *, files: int = 0, small: int = 0) -> None:
        """Add `count` images; the newest `files` have files, the newest `small` thumbnails."""
        rows = []
        for number in range(count):
            age = count - number
            rows.append(self.row(number, self.now - age * STEP_S, file=age <= files))
            if len(rows) == 1000:
                self.store.put(rows)
                rows = []
        self.store.put(rows)
        kinds: dict[int, bytes] = {}
        for number in range(count - small, count):
            kind = number % 240
            if kind not in kinds:
                out = io.BytesIO()
                sample = picture(kind, 2)
                sample.thumbnail((256, 256))
                sample.save(out, "JPEG", quality=75)
                kinds[kind] = out.getvalue()
            self.small.put([(*self.key(number), kinds[kind])])

    @staticmethod
    def key(number: int) -> tuple[str, int]:
        """Job id and index of an image."""
        return f"{number // 3:08x}", number % 3

    def row(self, number: int, saved_at: float, *, file: bool) -> CatalogueRow:
        """The row of an image, and its file."""
        chance = random.Random(number)
        job_id, index = self.key(number)
        path = self.out / f"night_{number:06d}_{('RAW', 'UPSCALED', 'DETAILED')[index]}.png"
        if file:
            picture(number % 240, SCALE).save(path)
        width, height = random.Random(number % 240).choice([(160, 160), (160, 107), (107, 160)])
        rejected = number % 29 == 7
        return CatalogueRow(
            path=str(path),
            state="discarded" if rejected else "saved",
            job_id=job_id,
            index=index,
            format="png",
            width=width * SCALE,
            height=height * SCALE,
            bytes=path.stat().st_size if file else 1_400_000,
            submitted_at=saved_at - 0.2,
            saved_at=saved_at,
            ms=round(chance.uniform(6, 18), 2),
            affix=("RAW", "UPSCALED", "DETAILED")[index],
            model=MODELS[number // 40 % len(MODELS)],
            prompt=f"{chance.choice(SUBJECTS)}, {chance.choice(STYLES)}, wide angle, detailed foreground",
            negative="lowres, watermark, text",
            loras=("film-grain:0.6",) if number % 4 == 0 else (),
            sampler="dpmpp_2m",
            scheduler="karras",
            steps=28,
            cfg=5.5,
            seed=chance.randrange(2**63),
            gate_score=0.18 if rejected else round(chance.uniform(0.5, 0.98), 3),
            gate_threshold=0.3,
            variance=round(chance.uniform(0.2, 0.9), 3),
            edge_density=round(chance.uniform(0.1, 0.7), 3),
            clipped=round(chance.uniform(0, 0.05), 3),
            blank=False,
            nan_count=0,
            phash=f"{chance.getrandbits(64):016x}",
        )

    def fail(self, number: int, error: str) -> None:
        """Add an image that failed."""
        row = CatalogueRow(
            path=str(self.out / f"failed_{number}.png"),
            state="failed",
            job_id=f"fa{number:06x}",
            saved_at=self.now - number,
            format="png",
            error=error,
        )
        self.store.put([row])

    def close(self) -> None:
        """Close the files that are written."""
        self.store.close()
        self.small.close()
