"""Time against size of encoders as an SVG image, for bench_png.py. No library needed."""

from __future__ import annotations

import math

Row = tuple[str, int, list[float]]  # family, level, and ms and size of each group


def plot(rows: list[Row]) -> str:
    """Time (logarithmic) against size on the noisy and the clean group, as SVG."""
    width, height, gap = 560, 420, 70
    colours: dict[str, str] = {}
    palette = [
        "#d6336c",
        "#1c7ed6",
        "#f08c00",
        "#2f9e44",
        "#7048e8",
        "#0c8599",
        "#868e96",
        "#5c940d",
        "#a61e4d",
    ]
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width} {height + 40}"'
    parts = [
        f'{opening} font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    shown = [row for row in rows if row[1] > 0 and max(row[2][1::2]) < 1.6]
    for panel, name in enumerate(("clean", "noisy")):
        values = [(family, level, f[2 * panel], f[2 * panel + 1]) for family, level, f in shown]
        low, high = math.log10(min(v[2] for v in values) * 0.8), math.log10(max(v[2] for v in values) * 1.25)
        bottom, top = min(v[3] for v in values) - 0.02, max(v[3] for v in values) + 0.02
        left = panel * width + gap

        def x_of(ms: float, left: int = left, low: float = low, high: float = high) -> float:
            return left + (math.log10(ms) - low) / (high - low) * (width - gap - 20)

        def y_of(size: float, bottom: float = bottom, top: float = top) -> float:
            return height - 40 - (size - bottom) / (top - bottom) * (height - 80)

        parts.append(
            f'<text x="{left}" y="24" font-size="15">{name}: CPU ms against size (Pillow 4 = 1)</text>'
        )
        for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
            if low <= math.log10(tick) <= high:
                parts.append(_line(x_of(tick), 40, x_of(tick), height - 40, "#e9ecef"))
                parts.append(
                    f'<text x="{x_of(tick):.0f}" y="{height - 22}" text-anchor="middle">{tick}</text>'
                )
        for step in range(math.ceil(bottom * 20), math.floor(top * 20) + 1):
            parts.append(_line(left, y_of(step / 20), left + width - gap - 20, y_of(step / 20), "#e9ecef"))
            at = y_of(step / 20) + 4
            parts.append(f'<text x="{left - 8}" y="{at:.0f}" text-anchor="end">{step / 20:.2f}</text>')
        for family, level, ms, size in sorted(values):
            colour = colours.setdefault(family, palette[len(colours) % len(palette)])
            parts.append(f'<circle cx="{x_of(ms):.1f}" cy="{y_of(size):.1f}" r="4" fill="{colour}"/>')
            parts.append(
                f'<text x="{x_of(ms) + 6:.1f}" y="{y_of(size) - 4:.1f}" fill="{colour}">{level}</text>'
            )
    for i, (family, colour) in enumerate(colours.items()):
        legend_x, legend_y = 20 + i % 5 * 220, height + 6 + i // 5 * 18
        parts.append(f'<circle cx="{legend_x}" cy="{legend_y}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{legend_x + 10}" y="{legend_y + 4}">{family}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
