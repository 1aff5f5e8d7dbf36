#!/usr/bin/env python3
"""Writes the tables of docs/formats.md that say what each format holds, and which decoders read it back.

    python3 scripts/bench format_tables [--check]

Every format is written in every depth with 1, 3 and 4 channels, at its best quality, and read by each decoder
of tests/imaging/decoders.py; a cell says how far the worst value is off, in steps of its depth. `--check`
writes nothing and fails if the tables are not those of the document. A decoder that is missing here is an
error: the tables must not depend on the machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "imaging"))
from decoders import comparable, of

from luna_farm.core.formats import TABLE, Format
from luna_farm.core.messages import SaveOptions
from luna_farm.imaging.depth import to_bits
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import NOTHING

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
DTYPES = {"8": "uint8", "10": "uint16", "16": "uint16", "half": "float16", "float": "float32"}
FLOATS = ("half", "float")


def main() -> int:
    """Write or check the tables."""
    parser = argparse.ArgumentParser(description="Write the tables of formats into docs/formats.md.")
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    page = PAGE.read_text()
    for name, table in (("limits", limits()), ("decoders", decoders())):
        marked = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
        page = marked.sub(lambda found, table=table: found[1] + table + found[2], page)  # type: ignore[misc]
    if check:
        return int(page != PAGE.read_text())
    PAGE.write_text(page)
    return 0


def limits() -> str:
    """Return the table of what each format holds."""
    lines = [
        "| format | depths | channels | exact | longest side | texts | ICC | animated | library | install |",
        "| --- " * 10 + "|",
    ]
    lines += [_limits_of(row) for row in TABLE]
    return "\n".join(lines) + "\n"


def _limits_of(row: Format) -> str:
    channels = ["gray"] * row.gray + ["RGB"] + ["RGBA"] * row.alpha
    texts = row.metadata + (f" (at most {row.metadata_bytes:,} bytes)" if row.metadata_bytes else "")
    cells = (
        *(f"`{row.name}` {row.title}", ", ".join(row.depths), ", ".join(channels), row.lossless),
        *(f"{row.longest_side:,}", texts, "yes" if row.icc else "", "yes" if row.animation else ""),
        *(row.library, f"`{row.install}`" if row.install else ""),
    )
    return "| " + " | ".join(cells) + " |"


def decoders() -> str:
    """Return the table of what each decoder makes of each kind of file."""
    lines = ["| format | depth | gray | RGB | RGBA |", "| --- | --- | --- | --- | --- |"]
    for row in TABLE:
        for depth in row.depths:
            cells = [_cell(row, depth, channels) for channels in (1, 3, 4)]
            lines.append(f"| {row.title} | {depth} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Format, depth: str, channels: int) -> str:
    if channels == 4 and not row.alpha:
        return "on the background"
    pixels = sample(depth, channels)
    options = SaveOptions(
        output_dir="/",
        lossy_quality=100,
        lossless_webp=True,
        bit_depth=depth if depth in FLOATS else "auto",
    )
    file = b"".join(encode(pixels, row.name, options, NOTHING).buffers)
    expected = to_bits(pixels, 10) if depth == "10" else pixels
    said: dict[str, list[str]] = {}
    for title, decode in of(row.name, depth, channels).items():
        decoded = decode(file)
        if depth == "10" and decoded.max() > 1023:
            decoded = to_bits(decoded, 10)
        decoded = comparable(decoded, *pixels.shape)
        off = float(np.abs(decoded.astype(np.float64) - expected.astype(np.float64)).max())
        said.setdefault("exact" if off == 0 else f"within {off:g}", []).append(title)
    return "; ".join(f"{verdict}: {', '.join(titles)}" for verdict, titles in said.items())


def sample(depth: str, channels: int, height: int = 120, width: int = 161) -> NDArray[Any]:
    """Return waves with grain, the same for equal arguments; floats reach beyond 0..1 on both sides."""
    rng = np.random.default_rng(channels)
    rows, columns = np.mgrid[0:height, 0:width]
    base = 0.5 + 0.3 * np.sin(columns / 17) + 0.1 * np.cos(rows / 9)
    values = np.stack([np.roll(base, 5 * c, 1) for c in range(channels)], axis=2)
    values = np.clip(values + rng.normal(0, 0.01, values.shape), 0, 1)
    dtype = np.dtype(DTYPES[depth])
    values = values * 3 - 1 if dtype.kind == "f" else np.floor(values * np.iinfo(dtype).max)
    sampled: NDArray[Any] = values.astype(dtype)
    return sampled


if __name__ == "__main__":
    sys.exit(main())
