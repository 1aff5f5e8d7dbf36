"""Size by kind of image as an SVG: a line for each kind, a dot for each level. For scripts/bench/png.py."""

from __future__ import annotations

from collections.abc import Mapping

LEFT, TOP, WIDTH, ROW = 170, 46, 620, 15
SHOWN = (0.5, 1.3)
FONT = 'font-family="sans-serif" font-size="11"'
TITLE = "Size of the largest image of each kind, relative to Pillow at level 4"
COLOURS = ("#d95f02", "#1b9e77", "#7570b3", "#444444")


def plot(sizes: Mapping[str, Mapping[int, float]]) -> str:
    """kind -> level -> the largest size relative to Pillow's level 4. Kinds are drawn in the given order."""
    levels = sorted({level for found in sizes.values() for level in found})
    height = TOP + ROW * len(sizes) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" {FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="16" font-size="13">{TITLE}</text>',
    ]
    for number, level in enumerate(levels):
        at = LEFT + 90 * number
        parts.append(f'<circle cx="{at}" cy="30" r="4" fill="{COLOURS[number]}"/>')
        parts.append(f'<text x="{at + 9}" y="34">level {level}</text>')
    for tick in range(5, 14):
        x, colour = _place(tick / 10), "#888" if tick == 10 else "#ddd"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{height - 24}" stroke="{colour}"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{tick / 10}</text>')
    for row, (kind, found) in enumerate(sizes.items()):
        y = TOP + ROW * row + 8
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{kind}</text>')
        for number, level in enumerate(levels):
            if level in found:
                x = _place(found[level])
                parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[number]}"/>')
    return "\n".join([*parts, "</svg>", ""])


def _place(size: float) -> float:
    low, high = SHOWN
    return round(LEFT + (min(max(size, low), high) - low) / (high - low) * WIDTH, 1)
