#!/usr/bin/env python3
"""Make the PNG corpus: at least four images of every kind that ComfyUI users save.

    python3 scripts/bench corpus FOLDER [--side 1024] [--deep]

Real images come from the package of workflow templates. Everything else is computed from them or drawn
here, with fixed seeds, so that two runs on the same packages give the same files. Each image is a file
KIND-N.npy, [H, W] or [H, W, C], uint8 or uint16. Images with an even N are the half to tune on, odd ones
the half to report. `noisy` gives the second version of each: Gaussian noise of sigma 1.2 on top (300 for 16
bit).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bench import corpus_deep as deep_kinds
from bench import corpus_kinds as kinds
from bench.corpus_kinds import Pixels, cv2

NEEDS = ("comfyui-workflow-templates-media-image", "opencv-python-headless")


def is_tune(name: str) -> bool:
    """Whether the image KIND-N belongs to the half to tune on."""
    return int(name.rsplit("-", 1)[1]) % 2 == 0


def noisy(pixels: Pixels) -> Pixels:
    """The image with Gaussian noise."""
    sigma, top = (1.2, 255) if pixels.dtype == np.uint8 else (300.0, 65535)
    noise = np.random.default_rng(7).normal(0, sigma, pixels.shape)
    return np.clip(pixels + noise, 0, top).astype(pixels.dtype)


def smaller(pixels: Pixels, side: int) -> Pixels:
    """The image as a thumbnail of side x side pixels."""
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def images(side: int, deep: bool = False) -> Iterator[tuple[str, Pixels]]:
    """Every image of the corpus, or of the one of 16 bits, with its name."""
    for kind, make in (DEEP_KINDS if deep else KINDS).items():
        for number in range(4):
            yield f"{kind}-{number}", np.ascontiguousarray(make(number, side))


KINDS: dict[str, Callable[[int, int], Pixels]] = {
    "photo": kinds.photo,
    "photo2": lambda number, side: kinds.photo(number + 4, side),
    "upscaled2x": kinds.upscaled(2),
    "upscaled4x": kinds.upscaled(4),
    "jpeg": kinds.jpeg_decoded,
    "depth": kinds.depth,
    "canny": kinds.canny(150, 300, "flux_canny_model_example-2"),
    "canny-dense": kinds.canny(30, 80, "sd3.5_large_canny_controlnet_example-2"),
    "mask": kinds.mask,
    "segmentation": kinds.segmented,
    "skeleton": kinds.skeleton,
    "normal": kinds.normal_map,
    "lineart": kinds.line_art,
    "cel": kinds.cel_shaded,
    "pixelart": kinds.pixel_art,
    "text": kinds.text_page,
    "screenshot": kinds.screenshot,
    "render": kinds.render,
    "gradient": kinds.gradient(False),
    "dithered": kinds.gradient(True),
    "noise": kinds.noise,
    "onecolour": kinds.one_colour,
    "gray": kinds.gray,
    "rgba-flat": kinds.rgba(False),
    "rgba-soft": kinds.rgba(True),
    "deep": deep_kinds.sixteen_bit,
}
DEEP_KINDS: dict[str, Callable[[int, int], Pixels]] = {
    "deep-photo": deep_kinds.deep_photo,
    "deep-widened": deep_kinds.deep_widened,
    "deep-levels": deep_kinds.deep_levels,
    "deep-depth": deep_kinds.deep_depth,
    "deep-gray": deep_kinds.deep_gray,
    "deep-map": deep_kinds.deep_map,
    "deep-upscaled": deep_kinds.deep_upscaled,
}


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--deep", action="store_true", help="seven kinds of 16 bits instead")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in images(arguments.side, arguments.deep):
        np.save(arguments.folder / f"{name}.npy", pixels)


if __name__ == "__main__":
    main()
