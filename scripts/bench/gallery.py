"""How soon the gallery shows something, and how smoothly it scrolls, with 100,000 images.

    python3 scripts/bench/gallery [--images N] [--loads N]

Over the farm of the tests that saves nothing, in headless Chromium without a GPU. `first paint` is the
browser's own first contentful paint, `thumbnails` when the first of them is drawn, both from the start of the
navigation, the median of the loads. `main thread` is the processor time of the page until then, the least of
the loads, which other programs change little. While it scrolls through the whole page, the time between
frames is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NEEDS = ("playwright",)
THUMBNAILS = """() => new Promise((done) => {
  const drawn = () => document.querySelector(".shot img.here");
  const look = () => drawn() ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
SCROLL = """(seconds) => new Promise((done) => {
  const gaps = [], began = performance.now(), height = document.documentElement.scrollHeight - innerHeight;
  let before = began;
  const step = (now) => {
    gaps.push(now - before);
    before = now;
    const share = (now - began) / 1000 / seconds;
    scrollTo(0, height * Math.min(1, share));
    share < 1 ? requestAnimationFrame(step) : done(gaps.slice(1).sort((a, b) => a - b));
  };
  requestAnimationFrame(step);
})"""


async def measure(images: int, loads: int) -> dict[str, Any]:
    """Fill a catalogue, load the page some times, scroll through it once."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "feed")]
    from fake_farm import FakeFarm
    from fake_gallery import FakeGallery
    from playwright.async_api import async_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium on this machine (Debian: apt-get install chromium).")
    with tempfile.TemporaryDirectory() as folder:
        made = FakeGallery(Path(folder))
        made.fill(images, small=2000)
        farm = FakeFarm()
        feed = await farm.serve(gallery=made.gallery())
        address = f"http://127.0.0.1:{feed.port}/gallery"
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            paints, thumbnails, busy, weight = [], [], [], 0
            for _ in range(loads):
                page = await browser.new_page(viewport={"width": 1280, "height": 900})
                answers: list[Any] = []

                def note(answer: Any, answers: list[Any] = answers) -> None:
                    answers.append(answer)

                page.on("response", note)
                cdp = await page.context.new_cdp_session(page)
                await cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
                await page.goto(address, wait_until="commit")
                thumbnails.append(await page.evaluate(THUMBNAILS))
                paints.append(await page.evaluate(PAINT))
                told = await cdp.send("Performance.getMetrics")
                metrics = {row["name"]: row["value"] for row in told["metrics"]}
                busy.append(metrics["TaskDuration"] * 1e3)
                own = (answer for answer in answers if "/api/" not in answer.url)
                weight = sum(int(answer.headers.get("content-length", 0)) for answer in own)
                if len(paints) < loads:
                    await page.close()
            gaps = await page.evaluate(SCROLL, 8)
            started = time.perf_counter()
            await page.locator("#words").fill("lighthouse oil -photograph")
            await page.wait_for_url("**words=lighthouse**")
            await page.locator(".shot").first.wait_for()
            searched_ms = (time.perf_counter() - started) * 1e3
            await browser.close()
        await feed.close()
        made.close()
    return {
        "images": images,
        "page_kb": weight / 1000,
        "first_paint_ms": statistics.median(paints),
        "thumbnails_ms": statistics.median(thumbnails),
        "main_thread_ms": min(busy),
        "frames": len(gaps),
        "frame_median_ms": statistics.median(gaps),
        "frame_p95_ms": gaps[int(0.95 * len(gaps))],
        "frame_worst_ms": gaps[-1],
        "search_ms": searched_ms,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--loads", type=int, default=7)
    given = parser.parse_args()
    for name, value in asyncio.run(measure(given.images, given.loads)).items():
        print(f"{name:<18}{value:>12,.1f}" if isinstance(value, float) else f"{name:<18}{value:>12,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
