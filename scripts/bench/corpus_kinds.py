"""Images of 8 bits of the PNG corpus, of every kind that ComfyUI users save. Each function makes one of them
by its number, [side, side, C], uint8, the same on every machine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import segmentation

Pixels = Any  # an array [H, W] or [H, W, C]; what OpenCV returns has no better type
cv2: Any = importlib.import_module("cv2")  # not among the packages that the checks install
PHOTOS = (
    "flux_schnell-1",
    "sd3.5_large_canny_controlnet_example-1",
    "sd3.5_simple_example-1",
    "sdxl_refiner_prompt_example-1",
    "sdxl_simple_example-1",
    "flux_fill_inpaint_example-1",
    "flux_canny_model_example-1",
    "sd3.5_large_blur-1",
)
RENDERS = (
    "3d_hunyuan3d_multiview_to_model-2",
    "3d_hunyuan3d_multiview_to_model_turbo-2",
    "sd3.5_large_depth-1",
    "sdxl_revision_text_prompts-1",
)
RESAMPLERS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_NEAREST)
WORDS = "the quick brown fox saves every image and compresses it in a background process".split()  # noqa: SIM905
SEED = 20


def template(name: str, side: int) -> Pixels:
    """An image of the template package, its middle cut to side x side, RGB."""
    spec = importlib.util.find_spec("comfyui_workflow_templates_media_image")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install comfyui-workflow-templates-media-image")
    image = Image.open(Path(spec.origin).parent / "templates" / f"{name}.webp").convert("RGB")
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def photo(number: int, side: int) -> Pixels:
    return template(PHOTOS[number % len(PHOTOS)], side)


def render(number: int, side: int) -> Pixels:
    return template(RENDERS[number], side)


def upscaled(factor: int) -> Callable[[int, int], Pixels]:
    def make(number: int, side: int) -> Pixels:
        small = cv2.resize(photo(number, side), (side // factor,) * 2, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (side, side), interpolation=RESAMPLERS[number])

    return make


def jpeg_decoded(number: int, side: int) -> Pixels:
    quality = (95, 85, 70, 40)[number]
    _, data = cv2.imencode(".jpg", photo(number + 4, side), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def gray(number: int, side: int) -> Pixels:
    return cv2.cvtColor(photo(number, side), cv2.COLOR_RGB2GRAY)


def three(plane: Pixels) -> Pixels:
    """A map as ComfyUI holds it: the same plane three times."""
    return np.repeat(plane[..., None], 3, axis=2)


def height_map(number: int, side: int) -> NDArray[np.float64]:
    """A smooth map with steps, as a depth model gives it: 0..1, float."""
    labels = regions(number, side, 24)
    y, x = np.mgrid[:side, :side] / side
    rng = np.random.default_rng(SEED + number)
    planes = rng.uniform(-0.5, 0.5, (labels.max() + 1, 3))
    depth = planes[labels, 0] * x + planes[labels, 1] * y + planes[labels, 2] + y
    depth = cv2.GaussianBlur(depth, (0, 0), 1.5 + number)
    scaled: NDArray[np.float64] = (depth - depth.min()) / np.ptp(depth)
    return scaled


def regions(number: int, side: int, count: int) -> Pixels:
    small = cv2.resize(photo(number, side), (256, 256), interpolation=cv2.INTER_AREA)
    labels = segmentation.slic(small, n_segments=count, compactness=12, start_label=0).astype(np.uint16)
    return cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST)


def depth(number: int, side: int) -> Pixels:
    if number == 0:
        return template("sd3.5_large_depth-2", side)
    return three((height_map(number, side) * 255).astype(np.uint8))


def canny(low: int, high: int, real: str) -> Callable[[int, int], Pixels]:
    def make(number: int, side: int) -> Pixels:
        if number == 1:
            return template(real, side)
        return three(cv2.Canny(gray(number, side), low, high))

    return make


def mask(number: int, side: int) -> Pixels:
    labels = regions(number, side, 30)
    plane = np.where(labels % (2 + number) == 0, 255, 0).astype(np.uint8)
    return three(cv2.GaussianBlur(plane, (0, 0), 4) if number == 3 else plane)


def segmented(number: int, side: int) -> Pixels:
    palette = np.random.default_rng(SEED).integers(0, 256, (512, 3), np.uint8)
    return palette[regions(number, side, (20, 60, 150, 400)[number])]


def skeleton(number: int, side: int) -> Pixels:
    rng = np.random.default_rng(SEED + number)
    canvas = np.zeros((side, side, 3), np.uint8)
    for _ in range(1 + number):
        joints = (rng.normal(0, 0.13, (18, 2)) + rng.uniform(0.3, 0.7, 2)) * side
        for a in range(17):
            colour = tuple(int(v) for v in rng.integers(60, 256, 3))
            cv2.line(canvas, *joints[a : a + 2].astype(int).tolist(), colour, 6, cv2.LINE_AA)
            cv2.circle(canvas, joints[a].astype(int).tolist(), 6, colour, -1)
    return canvas


def normal_map(number: int, side: int) -> Pixels:
    height = height_map(number, side) * 60
    if number % 2:
        height += cv2.GaussianBlur(gray(number, side), (0, 0), 3) / 12
    normal = np.dstack([-np.gradient(height, axis=1), -np.gradient(height, axis=0), np.ones_like(height)])
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    return ((normal + 1) * 127.5).astype(np.uint8)


def line_art(number: int, side: int) -> Pixels:
    plane = gray(number, side)
    if number % 2:
        lines = cv2.adaptiveThreshold(plane, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 15, 6)
        return three(cv2.medianBlur(lines, 3))
    blurred = cv2.GaussianBlur(plane, (0, 0), 4)
    return three(np.clip(plane / np.maximum(blurred, 1) * 255, 0, 255).astype(np.uint8))


def cel_shaded(number: int, side: int) -> Pixels:
    smooth = cv2.pyrMeanShiftFiltering(cv2.resize(photo(number, side), (512, 512)), 12, 24)
    steps = (4, 6, 8, 10)[number]
    flat = (smooth.astype(int) * steps // 256 * 255 // (steps - 1)).astype(np.uint8)
    flat = cv2.resize(flat, (side, side), interpolation=cv2.INTER_LINEAR)
    edges = cv2.dilate(cv2.Canny(gray(number, side), 100, 200), np.ones((2, 2), np.uint8))
    flat[edges > 0] = 20
    return flat


def pixel_art(number: int, side: int) -> Pixels:
    cell = (8, 6, 4, 16)[number]
    image = Image.fromarray(photo(number, side)).resize((-(-side // cell),) * 2, Image.Resampling.BOX)
    image = image.quantize((16, 32, 64, 24)[number], dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")
    return np.repeat(np.repeat(np.asarray(image), cell, 0), cell, 1)[:side, :side]


def text_page(number: int, side: int) -> Pixels:
    ground, ink = ((255, 0), (250, 30), (24, 220), (255, 60))[number]
    image = Image.new("RGB", (side, side), (ground,) * 3)
    _write(
        ImageDraw.Draw(image), (20, 20, side - 20, side - 20), (14, 18, 12, 24)[number], (ink,) * 3, number
    )
    return np.asarray(image)


def screenshot(number: int, side: int) -> Pixels:
    """Panels, text, icons, gradients and a photograph: a user interface."""
    rng = np.random.default_rng(SEED + number)
    image = Image.new("RGB", (side, side), (245, 246, 248) if number % 2 else (32, 34, 38))
    draw = ImageDraw.Draw(image)
    for _ in range(6 + 3 * number):
        x, y = rng.integers(0, side * 3 // 4, 2).tolist()
        w, h = rng.integers(side // 8, side // 2, 2).tolist()
        colour = tuple(int(v) for v in rng.integers(30, 250, 3))
        draw.rounded_rectangle((x, y, x + w, y + h), 12, fill=colour, outline=(90, 90, 90))
        _write(draw, (x + 8, y + 8, x + w - 8, y + h - 8), int(rng.integers(11, 18)), (20, 20, 20), number)
    inset = Image.fromarray(photo(number, side)).resize((side * (1 + number) // 8,) * 2)
    image.paste(inset, (side // 2, side // 2))
    return np.asarray(image)


def _write(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], size: int, ink: Any, seed: int) -> None:
    font = ImageFont.load_default(size)
    rng = np.random.default_rng(SEED + seed)
    left, top, right, bottom = box
    for y in range(top, bottom - size, size * 3 // 2):
        line = ""
        while True:
            word = WORDS[rng.integers(len(WORDS))]
            if draw.textlength(line + word, font) > right - left:
                break
            line += word + " "
        draw.text((left, y), line, ink, font)


def gradient(dither: bool) -> Callable[[int, int], Pixels]:
    def make(number: int, side: int) -> Pixels:
        y, x = np.mgrid[:side, :side] / side
        wave = (x, (x + y) / 2, np.hypot(x - 0.5, y - 0.5), np.sin(4 * x) * np.cos(3 * y) / 2 + 0.5)[number]
        ends = np.random.default_rng(SEED + number).uniform(0, 255, (2, 3))
        colour = ends[0] + wave[..., None] * (ends[1] - ends[0])
        if dither:
            colour += np.random.default_rng(SEED).uniform(0, 1, colour.shape)
        return np.clip(colour, 0, 255).astype(np.uint8)

    return make


def noise(number: int, side: int) -> Pixels:
    rng = np.random.default_rng(SEED + number)
    if number == 3:
        return np.where(rng.random((side, side, 1)) < 0.1, rng.integers(0, 256, (side, side, 3)), 128).astype(
            np.uint8
        )
    return rng.integers(0, (256, 64, 4)[number], (side, side, 3)).astype(np.uint8)


def one_colour(number: int, side: int) -> Pixels:
    return np.full(
        (side, side, 3), ((0, 0, 0), (255, 255, 255), (37, 150, 190), (128, 128, 128))[number], np.uint8
    )


def rgba(soft: bool) -> Callable[[int, int], Pixels]:
    def make(number: int, side: int) -> Pixels:
        colours = (photo, render, cel_shaded, screenshot)[number](number, side)
        alpha = np.full((side, side), 255, np.uint8)
        if soft:
            alpha = cv2.GaussianBlur(mask(number, side)[..., 0], (0, 0), 6)
            colours = np.where(alpha[..., None] > 0, colours, 0)
        return np.dstack([colours, alpha])

    return make
