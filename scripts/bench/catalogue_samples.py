"""Generated rows, and the texts of generated files, that the catalogue is measured with; always the same."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from luna_farm.catalogue.rows import CatalogueRow

_SYLLABLES = tuple(a + b for a in "bdklmnrstvz" for b in "aeiou")
_VOCABULARY = 20_000


class Writer:
    """Makes prompts whose words are as frequent as words are: the n-th is 1/n as frequent as the first."""

    def __init__(self) -> None:
        self.random = random.Random(1)  # noqa: S311  the same rows each time
        pick = self.random
        self.words = ["".join(pick.choices(_SYLLABLES, k=pick.randint(1, 4))) for _ in range(_VOCABULARY)]
        self._weights = list(accumulate(1 / (n + 1) for n in range(_VOCABULARY)))
        self.negatives = [
            f"blurry, low quality, bad anatomy, extra fingers, text, watermark, {n}" for n in range(200)
        ]

    def pick(self, count: int) -> list[str]:
        """Return words of prompts."""
        return self.random.choices(self.words, cum_weights=self._weights, k=count)

    def prompt(self) -> str:
        """Return a prompt of 15 to 55 words."""
        words = self.pick(self.random.randint(15, 55))
        return ", ".join(" ".join(words[at : at + 3]) for at in range(0, len(words), 3))


def sample_rows(writer: Writer, count: int) -> Iterator[CatalogueRow]:
    """Yield rows of images that were made one after another."""
    pick = writer.random
    moment = 1.7e9
    for n in range(count):
        moment += pick.expovariate(1 / 20)
        yield CatalogueRow(
            path=f"/home/user/ComfyUI/output/2026-{n // 30_000 % 12 + 1:02d}/{n:07d}_RAW_{n % 9:05d}.png",
            job_id=f"{pick.getrandbits(32):08x}",
            format="png",
            width=1024,
            height=1024,
            bytes=pick.randint(10**6, 2 * 10**6),
            crc32=pick.getrandbits(32),
            submitted_at=moment - 1,
            saved_at=moment,
            ms=pick.random() * 20,
            affix="RAW",
            model=f"model_{pick.randint(0, 40)}_xl",
            prompt=writer.prompt(),
            negative=pick.choice(writer.negatives),
            loras=("detail:0.8",) if n % 2 else (),
            sampler="DPM++ 2M",
            scheduler="Karras",
            steps=28,
            cfg=6.5,
            seed=pick.getrandbits(64 if n % 2 else 50),
            variance=round(pick.random(), 4),
            edge_density=round(pick.random(), 4),
            clipped=round(pick.random(), 4),
            blank=n % 5000 == 0,
            nan_count=0,
            phash=f"{pick.getrandbits(64):016x}",
        )


def chunk(key: str, text: str) -> bytes:
    """Return a tEXt chunk."""
    body = key.encode("latin-1") + b"\0" + text.encode("latin-1", "backslashreplace")
    return struct.pack(">I", len(body)) + b"tEXt" + body + struct.pack(">I", zlib.crc32(b"tEXt" + body))


def a1111_texts(writer: Writer) -> dict[str, str]:
    """Return the text that A1111's web UI writes."""
    seed = writer.random.getrandbits(64)
    settings = f"Steps: 28, Sampler: DPM++ 2M, CFG scale: 6.5, Seed: {seed}, Size: 200x200, Model: sdxl"
    return {"parameters": f"{writer.prompt()}\nNegative prompt: {writer.negatives[0]}\n{settings}"}


def graph_texts(writer: Writer) -> dict[str, str]:
    """A prompt of 40 nodes and a workflow of about 20 kB, as ComfyUI's Save Image writes them."""
    graph: dict[str, Any] = {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": writer.random.getrandbits(64),
                "steps": 28,
                "cfg": 6.5,
                "sampler_name": "dpmpp_2m",
                "scheduler": "karras",
                "denoise": 1,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 200, "height": 200, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": writer.prompt(), "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": writer.negatives[0], "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
    }
    graph |= {
        str(n): {"class_type": "Note", "inputs": {"text": writer.prompt(), "more": ["8", 0]}}
        for n in range(20, 53)
    }
    workflow = {"nodes": [{"id": n, "widgets_values": [writer.prompt()]} for n in range(60)], "version": 0.4}
    return {"prompt": json.dumps(graph), "workflow": json.dumps(workflow)}


def own_texts(writer: Writer) -> dict[str, str]:
    """Return what this farm writes for ComfyUI."""
    return {
        **graph_texts(writer),
        **a1111_texts(writer),
        "image_type": "RAW",
        "model_name": "sdxl",
        "save_timestamp": "2026-01-02T03:04:05+00:00",
        "batch_index": "0",
    }
