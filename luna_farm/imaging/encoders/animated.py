"""A batch as one moving image: animated WebP, APNG and AVIF.

Frames are encoded one after another: the encoder holds one frame and the files so far, never all pixels. WebP
and APNG are put together here, each frame a still image of its own; AVIF is a video, which Pillow feeds frame
by frame. Video files are another matter: ComfyUI's Save Video and VHS Video Combine make them.

Formats: W3C PNG (third edition), 11.3.6 (acTL, fcTL, fdAT); RFC 9649, 2.7.1.1 (ANIM, ANMF).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from luna_farm.core.formats import ANIMATED, FORMATS, depth_warning, stored_depth
from luna_farm.core.messages import SaveOptions
from luna_farm.errors import EncodeError, InvalidRequest
from luna_farm.imaging import metadata_exif
from luna_farm.imaging.depth import Pixels, convert
from luna_farm.imaging.encoders import (
    Encoded,
    avif,
    check_pixels,
    check_sides,
    colour_warning,
    decide_sidecar,
    fitting,
    png,
    png_marks,
    webp,
    without_profile,
)
from luna_farm.imaging.marks import Marks, marks
from luna_farm.imaging.metadata import Embedded

if TYPE_CHECKING:
    from PIL import Image

FASTEST, MOST_LOOPS = 240.0, 65_535
_OVERWRITE = 0x02  # ANMF: the frame replaces what was there, alpha and all


def encode_animation(
    frames: Sequence[Pixels],
    format: str,  # noqa: A002 - the word of the protocol
    options: SaveOptions,
    embedded: Embedded,
    *,
    fps: float,
    loop: int = 0,
    ms: Sequence[int] = (),
) -> Encoded:
    """Encode frames of one size as one file.

    frames: a sequence of [H, W, C], or an array [N, H, W, C]; each is asked for once, in order. format: of
    `core.formats.ANIMATED`. fps: above 0, at most FASTEST. loop: how often it is shown, 0 for ever. ms: how
    many milliseconds each frame lasts, instead of all alike. Raises InvalidRequest for another format, speed,
    number of loops or of durations, EncodeError as `encode` does.
    """
    if format not in ANIMATED:
        raise InvalidRequest.of("animation", format, f"a format of {', '.join(ANIMATED)}")
    if not 0 < fps <= FASTEST or not 0 <= loop <= MOST_LOOPS:
        allowed = f"fps above 0 and at most {FASTEST:g}, loop from 0 (for ever) to {MOST_LOOPS}"
        raise InvalidRequest.of("animation", {"fps": fps, "loop": loop}, allowed)
    if ms and len(ms) != len(frames):
        raise InvalidRequest.of("animation_ms", f"{len(ms)} durations", f"{len(frames)}, one for each frame")
    first = frames[0]
    dtype = check_pixels(first)
    check_sides(first, format)
    gray = first.shape[2] == 1 and FORMATS[format].gray
    del first  # one frame is held, that which is encoded
    marked, told = fitting(marks(options), gray=gray)
    embedded = without_profile(embedded, marked) if told else embedded
    if format == "png":  # which holds fractions: 1/24 s is that
        speed = Fraction(1 / fps).limit_denominator(1000)
        delays = [Fraction(one, 1000) for one in ms] or [speed] * len(frames)
        depth = stored_depth(dtype, options.bit_depth, format)
        encoded = _apng(frames, options, embedded, marked, delays, loop, depth)
    else:
        lasts = list(ms or _durations(len(frames), fps))
        maker = _webp if format == "webp" else _avif
        encoded = maker(frames, options, embedded, marked, lasts, loop)
    lost = depth_warning(dtype, options.bit_depth, format)
    if format == "avif" and (dtype == "uint16" or options.bit_depth != "auto") and options.bit_depth != "8":
        lost = "An animated AVIF has 8 bits a channel here; the frames were scaled down to that."
    encoded.warnings[:0] = [*embedded.warnings, *told, *([lost] if lost else [])]
    decide_sidecar(encoded, options, embedded)
    return encoded


def _ready(frames: Sequence[Pixels], depth: str = "8") -> Iterator[Pixels]:
    shape = frames[0].shape
    for frame in frames:
        check_pixels(frame)
        if frame.shape != shape:
            raise EncodeError(f"frames of {list(shape)} and {list(frame.shape)} do not make one animation")
        yield convert(frame, depth)


def _durations(count: int, fps: float) -> Iterator[int]:
    """Return whole milliseconds that add up to the length, whatever the speed."""
    ends = [round(n * 1000 / fps) for n in range(count + 1)]
    return (after - before for before, after in pairwise(ends))


def _apng(
    frames: Sequence[Pixels],
    options: SaveOptions,
    embedded: Embedded,
    marked: Marks,
    delays: list[Fraction],
    loop: int,
    depth: str,
) -> Encoded:
    height, width = frames[0].shape[:2]
    parts: list[bytes | memoryview] = []
    number = 0  # of fcTL and fdAT together
    ready = _ready(frames, depth)
    for index, frame in enumerate(ready):
        delay = delays[index]  # zip would keep the frame
        file = png.encode(frame, level=options.png_compression, chunks=[])
        head, data = _split(b"".join(file))
        if index == 0:
            shown = png.chunk(b"acTL", struct.pack(">II", len(frames), loop))
            parts.append(b"".join([head, *png_marks.chunks(embedded, marked), shown]))
        control = struct.pack(
            ">IIIIIHHBB", number, width, height, 0, 0, delay.numerator, delay.denominator, 0, 0
        )
        parts.append(png.chunk(b"fcTL", control))
        number += 1
        for piece in data:
            if index == 0:
                parts.append(png.chunk(b"IDAT", piece))
            else:
                parts.append(png.chunk(b"fdAT", struct.pack(">I", number) + piece))
                number += 1
    parts.append(png.chunk(b"IEND", b""))
    return Encoded(parts)


def _split(file: bytes) -> tuple[bytes, list[bytes]]:
    """Return signature and IHDR of a PNG, and the contents of its IDAT chunks."""
    at, data = 8, []
    while at < len(file):
        (length,) = struct.unpack_from(">I", file, at)
        if file[at + 4 : at + 8] == b"IDAT":
            data.append(file[at + 8 : at + 8 + length])
        at += 12 + length
    return file[: 8 + 25], data


def _webp(
    frames: Sequence[Pixels],
    options: SaveOptions,
    embedded: Embedded,
    marked: Marks,
    lasts: list[int],
    loop: int,
) -> Encoded:
    height, width = frames[0].shape[:2]
    shown: list[bytes | memoryview] = [webp.header(b"ANIM", 6) + struct.pack("<IH", 0, loop)]
    alpha = False
    for frame, duration in zip(_ready(frames), lasts, strict=True):
        streams = webp.image_chunks(webp.compress(frame, options))
        alpha = alpha or webp.shows_alpha(streams)
        image = b"".join(part for kind, data in streams for part in webp.even(kind, data))
        place = bytes(6) + webp.size_of_canvas(width, height) + duration.to_bytes(3, "little")
        shown += [webp.header(b"ANMF", 16 + len(image)), place + bytes([_OVERWRITE]), image]
    exif = metadata_exif.block(embedded)
    parts = webp.canvas(shown, exif, marked, width=width, height=height, alpha=alpha, animated=True)
    return Encoded(parts, warnings=colour_warning("WebP", marked, icc=True, cicp=False))


def _avif(
    frames: Sequence[Pixels],
    options: SaveOptions,
    embedded: Embedded,
    marked: Marks,
    lasts: list[int],
    loop: int,
) -> Encoded:
    avif.check_pillow()
    gray = frames[0].shape[2] == 1
    how: dict[str, Any] = {} if gray else {"subsampling": avif.subsampling(options.lossy_quality)}
    out = io.BytesIO()
    _moving(frames).save(
        out,
        "AVIF",
        save_all=True,
        duration=lasts,
        quality=options.lossy_quality,
        speed=options.avif_speed,
        max_threads=1,
        exif=metadata_exif.block(embedded),
        xmp=marked.xmp,
        icc_profile=marked.icc,
        **how,
    )
    warnings = colour_warning(FORMATS["avif"].title, marked, icc=True, cicp=False)
    if loop:
        warnings.append("An animated AVIF is shown for ever: its encoder has no setting for loops.")
    if options.lossless_webp:
        warnings.append("An animated AVIF is not exact here; animated WebP and PNG are.")
    return Encoded([out.getvalue()], warnings=warnings)


def _moving(frames: Sequence[Pixels]) -> Image.Image:
    """Return an image of several frames, as Pillow has them: each is made when it is asked for."""
    from PIL import Image

    ready = _ready(frames)

    class Moving(Image.Image):
        n_frames = len(frames)
        is_animated = True

        def __init__(self, first: Image.Image) -> None:
            super().__init__()
            self._mode, self._size, self.im = first.mode, first.size, first.im
            self._wanted = self._made = 0

        def seek(self, frame: int) -> None:
            if frame >= self.n_frames:
                raise EOFError
            self._wanted = frame

        def tell(self) -> int:
            return self._wanted

        def load(self) -> Any:
            if self._wanted == self._made + 1:  # the encoder asks for one after another
                self.im, self._made = image(next(ready)).im, self._wanted
            return super().load()

    def image(frame: Pixels) -> Image.Image:
        return Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame)

    return Moving(image(next(ready)))
